//! The handler of the tools `gate:*`.

mod handler;

pub use handler::Gate;
