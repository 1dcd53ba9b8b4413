//! The tools `gate:*`: `handler` fetches workspaces, has them judged, and stores and signs the evidence. `runner` has the
//! commands run elsewhere.

mod handler;
mod runner;

pub use handler::Gate;
pub use runner::Runners;
