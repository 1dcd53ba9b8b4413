//! The test harness, in reading order: a stack per test, plans and handlers, deliveries and time under the test's
//! control, and checks.

pub mod environment;

pub mod database;

pub mod lab;

pub mod issuer;

pub mod plans;

pub mod script;

pub mod models;

pub mod delivery;

pub mod time;

pub mod snapshot;

pub mod catalogue;

pub mod documents;

pub mod contract;

pub mod invariants;

pub mod gallery;

pub mod browser;

pub mod command;

pub use delivery::Deliver;
pub use lab::Lab;
pub use script::Script;
