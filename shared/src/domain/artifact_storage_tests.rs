use super::*;

const NOW: i64 = 1_800_000_000;

/// A storage with one object, which does what it is asked, late or at once.
#[derive(Debug, Clone, Copy)]
struct Store {
    seen: Seen,
    tagged: bool,
}

impl Store {
    fn perform(&mut self, act: Act, days: u32) {
        match act {
            Act::TagCold => self.tagged = true,
            Act::TagHot => self.tagged = false,
            Act::Delete => self.seen = Seen::Missing,
            Act::Restore => {
                self.seen = match self.seen {
                    Seen::Cold(Copy::None) => Seen::Cold(Copy::Ongoing),
                    Seen::Cold(Copy::Until(_)) => Seen::Cold(Copy::Until(NOW + i64::from(days) * DAY_S)),
                    other => panic!("a restore of {other:?}"),
                }
            }
        }
    }
}

/// What a sweep makes of a row.
fn sweep(wanted: &mut Wanted, store: &mut Store, now_s: i64) -> Settled {
    let mut done = None;
    for _ in 0..4 {
        match decide(wanted, store.seen, done, now_s) {
            Decision::Do(act) => {
                assert_ne!(done, Some(act), "{wanted:?}");
                store.perform(act, wanted.asked_days.unwrap_or(1));
                done = Some(act);
            }
            Decision::Settle(settled) => {
                *wanted = Wanted {
                    state: settled.state,
                    since_s: if wanted.state == settled.state { wanted.since_s } else { now_s },
                    asked_days: None,
                    restored_until_s: settled.restored_until_s,
                    writable_until_s: wanted.writable_until_s,
                };
                return settled;
            }
        }
    }
    panic!("{wanted:?} of {store:?} never settles");
}

fn row(state: StorageState) -> Wanted {
    Wanted { state, since_s: NOW, asked_days: None, restored_until_s: None, writable_until_s: None }
}

#[test]
fn an_artifact_goes_to_the_archive_and_comes_back_for_some_days() {
    let (mut wanted, mut store) = (row(StorageState::Archiving), Store { seen: Seen::Warm, tagged: false });
    let settled = sweep(&mut wanted, &mut store, NOW);
    assert_eq!((settled.state, settled.again_in, store.tagged), (StorageState::Archiving, Some(LIFECYCLE), true));
    store.seen = Seen::Cold(Copy::None);
    let settled = sweep(&mut wanted, &mut store, NOW);
    assert_eq!((settled.state, settled.again_in), (StorageState::Archived, None));

    wanted = Wanted { state: StorageState::Restoring, asked_days: Some(3), ..wanted };
    let settled = sweep(&mut wanted, &mut store, NOW);
    assert_eq!((settled.state, store.seen), (StorageState::Restoring, Seen::Cold(Copy::Ongoing)));
    let settled = sweep(&mut wanted, &mut store, NOW + 4_000);
    assert_eq!(settled.again_in, Some(Duration::from_mins(5)), "it is looked at less often later");
    let end = NOW + 3 * DAY_S;
    store.seen = Seen::Cold(Copy::Until(end));
    let settled = sweep(&mut wanted, &mut store, NOW + 5_000);
    assert_eq!((settled.state, settled.restored_until_s), (StorageState::Restored, Some(end)));
    store.seen = Seen::Cold(Copy::None);
    let settled = sweep(&mut wanted, &mut store, end + 1);
    assert_eq!((settled.state, settled.restored_until_s, settled.again_in), (StorageState::Archived, None, None));
}

#[test]
fn what_was_not_moved_yet_stays_readable_and_goes_to_the_archive_afterwards() {
    let (mut wanted, mut store) = (row(StorageState::Restoring), Store { seen: Seen::Warm, tagged: true });
    wanted.asked_days = Some(2);
    let settled = sweep(&mut wanted, &mut store, NOW);
    let end = NOW + 2 * DAY_S;
    assert_eq!((settled.state, settled.restored_until_s, store.tagged), (StorageState::Restored, Some(end), false));
    let settled = sweep(&mut wanted, &mut store, end - 1);
    assert_eq!(settled.state, StorageState::Restored);
    let settled = sweep(&mut wanted, &mut store, end + 1);
    assert_eq!((settled.state, store.tagged), (StorageState::Archiving, true));

    // The rule moves it although the tag is gone: it had started.
    let mut wanted = Wanted { restored_until_s: Some(end), ..row(StorageState::Restored) };
    let settled = sweep(&mut wanted, &mut Store { seen: Seen::Cold(Copy::None), tagged: false }, NOW);
    assert_eq!(settled.state, StorageState::Archived);
}

