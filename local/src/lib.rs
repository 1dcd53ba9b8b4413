//! The local stack of the NOFX control plane: Postgres, an AWS emulator, the functions, and what AWS does between them;
//! and the migrations of any database of it. The `nofx` command, the tests and the benchmarks are built on it.

// Where things are, and what is said of them.
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
// The functions, and what calls them.
mod front;
pub mod function;
mod lambda;
// All of it together.
pub mod stack;

pub use front::MIN_COMPRESSED_BYTES;
