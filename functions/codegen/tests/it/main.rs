//! Codegen against servers on real sockets that speak the formats of the three providers.

mod inputs;
mod routing;
mod secrecy;
mod storing;
mod support;
mod template;
mod wire;
