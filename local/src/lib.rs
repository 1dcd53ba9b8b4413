//! The local stack of the NOFX control plane: Postgres, an AWS emulator, the functions, and local replacements of API
//! Gateway, event sources and schedules. Also the migrations. The `nofx` command, the tests and the benchmarks use it.

// Paths, ports and output.
pub mod checkout;
pub mod port;
pub mod report;
pub mod throwaway;
// Processes and installed programs.
pub mod process;
pub mod tools;
// Servers.
pub mod aws;
pub mod database;
pub mod migrate;
pub mod postgres;
// Who logs in.
pub mod issuer;
// A stand-in for a model.
pub mod model;
// The functions, and what invokes them.
pub mod function;
mod gateway;
mod lambda;
// The complete stack.
pub mod stack;

pub use gateway::MIN_COMPRESSED_BYTES;
