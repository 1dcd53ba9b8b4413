//! Snapshots of a run. Those without ids and times can be compared between runs of the same plan.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shared::domain::RunId;
use uuid::Uuid;

use crate::Lab;

impl Lab {
    /// A run without ids and times: states, outputs, attempts, gates, artifacts, and how often each step completed.
    pub async fn snapshot(&self, run: RunId) -> Value {
        let sql = "select jsonb_build_object(
            'run', (select jsonb_build_object('status', r.status, 'generation', r.generation, 'failure', r.failure)
                      from nofx.run r where r.id = $1),
            'steps', (select jsonb_object_agg(s.name, jsonb_build_object(
                          'status', s.status, 'outputs', s.outputs, 'error', s.error ->> 'code',
                          'attempt', s.attempt, 'failures', s.failures, 'workers_lost', s.workers_lost,
                          'attempts', (select coalesce(jsonb_agg(a.status order by a.attempt), '[]')
                                         from nofx.attempt a where a.step_id = s.id),
                          'completed', (select count(*) from nofx.event e
                                         where e.step_id = s.id and e.type = 'step.succeeded'),
                          'gates', (select coalesce(jsonb_agg(jsonb_build_object(
                                        'type', g.gate_type, 'status', g.status, 'on_pass', g.on_pass,
                                        'approved_by', g.approved_by) order by g.gate_type, g.status), '[]')
                                      from nofx.gate g where g.step_id = s.id),
                          'artifacts', (select coalesce(jsonb_agg(jsonb_build_object('name', f.name, 'hash', f.hash)
                                                                 order by f.name), '[]')
                                          from nofx.artifact f where f.step_id = s.id)))
                        from nofx.step s where s.run_id = $1),
            'gates', (select coalesce(jsonb_agg(jsonb_build_object('type', g.gate_type, 'status', g.status)
                                                order by g.gate_type), '[]')
                        from nofx.gate g where g.run_id = $1 and g.step_id is null))";
        let mut snapshot: Value = self.admin.query_one(sql, &[&run.0]).await.expect("a snapshot").get(0);
        redact(&mut snapshot);
        snapshot
    }

    /// Like [`Lab::snapshot`], without the fields that a crash changes: the attempts and lost workers.
    pub async fn outcome(&self, run: RunId) -> Value {
        let mut snapshot = self.snapshot(run).await;
        for step in snapshot["steps"].as_object_mut().expect("steps").values_mut() {
            for key in ["attempt", "attempts", "workers_lost"] {
                step.as_object_mut().expect("a step").remove(key);
            }
        }
        snapshot
    }

    /// The types of a run's events, in order.
    pub async fn event_types(&self, run: RunId) -> Vec<String> {
        let sql = "select type from nofx.event where run_id = $1 order by seq";
        let rows = self.admin.query(sql, &[&run.0]).await.expect("events");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Panics if a run differs from an earlier [`Lab::everything`].
    pub async fn assert_unchanged(&self, run: RunId, before: &Value) {
        let mut changes = Vec::new();
        differences("", before, &self.everything(run).await, &mut changes);
        assert!(changes.is_empty(), "the run changed:\n{}", changes.join("\n"));
    }

    /// All rows of a run, with ids and times.
    pub async fn everything(&self, run: RunId) -> Value {
        let sql = "select jsonb_build_object(
            'run', (select to_jsonb(r) from nofx.run r where r.id = $1),
            'steps', (select jsonb_agg(to_jsonb(s) order by s.ordinal) from nofx.step s where s.run_id = $1),
            'attempts', (select jsonb_agg(to_jsonb(a) order by a.step_id, a.attempt)
                           from nofx.attempt a where a.run_id = $1),
            'gates', (select jsonb_agg(to_jsonb(g) order by g.id) from nofx.gate g where g.run_id = $1),
            'artifacts', (select jsonb_agg(to_jsonb(f) order by f.id) from nofx.artifact f where f.run_id = $1),
            'approvals', (select jsonb_agg(to_jsonb(p) order by p.id) from nofx.approval p where p.run_id = $1),
            'events', (select jsonb_agg(to_jsonb(e) order by e.seq) from nofx.event e where e.run_id = $1))";
        self.admin.query_one(sql, &[&run.0]).await.expect("everything").get(0)
    }
}

fn differences(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                differences(&format!("{path}/{key}"), &before[key], &after[key], found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&format!("{path}/{index}"), old, new, found);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            found.push(format!("{path}: {} rows became {}; the last is {:?}", old.len(), new.len(), new.last()));
        }
        _ if before == after => {}
        _ => found.push(format!("{path}: {before} became {after}")),
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) if text.parse::<Uuid>().is_ok() => *value = json!("<id>"),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(entries) => entries.values_mut().for_each(redact),
        _ => {}
    }
}
