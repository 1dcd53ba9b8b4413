//! Fills the tables with finished runs, like a long-lived installation.

use anyhow::Result;
use nofx_local::report;
use tokio_postgres::Client;

/// Ids increase over time, like UUIDs of version 7. The runs are older than all runs of the benchmark.
const FILL_SQL: &str = "
    create function pg_temp.run_id(p_run bigint) returns uuid language sql immutable as
        $$ select ('01900000-0000-7000-8000-' || lpad(to_hex(p_run), 12, '0'))::uuid $$;
    create function pg_temp.step_id(p_run bigint, p_ordinal bigint) returns uuid language sql immutable as
        $$ select ('01900000-0000-7001-8000-' || lpad(to_hex(p_run * 5 + p_ordinal), 12, '0'))::uuid $$;

    insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, event_seq, created_at,
                          started_at, finished_at)
    select pg_temp.run_id(n), 'bench', 'succeeded', 'history',
           '{\"goal\": \"history\", \"steps\": [{\"name\": \"s0\", \"tool\": \"echo\"}, {\"name\": \"s1\", \"tool\": \"echo\"},
             {\"name\": \"s2\", \"tool\": \"echo\"}, {\"name\": \"s3\", \"tool\": \"echo\"}, {\"name\": \"s4\", \"tool\": \"echo\"}]}',
           repeat('0', 64), repeat('0', 64), 18, at, at, at
      from generate_series(1::bigint, :runs) n, lateral (select now() - interval '1 hour' - (:runs - n) * interval '50 ms') a(at);

    insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, outputs, status, blockers,
                           attempt, max_attempts, backoff_ms, ready_at, started_at, finished_at)
    select pg_temp.step_id(n, i), 'bench', pg_temp.run_id(n), i, 's' || i, 'echo', 'echo', '{\"text\": \"hello\"}',
           '{\"text\": \"hello\"}', 'succeeded', 0, 1, 3, 1000, now(), now(), now()
      from generate_series(1::bigint, :runs) n, generate_series(0::bigint, 4) i;

    insert into nofx.step_edge (parent_id, child_id, tenant_id)
    select pg_temp.step_id(n, i - 1), pg_temp.step_id(n, i), 'bench'
      from generate_series(1::bigint, :runs) n, generate_series(1::bigint, 4) i;

    insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, started_at, finished_at)
    select pg_temp.step_id(n, i), 1, 'bench', pg_temp.run_id(n), 'succeeded', now(), now()
      from generate_series(1::bigint, :runs) n, generate_series(0::bigint, 4) i;

    insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
    select pg_temp.run_id(n), i + 1, 'bench', pg_temp.step_id(n, i / 4), 'step.succeeded', '{\"attempt\": 1}', now()
      from generate_series(1::bigint, :runs) n, generate_series(0::bigint, 17) i;
";

/// Writes `runs` runs of five succeeded steps.
pub async fn fill(admin: &Client, runs: u64) -> Result<()> {
    // Skip the foreign key checks: the rows are consistent by construction.
    if admin.batch_execute("set session_replication_role = replica").await.is_err() {
        report::line("history", "this role cannot disable triggers, so filling the tables takes longer");
    }
    admin.batch_execute(&FILL_SQL.replace(":runs", &runs.to_string())).await?;
    admin.batch_execute("reset session_replication_role").await?;
    // Collect the statistics that autovacuum would collect, and clean up before the measured calls.
    admin.batch_execute("vacuum (analyze)").await?;
    admin.batch_execute("checkpoint").await.or_else(|_| {
        report::line("history", "this role cannot run a checkpoint, so expect noise");
        Ok(())
    })
}
