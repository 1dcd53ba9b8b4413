//! LocalStack's init hook creates the same resources as `nofx dev`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName::{All, RedrivePolicy, VisibilityTimeout};
use nofx_local::aws::resources::{Aws, BUCKET, LLM_SECRET};
use nofx_local::function::queue_functions;
use nofx_tests::environment::{aws_endpoint_url, localstack_endpoint_url};
use serde_json::Value;

const HOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// The visibility timeout and redrive policy of each handler's queue.
async fn queues(aws: &Aws, prefix: &str) -> BTreeMap<&'static str, (String, Value)> {
    let mut queues = BTreeMap::new();
    for function in queue_functions() {
        let url =
            aws.sqs.get_queue_url().queue_name(function.spec.queue(prefix)).send().await.expect("a queue").queue_url;
        let request = aws.sqs.get_queue_attributes().queue_url(url.unwrap()).attribute_names(All);
        let mut attributes: HashMap<_, _> = request.send().await.unwrap().attributes.unwrap();
        let redrive = attributes.remove(&RedrivePolicy).expect("a redrive policy");
        let mut redrive: Value = serde_json::from_str(&redrive).unwrap();
        let target = redrive["deadLetterTargetArn"].as_str().unwrap();
        assert!(target.ends_with(&format!(":{}", function.spec.dead_letter_queue(prefix))), "{target}");
        redrive["deadLetterTargetArn"].take();
        // A number or a string: servers return what they received.
        let receives = redrive["maxReceiveCount"].to_string();
        redrive["maxReceiveCount"] = receives.trim_matches('"').into();
        queues.insert(function.name(), (attributes.remove(&VisibilityTimeout).unwrap(), redrive));
    }
    queues
}

async fn wait_for_hook() {
    let url = format!("{}/_localstack/init/ready", localstack_endpoint_url());
    let waiting = async {
        loop {
            let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
            // The health check of compose.yaml looks for this text.
            if text.contains(r#""completed": true"#) {
                assert!(
                    text.contains("resources.py") && text.contains("SUCCESSFUL") && !text.contains("ERROR"),
                    "{text}"
                );
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HOOK_TIMEOUT, waiting).await.expect("the hook ends");
}

#[tokio::test]
async fn the_hook_creates_the_resources_of_nofx_dev_and_each_accepts_existing_ones() {
    wait_for_hook().await;
    let localstack = Aws::new(&localstack_endpoint_url());
    let by_hook = queues(&localstack, "nofx-").await;
    localstack.s3.head_bucket().bucket(BUCKET).send().await.expect("the bucket");
    localstack.secrets.describe_secret().secret_id(LLM_SECRET).send().await.expect("the secret");

    let emulator = Aws::new(&aws_endpoint_url());
    emulator.create_resources("t-resources-", &BTreeMap::new()).await.unwrap();
    assert_eq!(by_hook, queues(&emulator, "t-resources-").await);

    localstack.create_resources("nofx-", &BTreeMap::new()).await.expect("existing resources are accepted");
    assert_eq!(queues(&localstack, "nofx-").await, by_hook);
}
