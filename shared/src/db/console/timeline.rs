//! Events of a run as the page tells them: a page of them, filtered by kind and step.

use serde::Deserialize;

use crate::domain::Timestamp;
use crate::view::sentence::{EventKind, TimelineEvent};

/// Events on a page.
const EVENTS: usize = 200;
/// Events that a page with a filter reads to find matching ones: no index has their types and steps. Numbers of events are
/// dense within a run.
const SEARCHED: i64 = 50_000;
/// A larger payload is cut to what a sentence needs, in bytes.
const PAYLOAD: usize = 2_048;

/// Which events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Any kind if there is none.
    pub kinds: Vec<EventKind>,
    /// Ordinal of a step.
    pub step: Option<i64>,
    pub place: Place,
}

/// Which page of the events to read. Numbers are those of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Newest,
    Before(i64),
    After(i64),
}

/// A page of events.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Timeline {
    /// In the order of their numbers.
    pub events: Vec<TimelineEvent>,
    /// Events of the run, whatever the selection.
    pub total: i64,
    /// The page before the event of this number is older. There may be one although this page has few events, or none: a
    /// page with a filter searches a limited number of them.
    #[serde(skip)]
    pub older: Option<i64>,
    /// The page after the event of this number is newer.
    #[serde(skip)]
    pub newer: Option<i64>,
    #[serde(skip)]
    pub selection: Selection,
}

impl Selection {
    /// Types of events to read. Empty for any type.
    pub(super) fn types(&self) -> Vec<&'static str> {
        self.kinds.iter().flat_map(|kind| kind.types()).copied().collect()
    }

    /// The number that `$3` of the query is.
    pub(super) fn bound(&self) -> Option<i64> {
        match self.place {
            Place::Newest => None,
            Place::Before(seq) | Place::After(seq) => Some(seq),
        }
    }

    fn is_filtered(&self) -> bool {
        !self.kinds.is_empty() || self.step.is_some()
    }

    /// Selects a [`Timeline`] of the run `r` of the tenant `$1`: one event more than a page has, from the newest one on or
    /// from the oldest one after `$3`. `$5` are types, `$6` is the ordinal of a step.
    pub(super) fn sql(&self) -> String {
        let (range, order) = match self.place {
            Place::Newest => (format!("e.seq > r.event_seq - {SEARCHED}"), "desc"),
            Place::Before(_) => (format!("e.seq < $3 and e.seq >= least($3, r.event_seq + 1) - {SEARCHED}"), "desc"),
            Place::After(_) => (format!("e.seq > $3 and e.seq <= $3 + {SEARCHED}"), "asc"),
        };
        let mut matches = vec!["true"];
        if !self.kinds.is_empty() {
            matches.push("e.type = any ($5)");
        }
        if self.step.is_some() {
            matches.push(
                "e.step_id = (select s.id from nofx.step s where s.tenant_id = $1 and s.run_id = r.id and s.ordinal = $6)",
            );
        }
        let matches = matches.join(" and ");
        // `offset 0` keeps the planner from reading all events of these types, of any run, by the index of watched events.
        format!(
            "select json_build_object('total', r.event_seq, 'events', coalesce(json_agg(json_build_object(
                        'seq', e.seq, 'type', e.type, 'timestamp', e.timestamp,
                        'payload', case when octet_length(e.payload::text) <= {PAYLOAD} then e.payload else {SHORT} end,
                        'step', case when s.id is not null then json_build_object(
                                    'name', s.name, 'ordinal', s.ordinal, 'started_at', s.started_at) end)
                    order by e.seq {order}), '[]'))
               from (select e.* from (
                         select e.seq, e.type, e.timestamp, e.payload, e.step_id from nofx.event e
                          where e.tenant_id = $1 and e.run_id = r.id and {range}
                          order by e.seq {order} offset 0) e
                      where {matches} order by e.seq {order} limit {EVENTS} + 1) e
               left join nofx.step s on s.id = e.step_id"
        )
    }
}

/// What a sentence needs of a large payload of the event `e`.
const SHORT: &str = "jsonb_strip_nulls(jsonb_build_object(
        'actor', left(e.payload ->> 'actor', 200), 'reason', left(e.payload ->> 'reason', 1000),
        'decision', e.payload -> 'decision', 'steps', e.payload -> 'steps', 'was', e.payload -> 'was',
        'attempt', e.payload -> 'attempt', 'delay_ms', e.payload -> 'delay_ms',
        'gate_id', e.payload -> 'gate_id', 'gate_type', left(e.payload ->> 'gate_type', 200),
        'artifact_id', e.payload -> 'artifact_id', 'name', left(e.payload ->> 'name', 200),
        'workers_lost', e.payload -> 'workers_lost', 'generation', e.payload -> 'generation',
        'provider', left(e.payload ->> 'provider', 200), 'model', left(e.payload ->> 'model', 200),
        'usable', e.payload -> 'usable', 'input_tokens', e.payload -> 'input_tokens',
        'output_tokens', e.payload -> 'output_tokens', 'late_attempt', e.payload -> 'late_attempt',
        'table', left(e.payload ->> 'table', 200), 'op', e.payload -> 'op', 'rows', e.payload -> 'rows',
        'error', case when e.payload ? 'error' then
                     jsonb_build_object('message', left(e.payload -> 'error' ->> 'message', 1000)) end,
        'failure', case when e.payload ? 'failure' then
                       jsonb_build_object('message', left(e.payload -> 'failure' ->> 'message', 1000)) end))";

