//! The `nofx` command: its commands, and a client of the control plane. The crate `nofx_local` has the local stack.

pub mod cli;
pub mod client;
pub mod commands;
pub mod deploy;
pub mod output;
