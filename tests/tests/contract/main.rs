//! Our assumptions about SQS, S3 and Secrets Manager, tested with our clients against two emulators. Also about an S3
//! server with its own keys, and a Postgres as Supabase configures it.

mod target;

mod keys;
mod queue;
mod resources;
mod secrets;
mod storage;
mod supabase;
