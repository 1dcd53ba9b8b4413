//! Postgres. Every statement is unnamed (`query_typed`): one round trip, and safe behind a transaction pooler.

pub mod artifact;
pub mod event;
pub mod gate;
pub mod rule;
pub mod run;
pub mod step;
pub mod step_view;
pub mod sweep;

mod page;
mod pool;

pub use page::Page;
pub(crate) use pool::database_error;
pub use pool::{Database, Param, connect};
