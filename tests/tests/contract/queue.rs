//! Wake-ups over SQS.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use shared::domain::tool::queue_name;
use shared::domain::trace::TraceParent;
use shared::domain::{RunId, StepId, TenantId};
use shared::error::Error;
use shared::queue::{Message, Queue, WakeUp};
use uuid::Uuid;

use crate::target::{Target, for_each_target};

/// Queues under a unique prefix.
struct Queues {
    client: aws_sdk_sqs::Client,
    prefix: String,
    queue: Queue,
}

impl Queues {
    async fn new(target: Target) -> Self {
        let client = aws_sdk_sqs::Client::new(&target.sdk().await);
        let prefix = format!("t-{}-", Uuid::new_v4().simple());
        let queue = Queue::sqs(client.clone(), &prefix);
        Self { client, prefix, queue }
    }

    async fn create(&self, handler: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
        let mut request = self.client.create_queue().queue_name(queue_name(&self.prefix, handler));
        for (name, value) in attributes {
            request = request.attributes(name.clone(), *value);
        }
        request.send().await.expect("make a queue").queue_url.expect("its URL")
    }

    async fn receive(&self, url: &str) -> Vec<aws_sdk_sqs::types::Message> {
        let answer = self
            .client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(10)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await;
        answer.expect("receive").messages.unwrap_or_default()
    }

    async fn attribute(&self, url: &str, name: QueueAttributeName) -> String {
        let request = self.client.get_queue_attributes().queue_url(url).attribute_names(name.clone());
        let answer = request.send().await.expect("attributes");
        answer.attributes.expect("attributes").remove(&name).expect("the attribute")
    }
}

fn wakeup(handler: &str, tenant: &str) -> WakeUp {
    WakeUp {
        tenant_id: TenantId(tenant.into()),
        run_id: RunId(Uuid::new_v4()),
        step_id: StepId(Uuid::new_v4()),
        handler: handler.into(),
        delay_ms: 0,
        traceparent: Some(TraceParent::root(Uuid::new_v4()).to_string()),
    }
}

for_each_target!(Ministack as ministack, Localstack as localstack => [
    more_wakeups_than_one_batch_all_arrive_with_ids_and_trace,
    each_handler_has_its_own_queue,
    a_wakeup_is_delayed_by_at_most_the_maximum_of_sqs,
    a_missing_queue_is_an_error_and_the_other_queues_get_their_messages,
    a_released_message_is_received_again_before_its_visibility_timeout,
    an_unreadable_message_ends_in_the_dead_letter_queue,
]);

async fn more_wakeups_than_one_batch_all_arrive_with_ids_and_trace(target: Target) {
    let queues = Queues::new(target).await;
    let url = queues.create("echo", &[]).await;
    let sent: Vec<WakeUp> = (0..23).map(|_| wakeup("echo", "acme")).collect();
    queues.queue.send(sent.clone()).await.unwrap();
    let mut received = BTreeMap::new();
    while received.len() < sent.len() {
        let messages = queues.receive(&url).await;
        assert!(!messages.is_empty(), "{} of {} arrived", received.len(), sent.len());
        for message in messages {
            let body: Message = serde_json::from_str(message.body().unwrap()).expect("a wake-up");
            assert_eq!(message.attributes().unwrap()[&MessageSystemAttributeName::MessageGroupId], "acme");
            received.insert(body.step_id, body);
        }
    }
    for wakeup in sent {
        let body = &received[&wakeup.step_id];
        assert_eq!((&body.tenant_id, body.run_id), (&wakeup.tenant_id, wakeup.run_id));
        let trace = |text: &Option<String>| TraceParent::parse(text.as_deref().unwrap()).unwrap();
        let (of_run, of_message) = (trace(&wakeup.traceparent), trace(&body.traceparent));
        assert_eq!(of_message.trace_id(), of_run.trace_id());
        assert_ne!(of_message.to_string(), of_run.to_string(), "its own span");
    }
}

async fn each_handler_has_its_own_queue(target: Target) {
    let queues = Queues::new(target).await;
    let urls = [queues.create("echo", &[]).await, queues.create("manual", &[]).await];
    let sent = [wakeup("echo", "acme"), wakeup("manual", "other")];
    queues.queue.send(sent.to_vec()).await.unwrap();
    for (url, wakeup) in urls.iter().zip(&sent) {
        let messages = queues.receive(url).await;
        assert_eq!(messages.len(), 1);
        assert!(messages[0].body().unwrap().contains(&wakeup.step_id.to_string()));
        assert_eq!(
            messages[0].attributes().unwrap()[&MessageSystemAttributeName::MessageGroupId],
            wakeup.tenant_id.0,
            "the tenant is the fairness key"
        );
    }
}

async fn a_wakeup_is_delayed_by_at_most_the_maximum_of_sqs(target: Target) {
    let queues = Queues::new(target).await;
    let url = queues.create("echo", &[]).await;
    let delayed = |delay_ms| WakeUp { delay_ms, ..wakeup("echo", "acme") };
    // A millisecond is rounded up to a second. A day is reduced to the maximum of SQS.
    queues.queue.send(vec![delayed(1), delayed(86_400_000)]).await.unwrap();
    assert!(queues.receive(&url).await.is_empty());
    assert_eq!(queues.attribute(&url, QueueAttributeName::ApproximateNumberOfMessagesDelayed).await, "2");
}

async fn a_missing_queue_is_an_error_and_the_other_queues_get_their_messages(target: Target) {
    let queues = Queues::new(target).await;
    let url = queues.create("echo", &[]).await;
    let answer = queues.queue.send(vec![wakeup("gate", "acme"), wakeup("echo", "acme")]).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    assert_eq!(queues.receive(&url).await.len(), 1);
}

async fn a_released_message_is_received_again_before_its_visibility_timeout(target: Target) {
    let queues = Queues::new(target).await;
    let url = queues.create("echo", &[(QueueAttributeName::VisibilityTimeout, "600")]).await;
    queues.queue.send(vec![wakeup("echo", "acme")]).await.unwrap();
    let first = queues.receive(&url).await;
    assert!(queues.receive(&url).await.is_empty(), "hidden");
    queues.queue.release("echo", first[0].receipt_handle().unwrap(), 0).await.unwrap();
    let second = queues.receive(&url).await;
    assert_eq!(second[0].message_id(), first[0].message_id());
}

async fn an_unreadable_message_ends_in_the_dead_letter_queue(target: Target) {
    let queues = Queues::new(target).await;
    let dead = queues.create("echo-dlq", &[]).await;
    let arn = queues.attribute(&dead, QueueAttributeName::QueueArn).await;
    let redrive = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": "2" }).to_string();
    let url = queues.create("echo", &[(QueueAttributeName::RedrivePolicy, &redrive)]).await;
    queues.client.send_message().queue_url(&url).message_body("poison").send().await.unwrap();
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let messages = queues.receive(&url).await;
        ids.insert(messages[0].message_id().unwrap().to_owned());
        // As if a worker returned it in `batchItemFailures` and the visibility timeout passed.
        queues.queue.release("echo", messages[0].receipt_handle().unwrap(), 0).await.unwrap();
    }
    assert!(queues.receive(&url).await.is_empty());
    let found = queues.receive(&dead).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].body().unwrap(), ids.len()), ("poison", 1));
}
