//! Checks the repository itself: what several places say must agree, and rooms import only what they may. Reads files and
//! needs no server.

mod architecture;
mod catalogue;
mod cli_reference;
mod documents;
mod evidence_schema;
mod gate_examples;
mod handlers;
mod links;
mod openapi;
mod placement;
mod plan_schema;
