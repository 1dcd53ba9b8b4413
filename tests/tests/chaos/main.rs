//! Crashes, losses and timeouts. Whatever dies at whatever point, the run ends as if nothing had happened, or with a
//! clear failure.

mod crashes;
mod database;
mod sweeps;
mod timers;
