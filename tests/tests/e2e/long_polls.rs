//! The emulator wakes a waiting long poll as soon as a message is available, instead of polling ten times a second. A poll
//! that missed a message would delay its step by the whole wait.

use std::env;
use std::time::{Duration, Instant};

use nofx_local::aws::resources::Aws;
use uuid::Uuid;

/// The maximum wait of SQS. No poll here may take that long.
const WAIT_S: i32 = 20;
const SOON: Duration = Duration::from_secs(10);

struct Queue {
    sqs: aws_sdk_sqs::Client,
    url: String,
}

impl Queue {
    async fn create() -> Self {
        let endpoint = env::var("NOFX_TEST_AWS_ENDPOINT_URL").expect("run under nofx exec");
        let sqs = Aws::new(&endpoint).sqs;
        let created = sqs.create_queue().queue_name(format!("poll-{}", Uuid::new_v4())).send().await.expect("a queue");
        Self { sqs, url: created.queue_url.expect("a URL") }
    }

    /// The receipt handles that a poll receives, and how long it waited.
    async fn receive(&self, visibility_s: i32) -> (Vec<String>, Duration) {
        let start = Instant::now();
        let request = self.sqs.receive_message().queue_url(&self.url).wait_time_seconds(WAIT_S);
        let messages =
            request.visibility_timeout(visibility_s).send().await.expect("an answer").messages.unwrap_or_default();
        (messages.into_iter().filter_map(|message| message.receipt_handle).collect(), start.elapsed())
    }

    async fn send(&self, delay_s: i32) {
        let request = self.sqs.send_message().queue_url(&self.url).message_body("hello").delay_seconds(delay_s);
        request.send().await.expect("sent");
    }
}

#[tokio::test]
async fn a_waiting_poll_receives_new_delayed_and_redelivered_messages() {
    let queue = Queue::create().await;
    // The poll or the message may come first. Both orders must end soon.
    let ((received, waited), ()) = tokio::join!(queue.receive(1), queue.send(0));
    assert_eq!(received.len(), 1);
    assert!(waited < SOON, "a message: {waited:?}");

    let (again, waited) = queue.receive(1).await;
    assert_eq!(again.len(), 1, "its visibility ended");
    assert!(waited < SOON, "a redelivery: {waited:?}");

    let returned = queue.sqs.change_message_visibility().queue_url(&queue.url).receipt_handle(&again[0]);
    let ((third, waited), _) = tokio::join!(queue.receive(1), returned.visibility_timeout(0).send());
    assert_eq!(third.len(), 1, "it was returned");
    assert!(waited < SOON, "a return: {waited:?}");
    queue.sqs.delete_message().queue_url(&queue.url).receipt_handle(&third[0]).send().await.expect("deleted");

    queue.send(1).await;
    let (delayed, waited) = queue.receive(1).await;
    assert_eq!(delayed.len(), 1, "its delay ended");
    assert!((Duration::from_millis(500)..SOON).contains(&waited), "a delay: {waited:?}");
}

#[tokio::test]
async fn each_message_wakes_one_of_many_waiting_polls() {
    let queue = Queue::create().await;
    let polls = futures::future::join_all((0..5).map(|_| queue.receive(60)));
    let (received, ()) = tokio::join!(polls, async {
        for _ in 0..5 {
            queue.send(0).await;
        }
    });
    let counts: Vec<usize> = received.iter().map(|(messages, _)| messages.len()).collect();
    assert_eq!(counts, [1; 5]);
    assert!(received.iter().all(|(_, waited)| *waited < SOON));
}
