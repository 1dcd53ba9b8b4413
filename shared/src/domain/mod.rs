//! Pure decisions and types: ids, plans, states, outcomes, retries and digests.
//!
//! No async, no clock, no randomness, no environment, no AWS types. The current time and jitter are arguments.

pub mod access;
pub mod approval;
pub mod artifact_inputs;
pub mod audit;
pub mod base_origin;
pub mod bounds;
pub mod claimed_step;
pub mod digest;
pub mod fields;
pub mod gate;
mod graph;
pub mod hidden;
pub mod id;
pub mod json;
pub mod lines;
pub mod model_call;
pub mod model_policy;
pub mod money;
pub mod number;
pub mod operation;
pub mod outcome;
pub mod place;
pub mod plan;
pub mod plan_schema;
pub mod policy;
pub mod price;
pub mod principal;
pub mod problem;
pub mod proof;
pub mod provenance;
pub mod reference;
pub mod repair;
pub mod retry;
pub mod rule;
pub mod status;
pub mod timestamp;
pub mod token_usage;
pub mod tool;
pub mod trace;
pub mod wakeup;
pub mod yaml;

pub use claimed_step::{ClaimedStep, GateDecision};
pub use id::{ArtifactId, GateId, LinkId, RunId, StepId, TenantId, TokenId};
pub use model_call::{CachedAnswer, CallEnd, CallProgress, CallStart, ModelTerms, Permit, Shortfall};
pub use money::MicroUsd;
pub use outcome::{ArtifactRef, NewArtifact, NewEvent, NewGate, Outcome, StepError, Verdict, Workspace};
pub use policy::Policy;
pub use principal::{Caller, Kind, Permission, Role};
pub use problem::Problem;
pub use status::{GateStatus, RunStatus, StepStatus};
pub use timestamp::Timestamp;
pub use token_usage::TokenUsage;
pub use wakeup::WakeUp;
