//! The option `--as`: the name that is recorded with a change.

use std::env;

#[derive(Clone, Debug, clap::Args)]
pub struct Actor {
    /// Your name, for the record [default: $USER]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

impl Actor {
    pub fn name(&self) -> Option<String> {
        self.name.clone().or_else(|| env::var("USER").ok().filter(|name| !name.is_empty()))
    }
}
