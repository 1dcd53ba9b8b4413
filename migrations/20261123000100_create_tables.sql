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

-- sha256 in lower-case hex. A domain looks at a value when it is assigned, a CHECK of the table at every update.
create domain nofx.sha256 as text check (value ~ '^[0-9a-f]{64}$');

-- What ties the columns of the three tables that every transition updates. One function for each CHECK, because Postgres
-- parses the text of every CHECK of a table anew for every statement that writes to it: written out, they cost more than
-- all else that a claim or a finish does.
create function nofx.run_is_sound(
    p_tenant_id text, p_status text, p_generation integer, p_timeout_s integer, p_pending integer, p_ready integer,
    p_running integer, p_blocked integer, p_failed integer, p_gates integer, p_paused_at timestamptz,
    p_cancelled_at timestamptz, p_finished_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_generation >= 1 and coalesce(p_timeout_s, 1) > 0
        and p_pending >= 0 and p_ready >= 0 and p_running >= 0 and p_blocked >= 0 and p_failed >= 0 and p_gates >= 0
        and case
            when p_status in ('queued', 'running', 'blocked') then p_finished_at is null
            when p_status = 'paused' then p_finished_at is null and p_paused_at is not null
            when p_status in ('succeeded', 'failed', 'cancelled')
                then p_finished_at is not null and p_pending + p_ready + p_running + p_blocked = 0
                     and (p_status <> 'cancelled' or p_cancelled_at is not null)
            else false
        end;
end
$$;

create function nofx.step_is_sound(
    p_status text, p_blockers integer, p_attempt integer, p_failures integer, p_workers_lost integer,
    p_max_attempts integer, p_backoff_ms integer, p_timeout_s integer, p_ready_at timestamptz, p_notify_at timestamptz,
    p_lease_until timestamptz, p_finished_at timestamptz, p_has_outputs boolean, p_has_error boolean
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_blockers >= 0 and p_attempt >= 0 and p_failures >= 0 and p_workers_lost >= 0
        and p_max_attempts >= 1 and p_backoff_ms >= 0 and coalesce(p_timeout_s, 1) >= 1
        and (p_status = 'ready') = (p_notify_at is not null)
        and (p_status = 'running') = (p_lease_until is not null)
        and (p_status = 'succeeded') = p_has_outputs
        and case
            when p_status = 'pending' then p_finished_at is null
            when p_status = 'ready' then p_finished_at is null and p_blockers = 0 and p_ready_at is not null
            when p_status = 'running' then p_finished_at is null and p_blockers = 0 and p_attempt >= 1
            when p_status = 'blocked' then p_finished_at is null and p_blockers = 0
            when p_status = 'succeeded' then p_finished_at is not null and p_blockers = 0
            when p_status = 'failed' then p_finished_at is not null and p_has_error
            when p_status in ('skipped', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create function nofx.attempt_is_sound(p_status text, p_attempt integer, p_finished_at timestamptz) returns boolean
    language plpgsql immutable
as $$
begin
    return p_attempt >= 1
        and case
            when p_status = 'running' then p_finished_at is null
            when p_status in ('succeeded', 'failed', 'blocked', 'lost', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create table nofx.run (
    id              uuid primary key,
    tenant_id       text not null,
    -- queued, running, blocked, paused, succeeded, failed, cancelled
    status          text not null default 'queued',
    goal            text not null,
    plan            jsonb not null,
    -- sha256 of the plan's canonical JSON (RFC 8785).
    plan_digest     nofx.sha256 not null,
    idempotency_key text,
    -- sha256 of the request that came with the idempotency key.
    request_digest  nofx.sha256 not null,
    -- References to the artifacts that gates judge: {archive, base, diff}.
    workspace       jsonb,
    traceparent     text,
    generation      integer not null default 1,
    timeout_s       integer,
    deadline_at     timestamptz,
    steps_pending   integer not null default 0,
    steps_ready     integer not null default 0,
    steps_running   integer not null default 0,
    steps_blocked   integer not null default 0,
    steps_failed    integer not null default 0,
    -- Pending gates of the run itself (not of a step).
    gates_pending   integer not null default 0,
    event_seq       bigint not null default 0,
    -- Why the run failed when no step did: {code, message}.
    failure         jsonb,
    created_at      timestamptz not null default now(),
    started_at      timestamptz,
    paused_at       timestamptz,
    cancelled_at    timestamptz,
    finished_at     timestamptz,
    constraint run_is_sound check (nofx.run_is_sound(
        tenant_id, status, generation, timeout_s, steps_pending, steps_ready, steps_running, steps_blocked,
        steps_failed, gates_pending, paused_at, cancelled_at, finished_at))
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
    -- pending, ready, running, blocked, succeeded, failed, skipped, cancelled
    status       text not null,
    -- Parents that have not succeeded and gates that have not passed.
    blockers     integer not null,
    -- Number of the newest attempt; fences every later write and never goes back.
    attempt      integer not null default 0,
    -- Attempts of this generation that failed by themselves.
    failures     integer not null default 0,
    -- Attempts of this generation whose worker was never heard of again.
    workers_lost integer not null default 0,
    max_attempts integer not null,
    backoff_ms   integer not null,
    -- How long one attempt may take (for a manual step: how long its gate waits). Null: as long as the invocation lasts.
    timeout_s    integer,
    error        jsonb,
    created_at   timestamptz not null default now(),
    ready_at     timestamptz,
    -- From when a ready step is owed a wake-up ('infinity' while its run is paused).
    notify_at    timestamptz,
    notify_count integer not null default 0,
    lease_until  timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    -- Not of the ordinals as well: each version of a step is one more entry in every index, and run_create numbers them.
    unique (run_id, name),
    constraint step_is_sound check (nofx.step_is_sound(
        status, blockers, attempt, failures, workers_lost, max_attempts, backoff_ms, timeout_s, ready_at, notify_at,
        lease_until, finished_at, outputs is not null, error is not null))
-- What has passed through the indexes below stays in them until a vacuum: sooner than when a fifth of all steps changed.
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- Of ready and of running steps alone. The predicates do not name the status, so that a claim or a finish, which does,
-- never mistakes them for a way to its rows: rows pass through them fast, and they are long with what has passed.
create index step_owed on nofx.step (notify_at) where notify_at is not null;
create index step_leased on nofx.step (lease_until) where lease_until is not null;

create table nofx.step_edge (
    parent_id uuid not null references nofx.step (id) on delete cascade,
    child_id  uuid not null references nofx.step (id) on delete cascade,
    tenant_id text not null,
    primary key (parent_id, child_id),
    check (parent_id <> child_id)
);
create index step_edge_child on nofx.step_edge (child_id);

create table nofx.attempt (
    -- Of a step that steps_claim has just updated: no foreign key needs to look it up again.
    step_id     uuid not null,
    attempt     integer not null,
    tenant_id   text not null,
    run_id      uuid not null,
    -- running, succeeded, failed, blocked, lost, cancelled
    status      text not null,
    -- The call that claimed it: that call again, because its answer was lost, gets the step again.
    claimed_by  uuid,
    error       jsonb,
    started_at  timestamptz not null,
    finished_at timestamptz,
    primary key (step_id, attempt),
    constraint attempt_is_sound check (nofx.attempt_is_sound(status, attempt, finished_at))
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
    hash       nofx.sha256 not null,
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
    -- Of a run that runs_settle has just updated: no foreign key needs to look it up again.
    run_id    uuid not null,
    -- Dense within the run, given under the run's lock: no reader can skip one that committed late.
    seq       bigint not null,
    tenant_id text not null,
    step_id   uuid,
    type      text not null,
    payload   jsonb not null default '{}',
    timestamp timestamptz not null,
    primary key (run_id, seq)
);

-- What a foreign key with `on delete cascade` would do for attempts and events.
create function nofx.attempts_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.attempt a using gone g where a.step_id = g.id;
    return null;
end
$$;
create trigger attempts_forget after delete on nofx.step
    referencing old table as gone for each statement execute function nofx.attempts_forget();

create function nofx.events_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.event e using gone g where e.run_id = g.id;
    return null;
end
$$;
create trigger events_forget after delete on nofx.run
    referencing old table as gone for each statement execute function nofx.events_forget();

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
