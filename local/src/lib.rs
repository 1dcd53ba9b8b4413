//! The local stack of the NOFX control plane, and its migrations.

pub mod database;
pub mod migrate;
pub mod report;
