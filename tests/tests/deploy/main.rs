//! The deployment: compares the template with the code, runs its linters, and deploys it to the emulator.

mod linters;
mod local;
mod long_gates;
mod numbers;
mod roles;
mod routes;
mod template;
