-- Records which artifacts a run uses, finds what is due of one tenant at a time, and remembers the attempts whose objects may have no artifact.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
-- Transitions lock a run before they touch its attempts. So this waits for those in flight, and keeps new ones out until the commit.
lock table nofx.run in exclusive mode;

-- The artifacts that a run uses: those that its plan or its workspace names. A run that has ended may be retried, and then uses them again.
create table nofx.run_artifact (
    artifact_id uuid not null references nofx.artifact on delete cascade,
    run_id      uuid not null references nofx.run on delete cascade,
    tenant_id   text not null,
    primary key (artifact_id, run_id)
);
create index run_artifact_run on nofx.run_artifact (run_id);
alter table nofx.run_artifact enable row level security;
create policy tenant_isolation on nofx.run_artifact for select to nofx_api using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.run_artifact to nofx_api;

-- Runs from before this table. One that succeeded cannot be retried.
insert into nofx.run_artifact (artifact_id, run_id, tenant_id)
select distinct a.id, r.id, r.tenant_id
  from nofx.run r
 cross join lateral (
        select w.value ->> 'id' as id from jsonb_each(coalesce(r.workspace, '{}')) w
        union all
        select v #>> '{}' from jsonb_path_query(r.plan, 'strict $.steps.** ? (@.type() == "string")', '{}', true) v) named
  join nofx.artifact a
    on a.id = case when named.id ~* '^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$' then named.id::uuid end and a.tenant_id = r.tenant_id
 where r.status <> 'succeeded';

-- The sweeper takes what is due of one tenant at a time.
create index artifact_storage_tenant on nofx.artifact_storage (tenant_id, due_at) where due_at is not null;

-- Attempts that ended otherwise than their worker expected. Their folder in the storage may have objects that no artifact names.
create table nofx.attempt_leftover (
    step_id   uuid not null references nofx.step on delete cascade,
    attempt   integer not null,
    tenant_id text not null,
    run_id    uuid not null,
    -- When the sweeper looks at the folder. No worker of the attempt can write any more then.
    due_at    timestamptz not null,
    tries     integer not null default 0,
    primary key (step_id, attempt)
);
create index attempt_leftover_due on nofx.attempt_leftover (due_at);
alter table nofx.attempt_leftover enable row level security;
create policy tenant_isolation on nofx.attempt_leftover for select to nofx_api using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.attempt_leftover to nofx_api;

-- What the trigger of this name does. Its text is that of functions/attempt_leftovers.sql.
create or replace function nofx.attempt_leftover_add() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    -- The longest function runs for 6 hours.
    insert into nofx.attempt_leftover (step_id, attempt, tenant_id, run_id, due_at)
    select new.step_id, new.attempt, new.tenant_id, new.run_id, new.finished_at + interval '7 hours'
      from nofx.step s
     where s.id = new.step_id and s.handler not in ('manual', 'db_write', 'echo')
        on conflict do nothing;
    return null;
end
$$;
revoke execute on function nofx.attempt_leftover_add() from public;
create trigger attempt_leftover_add after update of status on nofx.attempt
   for each row when (old.status = 'running' and new.status in ('failed', 'lost', 'cancelled')) execute function nofx.attempt_leftover_add();
