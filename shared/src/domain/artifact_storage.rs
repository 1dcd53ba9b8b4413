//! Where the bytes of an artifact are, and what the sweeper does about it.
//!
//! A row says what is wanted, the storage says what is there. [`decide`] compares both, so a crash at any point loses
//! nothing: the next sweep looks again and goes on from what it sees.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The state of an artifact's bytes. An artifact without a row is `hot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StorageState {
    /// They can be read at once.
    Hot,
    /// They can still be read. The storage moves them to its archive within about a day.
    Archiving,
    /// They are in the archive, and can be read after a restore.
    Archived,
    /// The archive is asked for a copy that can be read.
    Restoring,
    /// A copy can be read until `restored_until`.
    Restored,
    /// They are deleted within minutes. Nothing new may use them.
    Deleting,
    /// They are gone. What is recorded about them stays.
    Deleted,
}

/// How fast a restore is, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RestoreTier {
    /// In 1 to 5 minutes, for the highest price.
    Expedited,
    /// In 3 to 5 hours.
    #[default]
    Standard,
    /// In 5 to 12 hours, for the lowest price.
    Bulk,
}

/// The words of [`RestoreTier`].
pub const TIERS: [&str; 3] = ["expedited", "standard", "bulk"];
/// For how many days a restore may be asked.
pub const RESTORE_DAYS: std::ops::RangeInclusive<u64> = 1..=365;
/// The longest reason of a deletion, in characters.
pub const MAX_REASON_CHARS: usize = 500;
/// The tag by which the bucket's lifecycle rule knows what to move, and its values.
pub const TAG: &str = "nofx-storage";
pub const COLD: &str = "cold";
pub const HOT: &str = "hot";

/// What the storage says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Missing,
    /// It can be read at once.
    Warm,
    /// It is in the archive.
    Cold(Copy),
}

/// The copy of an archived object that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    None,
    /// The archive makes it.
    Ongoing,
    /// It is there until this time, in seconds since 1970.
    Until(i64),
}

/// What a row wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub state: StorageState,
    /// When the state began, in seconds since 1970.
    pub since_s: i64,
    /// For how many days somebody wants to read it, if the storage was not told yet.
    pub asked_days: Option<u32>,
    /// In seconds since 1970.
    pub restored_until_s: Option<i64>,
    /// Until then, in seconds since 1970, whoever announced an upload may store the object again.
    pub writable_until_s: Option<i64>,
}

/// A request to the storage. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Tag it for the archive.
    TagCold,
    /// Tag it so that it is not moved.
    TagHot,
    /// Ask the archive for a copy.
    Restore,
    /// Delete it with all its versions.
    Delete,
}

/// What follows for the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub state: StorageState,
    pub restored_until_s: Option<i64>,
    /// When to look again. `None`: when somebody wants something.
    pub again_in: Option<Duration>,
    /// What is wrong with the object.
    pub problem: Option<&'static str>,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Do(Act),
    Settle(Settled),
}

const DAY: Duration = Duration::from_hours(24);
const DAY_S: i64 = 86_400;
/// S3 runs its lifecycle rules once a day.
const LIFECYCLE: Duration = Duration::from_hours(6);

impl StorageState {
    /// The word in documents and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Archiving => "archiving",
            Self::Archived => "archived",
            Self::Restoring => "restoring",
            Self::Restored => "restored",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }

    /// Whether the bytes are gone, or will be within minutes.
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Deleting | Self::Deleted)
    }

    /// Whether the bytes can be read.
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Hot | Self::Archiving | Self::Restored)
    }
}

impl RestoreTier {
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Expedited, Self::Standard, Self::Bulk].into_iter().find(|tier| tier.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expedited => "expedited",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
        }
    }
}

