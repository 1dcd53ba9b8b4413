//! What we believe of SQS, S3 and Secrets Manager, held against two emulators through our own clients; of an S3 server
//! with keys of its own, and of a Postgres as Supabase sets it up.

mod target;

mod keys;
mod queue;
mod resources;
mod secrets;
mod storage;
mod supabase;
