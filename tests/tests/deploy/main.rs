//! What goes to AWS: the template against the code it deploys, its linters, and a deployment to the emulator.

mod linters;
mod local;
mod numbers;
mod roles;
mod routes;
mod template;
