//! Reads the event of SQS, and builds the batch response.

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use tracing::error;

use crate::domain::StepId;
use crate::queue::Message;

/// A delivered wake-up.
pub(super) struct Delivery {
    message_id: String,
    pub receipt_handle: Option<String>,
    pub message: Message,
}

/// The wake-ups of an event, and the ids of unreadable messages. Those end in the dead-letter queue.
pub(super) fn read(event: SqsEvent) -> (Vec<Delivery>, Vec<String>) {
    let (mut deliveries, mut unreadable) = (Vec::new(), Vec::new());
    for record in event.records {
        match read_record(record) {
            Ok(delivery) => deliveries.push(delivery),
            Err(message_id) => unreadable.push(message_id),
        }
    }
    (deliveries, unreadable)
}

fn read_record(record: SqsMessage) -> Result<Delivery, String> {
    let message_id = record.message_id.unwrap_or_default();
    match serde_json::from_str(record.body.as_deref().unwrap_or_default()) {
        Ok(message) => Ok(Delivery { message_id, receipt_handle: record.receipt_handle, message }),
        Err(error) => {
            error!(message_id, %error, "the message is not a wake-up; it goes to the dead-letter queue");
            Err(message_id)
        }
    }
}

/// The batch response. SQS delivers again what could not be read and the wake-ups of `failed` steps.
pub(super) fn response(deliveries: &[Delivery], unreadable: Vec<String>, failed: &[StepId]) -> SqsBatchResponse {
    let again = deliveries.iter().filter(|delivery| failed.contains(&delivery.message.step_id));
    let ids = unreadable.into_iter().chain(again.map(|delivery| delivery.message_id.clone()));
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = ids
        .map(|id| {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            failure
        })
        .collect();
    response
}