/// What to do next for an object. `done` is what was just done, before `seen` was seen again.
pub fn decide(wanted: &Wanted, seen: Seen, done: Option<Act>, now_s: i64) -> Decision {
    use StorageState::{Archived, Archiving, Deleted, Deleting, Restored, Restoring};
    let settle = |state, restored_until_s, again_in| {
        Decision::Settle(Settled { state, restored_until_s, again_in, problem: None })
    };
    let until = |until_s: i64| settle(Restored, Some(until_s), Some(seconds_to(until_s, now_s)));
    let unless_done = |act: Act, after: Decision| if done == Some(act) { after } else { Decision::Do(act) };
    let asked_until = now_s + i64::from(wanted.asked_days.unwrap_or(1)) * DAY_S;
    match (wanted.state, seen) {
        // Even if it seems to be gone: a bucket with versions hides what somebody else deleted.
        (Deleting | Deleted, Seen::Missing) => unless_done(
            Act::Delete,
            match wanted.writable_until_s.filter(|until_s| *until_s > now_s) {
                Some(until_s) => settle(Deleting, None, Some(seconds_to(until_s, now_s))),
                None => settle(Deleted, None, None),
            },
        ),
        // If it is still there afterwards, somebody has written it again.
        (Deleting | Deleted, _) => unless_done(Act::Delete, settle(Deleting, None, Some(DAY))),
        (state, Seen::Missing) => Decision::Settle(Settled {
            state,
            restored_until_s: wanted.restored_until_s,
            again_in: Some(DAY),
            problem: Some("the object is missing in the storage"),
        }),
        (Archiving | StorageState::Hot, Seen::Warm) => {
            unless_done(Act::TagCold, settle(Archiving, None, Some(LIFECYCLE)))
        }
        (Archiving | Archived | StorageState::Hot, Seen::Cold(Copy::None)) => settle(Archived, None, None),
        // The rule was not there, or was taken away.
        (Archived, Seen::Warm) => settle(Archiving, None, Some(Duration::ZERO)),
        (Archiving | Archived | StorageState::Hot, Seen::Cold(Copy::Ongoing)) => {
            settle(Restoring, None, Some(poll(wanted.since_s, now_s)))
        }
        (Archiving | Archived | StorageState::Hot, Seen::Cold(Copy::Until(until_s))) => until(until_s),
        (Restoring, Seen::Cold(Copy::None)) => {
            unless_done(Act::Restore, settle(Restoring, None, Some(poll(wanted.since_s, now_s))))
        }
        (Restoring, Seen::Cold(Copy::Ongoing)) => settle(Restoring, None, Some(poll(wanted.since_s, now_s))),
        // It was not moved yet. It stays for as long as somebody wants to read it.
        (Restoring, Seen::Warm) => unless_done(Act::TagHot, until(asked_until)),
        (Restoring | Restored, Seen::Cold(Copy::Until(until_s))) => {
            if wanted.asked_days.is_some() {
                unless_done(Act::Restore, until(until_s))
            } else {
                until(until_s)
            }
        }
        (Restored, Seen::Cold(Copy::None)) => {
            if wanted.asked_days.is_some() {
                unless_done(Act::Restore, settle(Restoring, None, Some(poll(now_s, now_s))))
            } else {
                settle(Archived, None, None)
            }
        }
        (Restored, Seen::Cold(Copy::Ongoing)) => settle(Restoring, None, Some(poll(now_s, now_s))),
        (Restored, Seen::Warm) => match wanted.restored_until_s {
            _ if wanted.asked_days.is_some() => unless_done(Act::TagHot, until(asked_until)),
            Some(until_s) if until_s > now_s => until(until_s),
            _ => unless_done(Act::TagCold, settle(Archiving, None, Some(LIFECYCLE))),
        },
    }
}

/// The time to a moment, at most a day: what is there may change meanwhile.
fn seconds_to(until_s: i64, now_s: i64) -> Duration {
    Duration::from_secs(u64::try_from(until_s - now_s).unwrap_or_default() + 1).min(DAY)
}

/// How often a restore is looked at: it takes minutes or hours, on a laptop seconds.
fn poll(since_s: i64, now_s: i64) -> Duration {
    match now_s - since_s {
        ..120 => Duration::from_secs(5),
        120..3_600 => Duration::from_mins(1),
        _ => Duration::from_mins(5),
    }
}

#[cfg(test)]
#[path = "artifact_storage_tests.rs"]
mod tests;
