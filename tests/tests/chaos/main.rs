//! Crashes, losses and time-outs: whatever dies, and wherever, the end state is the undisturbed one or a clear failure.

mod crashes;
mod database;
mod sweeps;
mod timers;
