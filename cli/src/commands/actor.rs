//! The option `--as`: the name under which a change is recorded.

use std::env;

#[derive(Clone, Debug, clap::Args)]
pub struct Who {
    /// Your name, for the record [default: $USER]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

impl Who {
    pub fn name(&self) -> Option<String> {
        self.name.clone().or_else(|| env::var("USER").ok().filter(|name| !name.is_empty()))
    }
}
