//! Lambda on this machine: processes of the functions, event sources, and the schedule.

pub mod event_source;
pub mod host;
mod liveness;
pub mod schedule;
pub mod sources;
mod sqs_event;
