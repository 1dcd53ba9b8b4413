//! Lambda on this machine: processes of the functions, and what invokes them.

pub mod event_source;
pub mod host;
pub mod schedule;
mod sqs_event;
mod vitals;
