//! Moves time. No test waits: these functions change timestamps in rows instead.

use shared::domain::{RunId, StepId};

use crate::Lab;

impl Lab {
    /// Ends the lease of a running step.
    pub async fn lease_over(&self, step: StepId) {
        self.admin.execute(&leases_over("s.id = $1"), &[&step.0]).await.expect("move a lease");
    }

    /// Ends the leases of all running steps of a run.
    pub async fn leases_over(&self, run: RunId) {
        self.admin.execute(&leases_over("s.run_id = $1"), &[&run.0]).await.expect("move leases");
    }

    /// Ends the delay before a step's next attempt.
    pub async fn delay_over(&self, step: StepId) {
        let sql =
            "update nofx.step set ready_at = least(ready_at, clock_timestamp()) where id = $1 and status = 'ready'";
        self.admin.execute(sql, &[&step.0]).await.expect("move a delay");
    }

    /// Makes the wake-ups of all ready steps due, unless the run is paused.
    pub async fn wakeups_due(&self, run: RunId) {
        // Take the run's lock first, as every transition does, to avoid a deadlock with the workers.
        let sql = "with locked as materialized (select id from nofx.run where id = $1 for no key update)
                   update nofx.step s set notify_at = clock_timestamp() - interval '1 second'
                     from locked
                    where s.run_id = locked.id and s.status = 'ready' and s.notify_at < 'infinity'";
        self.admin.execute(sql, &[&run.0]).await.expect("move wake-ups");
    }

    /// Makes a step look as if all its wake-ups were sent and no worker claimed it.
    pub async fn wakeups_exhausted(&self, step: StepId) {
        let sql = "update nofx.step set notify_at = clock_timestamp() - interval '1 second', notify_count = 20
                    where id = $1 and status = 'ready' and notify_at < 'infinity'";
        self.admin.execute(sql, &[&step.0]).await.expect("move wake-ups");
    }

    /// Makes the pending gates of a run expire, if they have an expiry.
    pub async fn gates_due(&self, run: RunId) {
        // Move their start too, so that the interval stays the same.
        let sql = "update nofx.gate
                      set created_at = created_at - (expires_at - clock_timestamp()) - interval '1 second',
                          expires_at = clock_timestamp() - interval '1 second'
                    where run_id = $1 and status = 'pending' and expires_at is not null";
        self.admin.execute(sql, &[&run.0]).await.expect("move gates");
    }

    /// Makes the deadline of a run pass.
    pub async fn deadline_over(&self, run: RunId) {
        let sql = "update nofx.run set deadline_at = clock_timestamp() - interval '1 second'
                    where id = $1 and deadline_at is not null and finished_at is null";
        self.admin.execute(sql, &[&run.0]).await.expect("move a deadline");
    }
}

/// Ends the leases of running steps, and the copies of their attempts.
fn leases_over(of: &str) -> String {
    format!(
        "with over as (
             update nofx.step s set lease_until = clock_timestamp() - interval '1 second'
              where {of} and s.status = 'running'
             returning s.id, s.attempt, s.lease_until
         )
         update nofx.attempt a set lease_until = o.lease_until
           from over o
          where a.step_id = o.id and a.attempt = o.attempt"
    )
}
