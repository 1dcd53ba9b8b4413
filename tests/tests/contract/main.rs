//! Tests our assumptions about SQS, S3 and Secrets Manager with our clients and two emulators. Also about an S3 server with
//! its own keys, and a Postgres configured like Supabase's. Other implementations read what we write.

mod oracle;
mod target;

mod attestations;
mod keys;
mod queue;
mod resources;
mod sboms;
mod secrets;
mod sigstore;
mod storage;
mod supabase;
