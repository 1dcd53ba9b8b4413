-- Numbers and rules that several transitions share. Inlined like those of change.sql.

-- Workers that a step may lose in one generation before it fails as `worker_lost`.
create or replace function nofx.max_workers_lost() returns integer
    language sql immutable
as $$ select 3 $$;

-- Wake-ups that a ready step gets before it fails as `undeliverable`.
create or replace function nofx.max_wakeups() returns integer
    language sql immutable
as $$ select 20 $$;

-- Gates of clients that may wait in a run at once: as many as a plan may have steps.
create or replace function nofx.max_gates() returns integer
    language sql immutable
as $$ select 1000 $$;

-- The end of the lease of an attempt that starts now: its timeout or the rest of the invocation, whichever is shorter, plus 5 s in which the
-- worker records the end.
create or replace function nofx.lease_end(p_now timestamptz, p_timeout_s integer, p_invocation_s integer) returns timestamptz
    language sql stable
as $$ select p_now + make_interval(secs => least(p_timeout_s, p_invocation_s) + 5) $$;

-- When the sweeper owes a ready step a wake-up: one minute after the wake-up that its transition sends, never while its run is paused.
create or replace function nofx.wakeup_due(p_ready_at timestamptz, p_paused_at timestamptz) returns timestamptz
    language sql stable
as $$ select case when p_paused_at is null then p_ready_at + interval '1 minute' else 'infinity' end $$;

-- Whether a run is failing: one of its steps has failed, or the run itself. Nothing starts or waits in it any more.
create or replace function nofx.is_failing(p_steps_failed integer, p_failure jsonb) returns boolean
    language sql immutable
as $$ select p_steps_failed > 0 or p_failure is not null $$;

-- The type of the gate at which people approve a step of this tool.
create or replace function nofx.approval_type(p_tool text) returns text
    language sql immutable
as $$ select left('approval:' || p_tool, 100) $$;

-- Whether the run's state lets steps start.
create or replace function nofx.lets_start(p_run_status text) returns boolean
    language sql immutable
as $$ select p_run_status in ('queued', 'running', 'blocked') $$;

revoke execute on function nofx.max_workers_lost(), nofx.max_wakeups(), nofx.max_gates(), nofx.lease_end(timestamptz, integer, integer),
    nofx.wakeup_due(timestamptz, timestamptz), nofx.is_failing(integer, jsonb), nofx.approval_type(text), nofx.lets_start(text) from public;
