//! The `nofx` command: its commands, and a client of the control plane. The local stack is `nofx_local`.

pub mod client;
pub mod commands;
pub mod deploy;
