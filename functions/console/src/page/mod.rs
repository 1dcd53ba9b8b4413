//! The pages: plain data in, markup out. `maud` escapes every value.

mod decision;
mod evidence;
mod format;
mod gates;
mod icon;
mod inbox;
mod judged;
mod layout;
mod markdown;
mod message;
mod parts;
mod run;
mod runs;
mod source;
mod weakening;

pub use decision::{Content, DecisionPage, Refusal, Refused, decision_page};
pub use evidence::{EvidencePage, evidence_page};
pub use inbox::{InboxPage, decided_list, inbox};
pub use layout::Base;
pub use message::{Message, message};
pub use run::{RunPage, run_live, run_page};
pub(crate) use runs::{AGES, OPEN};
pub use runs::{RunFilters, RunsPage, run_list};

/// The type of artifacts that have a page.
pub(crate) const EVIDENCE: &str = "gate_evidence";
