//! What the API shows: a struct for each resource, written by the functions and read by clients. Knows neither the
//! database nor HTTP.

mod plan;

pub use plan::{CheckedStep, OutputReference, PlanChecked};
