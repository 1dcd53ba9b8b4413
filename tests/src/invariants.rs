//! Checks the invariants of all runs on their rows.

use tokio_postgres::Row;

use crate::Lab;
use crate::catalogue::Catalogue;

impl Lab {
    /// The broken invariants, one sentence for each.
    pub async fn broken_invariants(&self) -> Vec<String> {
        let rows = self.admin.query(INVARIANTS, &[]).await.expect("query the invariants");
        let broken = rows.iter().map(|row| row.get(0));
        let shapes = self.admin.query(SHAPES, &[]).await.expect("query the events");
        let catalogue = Catalogue::read();
        let undocumented = shapes.iter().flat_map(|row| undocumented(&catalogue, row));
        broken.chain(undocumented).collect()
    }

    /// Panics if an invariant is broken.
    pub async fn assert_invariants(&self) {
        let broken = self.broken_invariants().await;
        assert!(broken.is_empty(), "broken invariants:\n{}", broken.join("\n"));
    }
}

fn undocumented(catalogue: &Catalogue, row: &Row) -> Vec<String> {
    let (keys, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
    catalogue.problems(row.get(0), &keys.into_iter().zip(types).collect())
}

/// Every event type with the keys and types of its payloads, except `test.*`, which test handlers may write.
const SHAPES: &str = "
    with all_events as (
        select type, payload from nofx.event union all select type, payload from nofx.tenant_event
    )
    select distinct n.type, p.keys, p.types
      from all_events n
     cross join lateral (select coalesce(array_agg(f.key order by f.key), '{}') as keys,
                                coalesce(array_agg(jsonb_typeof(f.value) order by f.key), '{}') as types
                           from jsonb_each(n.payload) f) p
     where n.type not like 'test.%'";

const INVARIANTS: &str = "
    with counted as (
        select r.id, r.status, r.event_seq, r.finished_at is not null as ended, r.paused_at is not null as paused,
               row(r.steps_pending, r.steps_ready, r.steps_running, r.steps_blocked, r.steps_failed)::text as recorded,
               (select row(count(*) filter (where s.status = 'pending'), count(*) filter (where s.status = 'ready'),
                           count(*) filter (where s.status = 'running'), count(*) filter (where s.status = 'blocked'),
                           count(*) filter (where s.status = 'failed'))::text
                  from nofx.step s where s.run_id = r.id) as counted,
               r.gates_pending,
               (select count(*) from nofx.gate g
                 where g.run_id = r.id and g.step_id is null and g.status = 'pending') as gates_counted
          from nofx.run r
    ), waiting as (
        select s.*,
               (select count(*) from nofx.step_edge e join nofx.step p on p.id = e.parent_id
                 where e.child_id = s.id and p.status <> 'succeeded')
               + (select count(*) from nofx.gate g
                   where g.step_id = s.id and g.status = 'pending' and g.on_pass = 'release') as waits_for
          from nofx.step s where s.status in ('pending', 'ready', 'running', 'blocked')
    )
    select format('run %s: its step counters are %s, its steps %s', id, recorded, counted)
      from counted where recorded <> counted
    union all
    select format('run %s: its counter has %s pending gates of the run, the rows %s', id, gates_pending, gates_counted)
      from counted where gates_pending <> gates_counted
    union all
    select format('run %s: is %s but has a pending gate', c.id, c.status)
      from counted c where c.ended and exists (select from nofx.gate g where g.run_id = c.id and g.status = 'pending')
    union all
    select format('run %s: events are not dense: %s of them, %s to %s, event_seq %s', c.id, e.count, e.min, e.max,
                  c.event_seq)
      from counted c
      left join lateral (select count(*), min(seq), max(seq) from nofx.event where run_id = c.id) e on true
     where row(e.count, e.min, e.max) is distinct from row(c.event_seq, 1::bigint, c.event_seq)
    union all
    select format('step %s: is %s with %s blockers but waits for %s', name, status, blockers, waits_for)
      from waiting where blockers <> waits_for or (status = 'pending') <> (waits_for > 0)
    union all
    select format('step %s: is ready in a run that is %s, and its wake-up is due at %s', s.name,
                  case when c.paused then 'paused' else 'active' end, s.notify_at)
      from nofx.step s join counted c on c.id = s.run_id
     where s.status = 'ready' and (s.notify_at = 'infinity') <> c.paused
    union all
    select format('step %s: is blocked but has no pending gate', s.name)
      from nofx.step s
     where s.status = 'blocked'
       and not exists (select from nofx.gate g where g.step_id = s.id and g.status = 'pending')
    union all
    select format('step %s: has %s attempts, but its attempt number is %s', s.name, a.count, s.attempt)
      from nofx.step s
      left join lateral (select count(*), coalesce(max(attempt), 0) as max
                           from nofx.attempt where step_id = s.id) a on true
     where a.count <> s.attempt or a.max <> s.attempt
    union all
    select format('step %s: is %s but its attempt %s is %s', s.name, s.status, a.attempt, a.status)
      from nofx.step s join nofx.attempt a on a.step_id = s.id
     where (a.status = 'running') <> (s.status = 'running' and a.attempt = s.attempt)
    union all
    select format('step %s: its lease ends %s, that of its attempt %s', s.name, s.lease_until, a.lease_until)
      from nofx.step s join nofx.attempt a on a.step_id = s.id
     where a.status = 'running' and a.lease_until is distinct from s.lease_until
    union all
    select format('step %s: completed %s times in one generation', s.name, count(*))
      from nofx.step s join nofx.event e on e.step_id = s.id and e.type = 'step.succeeded'
     -- Each repair of a step upstream begins a new count.
     group by s.id, (select count(*) from nofx.event r where r.run_id = e.run_id and r.type = 'step.repairing' and r.seq < e.seq
                                                          and (r.step_id = s.id or exists (
        with recursive before as (
            select p.parent_id from nofx.step_edge p where p.child_id = s.id
            union select p.parent_id from before b join nofx.step_edge p on p.child_id = b.parent_id)
        select from before b where b.parent_id = r.step_id)))
    having count(*) > 1
    union all
    select format('step %s: its run does not exist', s.name)
      from nofx.step s where not exists (select from nofx.run r where r.id = s.run_id)
    union all
    select format('edge from %s to %s: does not connect two steps of one run', e.parent_id, e.child_id)
      from nofx.step_edge e
      left join nofx.step p on p.id = e.parent_id
      left join nofx.step c on c.id = e.child_id
     where p.run_id is distinct from c.run_id or p.id is null
    union all
    select format('attempt %s of %s: its step does not exist', a.attempt, a.step_id)
      from nofx.attempt a where not exists (select from nofx.step s where s.id = a.step_id)
    union all
    select format('event %s of run %s: its run does not exist', e.seq, e.run_id)
      from nofx.event e where not exists (select from nofx.run r where r.id = e.run_id)
    union all
    select format('run %s: has reserved %s and spent %s, its calls %s and %s', r.id, r.reserved_usd_micros, r.spent_usd_micros, c.reserved, c.spent)
      from nofx.run r
     cross join lateral (select coalesce(sum(reserved_usd_micros) filter (where state = 'open'), 0) as reserved,
                                coalesce(sum(charged_usd_micros), 0) as spent
                           from nofx.llm_call where run_id = r.id) c
     where row(r.reserved_usd_micros, r.spent_usd_micros)::text <> row(c.reserved, c.spent)::text
    union all
    select format('run %s: has reserved %s and spent %s, more than its budget of %s', r.id, r.reserved_usd_micros, r.spent_usd_micros,
                  r.budget_usd_micros)
      from nofx.run r where r.reserved_usd_micros + r.spent_usd_micros > r.budget_usd_micros
    union all
    select format('call %s: is charged %s, more than the %s that were reserved', c.id, c.charged_usd_micros, c.reserved_usd_micros)
      from nofx.llm_call c where c.charged_usd_micros > c.reserved_usd_micros
    union all
    select format('%s %s of %s: has reserved %s and spent %s, its calls %s and %s', s.period, s.starts_on, s.tenant_id, s.reserved_usd_micros,
                  s.spent_usd_micros, c.reserved, c.spent)
      from nofx.llm_spend s
     cross join lateral (select coalesce(sum(l.reserved_usd_micros) filter (where l.state = 'open'), 0) as reserved,
                                coalesce(sum(l.charged_usd_micros), 0) as spent
                           from nofx.llm_call l
                          where l.tenant_id = s.tenant_id
                            and date_trunc(s.period, l.started_at at time zone 'UTC')::date = s.starts_on) c
     where row(s.reserved_usd_micros, s.spent_usd_micros)::text <> row(c.reserved, c.spent)::text
    union all
    select format('call %s: is %s, but has %s events llm.attempt and %s llm.usage', c.id, c.state, e.started, e.ended)
      from nofx.llm_call c
     cross join lateral (select count(*) filter (where type = 'llm.attempt') as started, count(*) filter (where type = 'llm.usage') as ended
                           from nofx.event where run_id = c.run_id and payload ->> 'call_id' = c.id::text) e
     where e.started <> 1 or (c.state = 'open') <> (e.ended = 0)
    union all
    select format('gate %s: is %s but the decision is %s', g.gate_type, g.status, a.decision)
      from nofx.gate g join nofx.approval a on a.gate_id = g.id and a.decides
     where g.status <> case a.decision when 'approve' then 'passed' when 'waive' then 'waived' else 'failed' end";
