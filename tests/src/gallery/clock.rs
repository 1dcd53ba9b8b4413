//! Spreads what took milliseconds over minutes, as if real work had been done, and moves it into the past.

use std::time::Duration;

use shared::domain::RunId;

use crate::Lab;

/// The times of each table. Those after the newest event of a run, such as a deadline, stay.
const TIMES: [(&str, &str, &[&str]); 6] = [
    ("run", "id", &["created_at", "started_at", "paused_at", "cancelled_at", "finished_at"]),
    ("step", "run_id", &["created_at", "ready_at", "started_at", "finished_at"]),
    ("attempt", "run_id", &["started_at", "finished_at"]),
    ("artifact", "run_id", &["created_at"]),
    ("gate", "run_id", &["created_at", "expires_at", "approved_at", "decided_at"]),
    ("approval", "run_id", &["created_at"]),
];

/// When a run was.
#[derive(Debug, Clone, Copy)]
pub struct When {
    /// From its first to its newest event.
    pub lasts: Duration,
    /// From its newest event until now.
    pub ago: Duration,
}

impl When {
    pub const fn seconds(lasts: u64, ago: u64) -> Self {
        Self { lasts: Duration::from_secs(lasts), ago: Duration::from_secs(ago) }
    }
}

impl Lab {
    /// Moves all times of a run, in their order and in proportion.
    pub async fn spread(&self, run: RunId, when: When) {
        let define = "create or replace function pg_temp.moved(t timestamptz, first timestamptz, last timestamptz,
                                                               lasts float8, ago float8)
                      returns timestamptz language sql strict as $$
            select case when t > last + interval '5 seconds' then t
                        else now() - make_interval(secs => ago + lasts) + least(t - first, last - first)
                             * case when last > first then lasts / extract(epoch from last - first) else 1 end
                   end $$";
        self.admin.batch_execute(define).await.expect("a function");
        let span = "select min(timestamp), max(timestamp) from nofx.event where run_id = $1";
        let bounds = self.admin.query_one(span, &[&run.0]).await.expect("events");
        let (first, last): (std::time::SystemTime, std::time::SystemTime) = (bounds.get(0), bounds.get(1));
        let (lasts, ago) = (when.lasts.as_secs_f64(), when.ago.as_secs_f64());
        self.keep_records(false).await;
        for (table, run_column, columns) in TIMES.into_iter().chain([("event", "run_id", &["timestamp"][..])]) {
            let moved: Vec<String> =
                columns.iter().map(|column| format!("{column} = pg_temp.moved({column}, $2, $3, $4, $5)")).collect();
            let sql = format!("update nofx.{table} set {} where {run_column} = $1", moved.join(", "));
            self.admin.execute(&sql, &[&run.0, &first, &last, &lasts, &ago]).await.expect("times move");
        }
        self.keep_records(true).await;
    }

    /// Records are never changed. A gallery moves them to another time nevertheless, as the owner of the tables alone can.
    async fn keep_records(&self, keep: bool) {
        let change = if keep { "enable always" } else { "disable" };
        for table in ["approval", "event"] {
            let sql = format!("alter table nofx.{table} {change} trigger records_are_kept");
            self.admin.batch_execute(&sql).await.expect("the trigger");
        }
    }

    /// Gives the running steps of a run another day, as if their workers were alive.
    pub async fn leases_last(&self, run: RunId) {
        for table in ["step", "attempt"] {
            let sql = format!(
                "update nofx.{table} set lease_until = current_date + interval '2 days'
                  where run_id = $1 and status = 'running'"
            );
            self.admin.execute(&sql, &[&run.0]).await.expect("leases move");
        }
    }
}
