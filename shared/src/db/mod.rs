//! Postgres. Every statement is unnamed (`query_typed`): one round trip, and safe behind a transaction pooler.

/// SQL: at most the first characters of a text. A cut text ends with an ellipsis.
macro_rules! cut {
    ($text:literal, $most:literal) => {
        concat!(
            "case when length(",
            $text,
            ") > ",
            $most,
            " then left(",
            $text,
            ", ",
            $most,
            ") || '…' else ",
            $text,
            " end"
        )
    };
}

/// The goal of a run `r`, cut.
const GOAL: &str = cut!("r.goal", 300);

pub mod artifact;
pub mod artifact_storage;
pub mod audit;
pub mod console;
pub mod cost;
pub mod db_write;
pub mod event;
pub mod gate;
pub mod jwks;
pub mod leftover;
pub mod limit;
pub mod link;
pub mod member;
pub mod model_call;
pub mod policy;
pub mod redrive;
pub mod rule;
pub mod run;
pub mod seal;
pub mod step;
pub mod step_view;
pub mod sweep;
pub mod token;

mod page;
mod pool;
mod row;
mod session;

pub use page::Page;
pub use pool::{Database, Param, connect};
pub(crate) use pool::{database_error, session_discard};
pub use session::Session;
