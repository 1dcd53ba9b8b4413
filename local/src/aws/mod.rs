//! AWS on this machine: the emulator, the resources in it, and the servers that the contract suite compares it with.

pub mod contract;
pub mod emulator;
pub mod resources;
