//! The gates `gate:typecheck`, `gate:lint` and `gate:unit`.
pub mod coverage;
