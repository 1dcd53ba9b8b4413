//! The handler of the tools `gate:*`.

pub mod attest;
mod handler;

pub use handler::Gate;
