//! The tools `gate:*`: `handler` fetches workspaces, has them judged, and stores the evidence. `attest` signs it. `runner`
//! has the commands run elsewhere, and `reuse` finds earlier evidence of the same inputs.

mod attest;
mod handler;
mod reuse;
mod runner;

pub use handler::Gate;
pub use runner::Runners;
