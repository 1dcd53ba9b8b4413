//! What goes to AWS: the packages of the functions, and the SAM CLI that deploys them.

pub mod package;
pub mod sam;
