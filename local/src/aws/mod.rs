//! AWS on this machine: the emulator, what the control plane needs in it, and the servers it is compared with.

pub mod contract;
pub mod emulator;
pub mod resources;
