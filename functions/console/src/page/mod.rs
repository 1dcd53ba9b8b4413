//! The pages: plain data in, markup out. `maud` escapes every value.

mod decision;
mod evidence;
mod format;
mod gates;
mod icon;
mod inbox;
mod judged;
mod layout;
#[cfg_attr(not(test), expect(dead_code, reason = "no page shows the content of an artifact yet"))]
mod markdown;
mod message;
mod parts;
mod run;
mod runs;
mod source;
mod weakening;

pub use decision::{DecisionPage, Refused, decision_page};
pub use evidence::{EvidencePage, evidence_page};
pub use inbox::inbox;
pub use layout::Base;
pub use message::{Message, message};
pub use run::{RunPage, run_live, run_page};
pub use runs::run_list;

/// The type of artifacts that have a page.
pub(crate) const EVIDENCE: &str = "gate_evidence";
