//! A client of the control plane's HTTP API.

pub mod api;
pub mod gate;
pub mod sign;
pub mod submission;
pub mod workspace;
