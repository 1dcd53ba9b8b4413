//! A client of the control plane's HTTP API.

pub mod api;
pub mod audit_heads;
pub mod credentials;
pub mod document;
pub mod download;
pub mod error;
pub mod gate;
pub(crate) mod git;
pub mod issuer;
pub mod keyring;
pub mod plan_file;
pub mod profile;
pub mod resolve;
pub mod sign;
pub mod source_tree;
pub mod submission;
pub mod timeline;
pub mod token;
pub mod unjudged;
pub mod workspace;
