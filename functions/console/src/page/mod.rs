//! The pages: plain data in, markup out. `maud` escapes every value.

mod artifact;
mod decision;
mod evidence;
mod format;
mod gates;
mod graph;
mod health;
mod icon;
mod inbox;
mod json;
mod judged;
mod layout;
mod lineage;
mod login;
mod markdown;
mod members;
mod message;
mod new;
mod next;
mod parts;
mod policy;
mod policy_approvals;
mod rules;
mod run;
mod runs;
mod sentence;
mod source;
mod step;
mod tokens;
mod unrecorded;
mod usage;
mod weakening;

pub use artifact::{ArtifactPage, Stored as StoredArtifact, Unreadable, artifact_page};
pub use decision::{Content, DecisionPage, Refusal, Refused, decision_page};
pub use health::{HealthPage, Letters, health_page};
pub use inbox::{InboxPage, decided_list, inbox};
pub use layout::Base;
pub use lineage::lineage;
pub use login::{LoginPage, login_page};
pub use members::{MembersPage, members_page};
pub use message::{Message, message};
pub use new::{NewRunPage, Outcome, Stored, Typed, new_run_page};
pub use policy::{PolicyPage, TypedPolicy, policy_page};
pub use rules::{rule_list, rule_page};
pub use run::{Filter, RefusedControl, RunPage, Steps, run_live, run_page};
pub(crate) use runs::{AGES, OPEN};
pub use runs::{RunFilters, RunsPage, run_list};
pub use step::{StepPage, step_page};
pub(crate) use tokens::DAYS as TOKEN_DAYS;
pub use tokens::{MadeToken, TokensPage, tokens_page};
pub use unrecorded::{Unrecorded, unrecorded};
pub use usage::usage_page;

/// The type of artifacts that have a page.
pub(crate) const EVIDENCE: &str = "gate_evidence";
