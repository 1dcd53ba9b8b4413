//! The event of Lambda's SQS event source, and the meaning of the function's answer.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_sqs::types::{Message, MessageAttributeValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// `{"Records": [...]}` with the same fields as on AWS.
pub fn event(messages: &[Message], queue_arn: &str, region: &str) -> Value {
    let records: Vec<Value> = messages.iter().map(|message| record(message, queue_arn, region)).collect();
    json!({ "Records": records })
}

fn record(message: &Message, queue_arn: &str, region: &str) -> Value {
    let attributes: Map<String, Value> = message
        .attributes()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str().to_owned(), Value::from(value.as_str())))
        .collect();
    let mut record = json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body().unwrap_or_default(),
        "attributes": attributes,
        "messageAttributes": message.message_attributes().map(message_attributes).unwrap_or_default(),
        "md5OfBody": message.md5_of_body(),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": region,
    });
    if let Some(md5) = message.md5_of_message_attributes() {
        record["md5OfMessageAttributes"] = Value::from(md5);
    }
    record
}

fn message_attributes(attributes: &HashMap<String, MessageAttributeValue>) -> Map<String, Value> {
    attributes
        .iter()
        .map(|(name, value)| {
            let mut attribute = json!({
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value.data_type(),
            });
            if let Some(text) = value.string_value() {
                attribute["stringValue"] = Value::from(text);
            }
            if let Some(blob) = value.binary_value() {
                attribute["binaryValue"] = Value::from(STANDARD.encode(blob));
            }
            (name.clone(), attribute)
        })
        .collect()
}

/// Result of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum BatchResult {
    /// All messages succeeded, except those with these ids.
    DoneExcept(BTreeSet<String>),
    /// The whole batch failed.
    Failed(String),
}

/// Reads a function's answer as the event source of AWS does. An empty answer is full success. An item without an id,
/// or with an id that is not in the batch, fails the whole batch.
pub fn batch_result(answer: &[u8], batch: &BTreeSet<&str>) -> BatchResult {
    if answer.iter().all(u8::is_ascii_whitespace) {
        return BatchResult::DoneExcept(BTreeSet::new());
    }
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else {
        return BatchResult::Failed("the function's answer is not JSON".to_owned());
    };
    let failures = match answer.get("batchItemFailures") {
        None | Some(Value::Null) => {
            // For an error of the function, cargo-lambda answers with status 200 and the error as body.
            return match answer.get("errorMessage").or_else(|| answer.get("errorType")) {
                Some(error) => BatchResult::Failed(error.as_str().unwrap_or("error without a message").to_owned()),
                None => BatchResult::DoneExcept(BTreeSet::new()),
            };
        }
        Some(Value::Array(failures)) => failures,
        Some(_) => return BatchResult::Failed("batchItemFailures is not a list".to_owned()),
    };
    let mut ids = BTreeSet::new();
    for failure in failures {
        match failure.get("itemIdentifier").and_then(Value::as_str) {
            Some(id) if batch.contains(id) => ids.insert(id.to_owned()),
            _ => return BatchResult::Failed("batchItemFailures names a message that is not in the batch".to_owned()),
        };
    }
    BatchResult::DoneExcept(ids)
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::sqs::SqsEvent;
    use aws_sdk_sqs::types::MessageSystemAttributeName;

    use super::*;

    fn message() -> Message {
        let text = MessageAttributeValue::builder().data_type("String").string_value("00-abc-01").build().unwrap();
        Message::builder()
            .message_id("m1")
            .receipt_handle("r1")
            .body("{\"step_id\":1}")
            .md5_of_body("d41d8")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "1")
            .attributes(MessageSystemAttributeName::MessageGroupId, "local")
            .message_attributes("traceparent", text)
            .build()
    }

    #[test]
    fn the_event_is_the_one_lambda_sends() {
        let arn = "arn:aws:sqs:us-east-1:000000000000:nofx-step-ready-echo";
        let event = event(&[message()], arn, "us-east-1");
        assert_eq!(
            event,
            json!({ "Records": [{
                "messageId": "m1",
                "receiptHandle": "r1",
                "body": "{\"step_id\":1}",
                "attributes": { "ApproximateReceiveCount": "1", "MessageGroupId": "local" },
                "messageAttributes": { "traceparent": {
                    "stringValue": "00-abc-01", "stringListValues": [], "binaryListValues": [], "dataType": "String",
                } },
                "md5OfBody": "d41d8",
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
                "awsRegion": "us-east-1",
            }] })
        );
        let parsed: SqsEvent = serde_json::from_value(event).expect("the runtime's own type reads it");
        assert_eq!(parsed.records[0].message_attributes["traceparent"].string_value.as_deref(), Some("00-abc-01"));
    }

    #[test]
    fn an_answer_is_read_as_the_event_source_reads_it() {
        let batch = BTreeSet::from(["a", "b"]);
        let done = |ids: &[&str]| BatchResult::DoneExcept(ids.iter().map(|id| (*id).to_owned()).collect());
        for success in ["", " \n", "null", "{}", r#"{"batchItemFailures":null}"#, r#"{"batchItemFailures":[]}"#] {
            assert_eq!(batch_result(success.as_bytes(), &batch), done(&[]), "{success}");
        }
        assert_eq!(batch_result(br#"{"batchItemFailures":[{"itemIdentifier":"b"}]}"#, &batch), done(&["b"]));
        for failure in [
            "nonsense",
            r#"{"errorType":"Panic","errorMessage":"boom"}"#,
            r#"{"batchItemFailures":{}}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"stranger"}]}"#,
        ] {
            assert!(matches!(batch_result(failure.as_bytes(), &batch), BatchResult::Failed(_)), "{failure}");
        }
    }
}
