//! What the repository says about itself in several places must agree, and which room of the code may know which. Reads files;
//! needs no server.

mod architecture;
mod catalogue;
mod handlers;
mod links;
mod openapi;
mod placement;
mod plan_schema;