impl Timeline {
    /// The page as it was selected: the events that [`Selection::sql`] read, in order, without the one that is too many.
    pub(super) fn arranged(mut self, selection: &Selection) -> Self {
        let has_more = cut(&mut self.events);
        let is_upwards = matches!(selection.place, Place::After(_));
        if !is_upwards {
            self.events.reverse();
        }
        let (first, last) = (self.events.first().map(|event| event.seq), self.events.last().map(|event| event.seq));
        // A search that ended before the page was full goes on from there.
        let is_cut = selection.is_filtered() && !has_more;
        (self.older, self.newer) = match selection.place {
            Place::Newest | Place::Before(_) => {
                let end = selection.bound().map_or(self.total + 1, |seq| seq.min(self.total + 1));
                let searched = Some(end - SEARCHED).filter(|seq| is_cut && *seq > 1);
                let newer = last.unwrap_or(end - 1);
                (first.filter(|_| has_more).or(searched), (selection.place != Place::Newest).then_some(newer))
            }
            Place::After(start) => {
                let searched = Some(start + SEARCHED).filter(|seq| is_cut && *seq < self.total);
                let older = Some(first.unwrap_or(start + 1)).filter(|seq| *seq > 1);
                (older, last.filter(|_| has_more).or(searched))
            }
        };
        Self { selection: selection.clone(), ..self }
    }
}

/// Cuts what a page reads to its length, between two transitions if possible: their events are one entry. Returns whether
/// there are more events.
fn cut(events: &mut Vec<TimelineEvent>) -> bool {
    if events.len() <= EVENTS {
        return false;
    }
    let time = |event: &TimelineEvent| -> Timestamp { event.timestamp.clone() };
    let beyond = time(&events[EVENTS]);
    let whole = events.iter().position(|event| event.timestamp == beyond).unwrap_or(EVENTS);
    events.truncate(if whole == 0 { EVENTS } else { whole });
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Events with these numbers, one transition for each ten of them.
    fn read(numbers: impl Iterator<Item = i64>) -> Timeline {
        let event =
            |seq: i64| json!({"seq": seq, "type": "step.started", "timestamp": format!("at {}", (seq - 1) / 10)});
        let events: Vec<_> = numbers.map(event).collect();
        serde_json::from_value(json!({"total": 1_000, "events": events})).unwrap()
    }

    fn page(place: Place, numbers: impl Iterator<Item = i64>) -> (i64, i64, Option<i64>, Option<i64>) {
        let page = read(numbers).arranged(&Selection { place, ..Selection::default() });
        assert!(page.events.is_sorted_by_key(|event| event.seq));
        (page.events[0].seq, page.events[page.events.len() - 1].seq, page.older, page.newer)
    }

    #[test]
    fn pages_end_between_transitions_and_lead_to_each_other() {
        assert_eq!(page(Place::Newest, (805..=1_005).rev()), (811, 1_005, Some(811), None));
        assert_eq!(page(Place::Before(811), (610..=810).rev()), (611, 810, Some(611), Some(810)));
        assert_eq!(page(Place::Before(21), (1..=20).rev()), (1, 20, None, Some(20)));
        assert_eq!(page(Place::After(810), 811..=1_005), (811, 1_005, Some(811), None));
        assert_eq!(page(Place::After(20), 21..=221), (21, 220, Some(21), Some(220)));
        assert_eq!(page(Place::After(0), 1..=201), (1, 200, None, Some(200)));
    }

    #[test]
    fn a_search_ends_after_some_events_and_goes_on_from_there() {
        let page = |place, numbers: &[i64], total: i64| {
            let events = read(numbers.iter().copied());
            let selection = Selection { place, kinds: vec![EventKind::Gates], step: None };
            let page = Timeline { total, ..events }.arranged(&selection);
            (page.older, page.newer)
        };
        assert_eq!(page(Place::Newest, &[], 120_000), (Some(70_001), None));
        assert_eq!(page(Place::Newest, &[119_000], 120_000), (Some(70_001), None));
        assert_eq!(page(Place::Before(70_001), &[], 120_000), (Some(20_001), Some(70_000)));
        assert_eq!(page(Place::Before(20_001), &[3], 120_000), (None, Some(3)));
        assert_eq!(page(Place::Before(999_999), &[], 120_000), (Some(70_001), Some(120_000)));
        assert_eq!(page(Place::After(3), &[], 120_000), (Some(4), Some(50_003)));
        assert_eq!(page(Place::After(100_000), &[119_000], 120_000), (Some(119_000), None));
        assert_eq!(page(Place::Newest, &[], 50_000), (None, None));
        assert_eq!(page(Place::Newest, &[], 50_001), (Some(2), None));
    }

    #[test]
    fn a_transition_that_is_longer_than_a_page_is_cut() {
        let mut long = read((800..=1_000).rev());
        long.events.iter_mut().for_each(|event| event.timestamp = Timestamp("now".into()));
        let page = long.arranged(&Selection::default());
        assert_eq!((page.events.len(), page.older), (EVENTS, Some(801)));
    }
}
