//! Time that the test moves. Nothing ever waits: what a clock would have brought is written into the rows.

use shared::domain::{RunId, StepId};

use crate::Lab;

impl Lab {
    /// The lease of a running step is over.
    pub async fn lease_over(&self, step: StepId) {
        let sql = "update nofx.step set lease_until = clock_timestamp() - interval '1 second'
                    where id = $1 and status = 'running'";
        self.admin.execute(sql, &[&step.0]).await.expect("move a lease");
    }

    /// The leases of all running steps of a run are over.
    pub async fn leases_over(&self, run: RunId) {
        let sql = "update nofx.step set lease_until = clock_timestamp() - interval '1 second'
                    where run_id = $1 and status = 'running'";
        self.admin.execute(sql, &[&run.0]).await.expect("move leases");
    }

    /// The delay before a step's next attempt is over.
    pub async fn delay_over(&self, step: StepId) {
        let sql =
            "update nofx.step set ready_at = least(ready_at, clock_timestamp()) where id = $1 and status = 'ready'";
        self.admin.execute(sql, &[&step.0]).await.expect("move a delay");
    }

    /// Every ready step of a run that goes on is owed a wake-up now.
    pub async fn wakeups_due(&self, run: RunId) {
        // Under the run's lock, as every transition: time itself must not deadlock with the workers.
        let sql = "with locked as materialized (select id from nofx.run where id = $1 for no key update)
                   update nofx.step s set notify_at = clock_timestamp() - interval '1 second'
                     from locked
                    where s.run_id = locked.id and s.status = 'ready' and s.notify_at < 'infinity'";
        self.admin.execute(sql, &[&run.0]).await.expect("move wake-ups");
    }

    /// A step has been woken as often as a step is, without anybody claiming it.
    pub async fn woken_in_vain(&self, step: StepId) {
        let sql = "update nofx.step set notify_at = clock_timestamp() - interval '1 second', notify_count = 20
                    where id = $1 and status = 'ready' and notify_at < 'infinity'";
        self.admin.execute(sql, &[&step.0]).await.expect("move wake-ups");
    }

    /// The gates of a run that wait for a limited time have waited it out.
    pub async fn gates_due(&self, run: RunId) {
        // Their beginning moves too: how long they waited must stay true.
        let sql = "update nofx.gate
                      set created_at = created_at - (expires_at - clock_timestamp()) - interval '1 second',
                          expires_at = clock_timestamp() - interval '1 second'
                    where run_id = $1 and status = 'pending' and expires_at is not null";
        self.admin.execute(sql, &[&run.0]).await.expect("move gates");
    }

    /// A run's time is over.
    pub async fn deadline_over(&self, run: RunId) {
        let sql = "update nofx.run set deadline_at = clock_timestamp() - interval '1 second'
                    where id = $1 and deadline_at is not null and finished_at is null";
        self.admin.execute(sql, &[&run.0]).await.expect("move a deadline");
    }
}
