//! What the host offers, found by trying it once.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::command::Level;
use crate::platform;

/// What makes the namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// The launcher itself.
    Launcher,
    /// This `bwrap`. Some hosts allow user namespaces to it alone.
    Bubblewrap(PathBuf),
}

/// What the host offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The process is root and can run the command as another uid.
    pub own_uid: bool,
    pub namespaces: Option<Through>,
    /// The version of Landlock's interface. 0 is without Landlock.
    pub landlock_abi: u32,
    pub seccomp: bool,
    /// Why something is not offered, in words.
    pub reasons: Vec<String>,
}

impl Host {
    pub fn level(&self) -> Level {
        if self.namespaces.is_some() {
            Level::Namespaces
        } else if self.landlock_abi > 0 && self.seccomp {
            Level::Landlock
        } else {
            Level::Limits
        }
    }

    /// This host without what is stronger than a level.
    #[must_use]
    pub fn at(&self, level: Level) -> Self {
        let mut host = self.clone();
        if level < Level::Namespaces {
            host.namespaces = None;
        }
        if level < Level::Landlock {
            host.landlock_abi = 0;
            host.seccomp = false;
        }
        host
    }

    /// What both offer. A way to make namespaces is taken from `other`, so that a caller can choose it.
    pub(crate) fn both(&self, other: &Self) -> Self {
        Self {
            own_uid: self.own_uid && other.own_uid,
            namespaces: self.namespaces.as_ref().and(other.namespaces.clone()),
            landlock_abi: self.landlock_abi.min(other.landlock_abi),
            seccomp: self.seccomp && other.seccomp,
            reasons: self.reasons.clone(),
        }
    }
}

/// What this host offers. The first call blocks for about 20 ms, because it builds an empty sandbox. It must come after
/// [`crate::init`] or [`crate::set_launcher`], else namespaces count as missing.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(platform::probe)
}
