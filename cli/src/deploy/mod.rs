//! Deployment: the packages of the functions, and the SAM CLI.

pub mod iam;
pub mod package;
pub mod sam;
