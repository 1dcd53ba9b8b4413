//! Codegen against fake providers: servers on real sockets that use the formats of the three providers.

mod bounds;
mod cancel;
mod inputs;
mod keys;
mod routing;
mod secrecy;
mod storing;
mod support;
mod template;
mod wire;
