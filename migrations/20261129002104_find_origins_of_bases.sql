-- Lets a gate ask which step fetched its base, for policies that trust only bases of a repository.

-- Copies of the files in functions/. Change those files, not this one.

-- functions/artifact_origin.sql sha256=7f9ded2498a971e3ccc38c22e85aa1393244f1a3472fb7be960963836668a9ae
-- Says which commit an artifact of a tenant is, if a step `workspace:git` of that tenant succeeded and stored it. What the step recorded
-- counts only because no other tool writes artifacts of such a step, and no client writes metadata.
-- p: {tenant_id, artifact_id, hash, workspace_id}; workspace_id may be null
-- -> {origin: {repository, commit, standing, run_id, step_id, age_s, has_workspace}}, where origin is null if there is no such artifact.
-- `has_workspace`: the same attempt also stored the artifact workspace_id.
create or replace function nofx.artifact_origin(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object('origin', (
        select jsonb_build_object(
                   'repository', a.metadata -> 'repository', 'commit', a.metadata -> 'commit', 'standing', a.metadata -> 'standing',
                   'run_id', a.run_id, 'step_id', a.step_id,
                   'age_s', greatest(0, extract(epoch from clock_timestamp() - a.created_at)::bigint),
                   'has_workspace', exists (
                       select from nofx.artifact w
                        where w.id = (p ->> 'workspace_id')::uuid and w.tenant_id = a.tenant_id
                          and w.step_id = a.step_id and w.attempt = a.attempt and w.type = 'workspace'))
          from nofx.artifact a
          join nofx.step s on s.id = any (array[a.step_id])
         where a.id = (p ->> 'artifact_id')::uuid and a.tenant_id = p ->> 'tenant_id' and a.hash = p ->> 'hash'
           and a.type = 'workspace'
           and s.tenant_id is not distinct from a.tenant_id and s.tool = 'workspace:git' and s.status = 'succeeded'
           and s.attempt = a.attempt))
$$;
select nofx.transition_declare('nofx.artifact_origin(jsonb)', 'nofx_worker');
