//! From a workspace to a verdict: the judge has commands run in the sandbox and decides from what comes back.

mod sample;

mod commands;
mod companions;
mod coverage;
mod definitions;
mod installers;
mod installs;
mod levels;
mod lost;
mod mutants;
mod policies;
mod presets;
mod privacy;
mod reports;
mod runtime;
mod secrets;
mod tests_compared;
