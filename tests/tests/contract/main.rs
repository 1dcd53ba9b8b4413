//! What we believe of SQS, S3 and Secrets Manager, held against the emulator through our own clients.

mod queue;
mod secrets;
mod storage;