#[test]
fn a_restore_that_is_asked_again_lasts_longer() {
    let mut wanted = Wanted { asked_days: Some(9), restored_until_s: Some(NOW + 60), ..row(StorageState::Restored) };
    let mut store = Store { seen: Seen::Cold(Copy::Until(NOW + 60)), tagged: true };
    let settled = sweep(&mut wanted, &mut store, NOW);
    assert_eq!((settled.state, settled.restored_until_s), (StorageState::Restored, Some(NOW + 9 * DAY_S)));
}

#[test]
fn a_deletion_ends_when_the_object_is_gone() {
    for seen in [Seen::Missing, Seen::Warm, Seen::Cold(Copy::None), Seen::Cold(Copy::Until(NOW))] {
        let (mut wanted, mut store) = (row(StorageState::Deleting), Store { seen, tagged: false });
        let settled = sweep(&mut wanted, &mut store, NOW);
        assert_eq!((settled.state, settled.again_in, store.seen), (StorageState::Deleted, None, Seen::Missing));
    }
    // The storage says that it is still there.
    let decided = decide(&row(StorageState::Deleting), Seen::Warm, Some(Act::Delete), NOW);
    assert!(matches!(decided, Decision::Settle(Settled { state: StorageState::Deleting, again_in: Some(_), .. })));
}

#[test]
fn a_deleted_upload_is_looked_at_again_when_nobody_can_store_it_any_more() {
    let mut wanted = Wanted { writable_until_s: Some(NOW + 1_800), ..row(StorageState::Deleting) };
    let mut store = Store { seen: Seen::Warm, tagged: false };
    let settled = sweep(&mut wanted, &mut store, NOW);
    assert_eq!((settled.state, store.seen), (StorageState::Deleting, Seen::Missing));
    assert_eq!(settled.again_in, Some(Duration::from_secs(1_801)));
    store.seen = Seen::Warm;
    let settled = sweep(&mut wanted, &mut store, NOW + 1_801);
    assert_eq!((settled.state, store.seen), (StorageState::Deleted, Seen::Missing));
}

#[test]
fn every_state_settles_whatever_the_storage_says_and_no_crash_matters() {
    use StorageState::{Archived, Archiving, Deleting, Restored, Restoring};
    let copies = [Copy::None, Copy::Ongoing, Copy::Until(NOW + 5), Copy::Until(NOW - 5)];
    let all: Vec<Seen> = [Seen::Missing, Seen::Warm].into_iter().chain(copies.map(Seen::Cold)).collect();
    for state in [Archiving, Archived, Restoring, Restored, Deleting] {
        for seen in &all {
            for asked_days in [None, Some(7)] {
                for restored_until_s in [None, Some(NOW + 5), Some(NOW - 5)] {
                    let mut wanted = Wanted { asked_days, restored_until_s, ..row(state) };
                    let before = wanted;
                    let mut store = Store { seen: *seen, tagged: false };
                    let settled = sweep(&mut wanted, &mut store, NOW);
                    let is_lost = *seen == Seen::Missing && state != Deleting;
                    assert_eq!(settled.problem.is_some(), is_lost, "{before:?} {seen:?}");
                    assert!(!settled.state.is_gone() || state == Deleting, "nothing is deleted by itself");
                    // Nothing of it was recorded: the next sweep begins with the same row, and comes to the same end.
                    let mut again = before;
                    let repeated = sweep(&mut again, &mut store, NOW);
                    assert_eq!(repeated.state, settled.state, "{before:?} {seen:?}");
                }
            }
        }
    }
}
