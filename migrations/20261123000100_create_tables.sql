-- Tables of the control plane. Written for PostgreSQL 15 to 18; no extension.
--
-- A run's row carries counters of its open steps, so that no transition ever counts a run's steps again, and the
-- sequence of its events. Everything that changes a run, its steps or its gates first locks the run's row: that one
-- lock orders the timeline and makes the counters true.

create schema if not exists nofx;

-- The tenant of a direct (row level security) reader, with or without Supabase's auth schema.
create function nofx.tenant_id() returns text
    language sql stable
    set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' ->> 'tenant_id',
        '')
$$;

create table nofx.run (
    id              uuid primary key,
    tenant_id       text not null check (tenant_id <> ''),
    status          text not null default 'queued'
                    check (status in ('queued', 'running', 'blocked', 'paused', 'succeeded', 'failed', 'cancelled')),
    goal            text not null,
    plan            jsonb not null,
    -- sha256 of the plan's canonical JSON (RFC 8785).
    plan_digest     text not null check (plan_digest ~ '^[0-9a-f]{64}$'),
    idempotency_key text,
    -- sha256 of the request that came with the idempotency key.
    request_digest  text not null check (request_digest ~ '^[0-9a-f]{64}$'),
    -- References to the artifacts that gates judge: {archive, base, diff}.
    workspace       jsonb,
    traceparent     text,
    generation      integer not null default 1 check (generation >= 1),
    timeout_s       integer check (timeout_s > 0),
    deadline_at     timestamptz,
    steps_pending   integer not null default 0 check (steps_pending >= 0),
    steps_ready     integer not null default 0 check (steps_ready >= 0),
    steps_running   integer not null default 0 check (steps_running >= 0),
    steps_blocked   integer not null default 0 check (steps_blocked >= 0),
    steps_failed    integer not null default 0 check (steps_failed >= 0),
    -- Pending gates of the run itself (not of a step).
    gates_pending   integer not null default 0 check (gates_pending >= 0),
    event_seq       bigint not null default 0,
    -- Why the run failed when no step did: {code, message}.
    failure         jsonb,
    created_at      timestamptz not null default now(),
    started_at      timestamptz,
    paused_at       timestamptz,
    cancelled_at    timestamptz,
    finished_at     timestamptz,
    check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    check (status <> 'cancelled' or cancelled_at is not null),
    check (status <> 'paused' or paused_at is not null),
    check (status not in ('succeeded', 'failed', 'cancelled')
           or steps_pending + steps_ready + steps_running + steps_blocked = 0)
) with (fillfactor = 80);

create unique index run_idempotency on nofx.run (tenant_id, idempotency_key) where idempotency_key is not null;
create index run_list on nofx.run (tenant_id, created_at desc, id desc);
create index run_deadline on nofx.run (deadline_at) where finished_at is null and deadline_at is not null;

create table nofx.step (
    id           uuid primary key,
    tenant_id    text not null,
    run_id       uuid not null references nofx.run (id) on delete cascade,
    ordinal      integer not null,
    name         text not null,
    tool         text not null,
    handler      text not null,
    inputs       jsonb not null,
    outputs      jsonb,
    -- Names of the upstream steps whose outputs the inputs refer to.
    refs         text[] not null default '{}',
    status       text not null
                 check (status in ('pending', 'ready', 'running', 'blocked', 'succeeded', 'failed', 'skipped',
                                   'cancelled')),
    -- Parents that have not succeeded and gates that have not passed.
    blockers     integer not null check (blockers >= 0),
    -- Number of the newest attempt; fences every later write and never goes back.
    attempt      integer not null default 0 check (attempt >= 0),
    -- Attempts of this generation that failed by themselves.
    failures     integer not null default 0 check (failures >= 0),
    -- Attempts of this generation whose worker was never heard of again.
    workers_lost integer not null default 0 check (workers_lost >= 0),
    max_attempts integer not null check (max_attempts >= 1),
    backoff_ms   integer not null check (backoff_ms >= 0),
    -- How long one attempt may take (for a manual step: how long its gate waits). Null: as long as the invocation lasts.
    timeout_s    integer check (timeout_s >= 1),
    error        jsonb,
    created_at   timestamptz not null default now(),
    ready_at     timestamptz,
    -- From when a ready step is owed a wake-up ('infinity' while its run is paused).
    notify_at    timestamptz,
    notify_count integer not null default 0,
    lease_until  timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    unique (run_id, ordinal),
    unique (run_id, name),
    check ((status = 'ready') = (notify_at is not null)),
    check (status <> 'ready' or ready_at is not null),
    check ((status = 'running') = (lease_until is not null)),
    check ((status in ('succeeded', 'failed', 'skipped', 'cancelled')) = (finished_at is not null)),
    check (status not in ('ready', 'running', 'blocked', 'succeeded') or blockers = 0),
    check ((status = 'succeeded') = (outputs is not null)),
    check (status <> 'failed' or error is not null),
    check (status <> 'running' or attempt >= 1)
) with (fillfactor = 80);

create index step_owed on nofx.step (notify_at) where status = 'ready';
create index step_leased on nofx.step (lease_until) where status = 'running';

create table nofx.step_edge (
    parent_id uuid not null references nofx.step (id) on delete cascade,
    child_id  uuid not null references nofx.step (id) on delete cascade,
    tenant_id text not null,
    primary key (parent_id, child_id),
    check (parent_id <> child_id)
);
create index step_edge_child on nofx.step_edge (child_id);

