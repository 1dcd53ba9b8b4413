//! The commands of `nofx`, each in its own file.

mod actor;
pub mod decide;
pub mod demo;
pub mod deploy;
pub mod deploy_local;
pub mod dev;
pub mod env;
mod evidence;
pub mod exec;
pub mod gate;
pub mod keys;
pub mod migrate;
pub mod migration;
pub mod plan;
pub mod policy;
pub mod rules;
pub mod runs;
pub mod submit;
pub mod watch;
pub mod worker;
