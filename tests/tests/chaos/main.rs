//! Crashes, lost messages and timeouts. Whatever fails, the run ends with the same result, or with a clear failure.

mod crashes;
mod database;
mod long_gates;
mod sweeps;
mod timers;