create table nofx.attempt (
    step_id     uuid not null references nofx.step (id) on delete cascade,
    attempt     integer not null check (attempt >= 1),
    tenant_id   text not null,
    run_id      uuid not null,
    status      text not null
                check (status in ('running', 'succeeded', 'failed', 'blocked', 'lost', 'cancelled')),
    error       jsonb,
    started_at  timestamptz not null,
    finished_at timestamptz,
    primary key (step_id, attempt),
    check ((status = 'running') = (finished_at is null))
) with (fillfactor = 80);

create table nofx.artifact (
    id         uuid primary key,
    tenant_id  text not null,
    -- Null for what was uploaded before any run.
    run_id     uuid references nofx.run (id) on delete cascade,
    step_id    uuid references nofx.step (id) on delete cascade,
    attempt    integer,
    name       text not null,
    type       text not null,
    uri        text not null,
    -- sha256 in lower-case hex.
    hash       text not null check (hash ~ '^[0-9a-f]{64}$'),
    size_bytes bigint not null check (size_bytes >= 0),
    media_type text not null,
    metadata   jsonb not null default '{}',
    created_at timestamptz not null default now()
);
create index artifact_run on nofx.artifact (run_id, created_at, id) where run_id is not null;
create index artifact_step on nofx.artifact (step_id) where step_id is not null;

create table nofx.artifact_edge (
    parent_id uuid not null references nofx.artifact (id) on delete cascade,
    child_id  uuid not null references nofx.artifact (id) on delete cascade,
    tenant_id text not null,
    primary key (parent_id, child_id)
);
create index artifact_edge_child on nofx.artifact_edge (child_id);

create table nofx.event (
    id        bigint generated always as identity,
    run_id    uuid not null references nofx.run (id) on delete cascade,
    -- Dense within the run, given under the run's lock: no reader can skip one that committed late.
    seq       bigint not null,
    tenant_id text not null,
    step_id   uuid,
    type      text not null,
    payload   jsonb not null default '{}',
    timestamp timestamptz not null,
    primary key (run_id, seq)
);

create table nofx.gate (
    id           uuid primary key,
    tenant_id    text not null,
    run_id       uuid not null references nofx.run (id) on delete cascade,
    -- Null for a gate of the run itself.
    step_id      uuid references nofx.step (id) on delete cascade,
    gate_type    text not null,
    status       text not null
                 check (status in ('pending', 'passed', 'failed', 'waived', 'expired', 'cancelled')),
    -- What passing does: finish or resume the blocked step, release (count down a step's blockers, or the run's gates).
    on_pass      text not null check (on_pass in ('finish', 'resume', 'release')),
    generation   integer not null,
    evidence_uri text,
    reason       text,
    approved_by  text,
    approved_at  timestamptz,
    expires_at   timestamptz,
    created_at   timestamptz not null default now(),
    decided_at   timestamptz,
    check ((status = 'pending') = (decided_at is null)),
    check ((approved_by is null) = (approved_at is null)),
    check (approved_at is null or status in ('passed', 'waived')),
    check (step_id is not null or on_pass = 'release')
);
create index gate_run on nofx.gate (run_id, created_at, id);
create index gate_step on nofx.gate (step_id) where step_id is not null;
create index gate_inbox on nofx.gate (tenant_id, created_at, id) where status = 'pending';
create index gate_expiry on nofx.gate (expires_at) where status = 'pending' and expires_at is not null;

-- Decisions of people. A gate is decided once.
create table nofx.approval (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  text not null,
    run_id     uuid not null references nofx.run (id) on delete cascade,
    gate_id    uuid not null unique references nofx.gate (id) on delete cascade,
    decision   text not null check (decision in ('approve', 'reject', 'waive')),
    actor      text not null check (actor <> ''),
    reason     text,
    created_at timestamptz not null default now()
);

create table nofx.db_write_rule (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   text not null,
    -- schema.table
    table_name  text not null check (table_name ~ '^[^.]+\.[^.]+$'),
    allowed_ops text[] not null check (allowed_ops <@ array['insert', 'update', 'delete']),
    -- {columns: [..], key: [..], max_rows: n}: columns that may be written, columns that find rows, cap per statement.
    constraints jsonb not null default '{}' check (jsonb_typeof(constraints) = 'object'),
    created_at  timestamptz not null default now(),
    unique (tenant_id, table_name)
);

-- Who may do what. Workers only execute transitions; the API also reads, under row level security when it is given a
-- tenant's claims. The roles log in nowhere: a login role is granted one of them.
do $$
begin
    if not exists (select from pg_roles where rolname = 'nofx_api') then
        create role nofx_api nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'nofx_worker') then
        create role nofx_worker nologin;
    end if;
end
$$;

grant usage on schema nofx to nofx_api, nofx_worker;
grant execute on function nofx.tenant_id() to nofx_api, nofx_worker;
grant select on nofx.run, nofx.step, nofx.step_edge, nofx.attempt, nofx.artifact, nofx.artifact_edge, nofx.event,
    nofx.gate, nofx.approval, nofx.db_write_rule to nofx_api;

do $$
declare
    v_table text;
begin
    foreach v_table in array array['run', 'step', 'step_edge', 'attempt', 'artifact', 'artifact_edge', 'event',
                                   'gate', 'approval', 'db_write_rule']
    loop
        execute format('alter table nofx.%I enable row level security', v_table);
        execute format('create policy tenant_isolation on nofx.%I for select using (tenant_id = (select nofx.tenant_id()))',
                       v_table);
    end loop;
end
$$;
