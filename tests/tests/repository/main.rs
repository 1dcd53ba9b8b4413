//! What the repository says about itself in several places must agree. Reads files; needs no server.

mod handlers;
mod openapi;
