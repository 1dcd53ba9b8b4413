//! The tools `gate:*`: `handler` fetches workspaces, has them judged, and stores the evidence. `attest` signs it. `runner`
//! has the commands run elsewhere.

mod attest;
mod handler;
mod runner;

pub use handler::Gate;
pub use runner::Runners;
