//! Deployment: the packages of the functions, and the SAM CLI.

pub mod package;
pub mod sam;
