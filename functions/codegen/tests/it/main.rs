//! Codegen against fake providers: servers on real sockets that use the formats of the providers.

mod bounds;
mod cancel;
mod chat;
mod dialects;
mod inputs;
mod keys;
mod ledger;
mod matrix;
mod money;
mod outputs;
mod parameters;
mod routing;
mod scope;
mod secrecy;
mod storing;
mod streams;
mod support;
mod template;
mod wire;
