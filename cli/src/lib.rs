//! The `nofx` command: the local stack, migrations, and a client of the control plane.
//!
//! The parts of the local stack are public, so that tests start the same Postgres, emulator and event sources.

// Where things are, and how they are said.
pub mod checkout;
pub mod digest;
pub mod environment;
// Processes and the ports they listen on.
pub mod port;
pub mod process;
pub mod process_table;
pub mod signals;
pub mod stop;
pub mod supervision;
pub mod throwaway;
// The parts of a stack.
pub mod contract;
pub mod docker;
pub mod emulator;
pub mod event_source;
pub mod front;
pub mod function;
pub mod function_host;
pub mod node;
pub mod package;
pub mod postgres;
pub mod python;
pub mod resources;
pub mod sam;
pub mod schedule;
pub mod server;
pub mod sqs_event;
pub mod stack;
pub mod vitals;
// Migrations.
pub use nofx_local::{database, migrate, report};
// The API's client.
pub mod api;
pub mod gate;
pub mod rules;
pub mod run;
pub mod sign;
pub mod workspace;
// Whole commands.
pub mod demo;
pub mod deploy;
pub mod deploy_local;
pub mod dev;
pub mod exec;
