-- Approval rules: how many people must approve, and which. A plan asks for a rule, and the policy of the tenant caps it. A rule is
-- {required, roles, people, self, owners, waive, max_session_age_s}. `roles` has the least role that may decide. `people` is null for anybody.
-- `self` says whether people may decide about their own work. A value that cannot be read counts as the strictest one.

-- A count of people, from 1 to 20.
create or replace function nofx.approval_count(p_count jsonb) returns integer
    language sql immutable
    set search_path = ''
as $$
    select case coalesce(jsonb_typeof(p_count), 'null')
               when 'null' then 1
               when 'number' then least(greatest(ceil(p_count::numeric), 1), 20)::integer
               else 20 end
$$;

-- A number of seconds, up to a year. Null if there is none.
create or replace function nofx.approval_seconds(p_seconds jsonb) returns integer
    language sql immutable
    set search_path = ''
as $$
    select case coalesce(jsonb_typeof(p_seconds), 'null')
               when 'null' then null
               when 'number' then least(greatest(p_seconds::numeric, 1), 31536000)::integer
               else 1 end
$$;

-- The least role of a list. A role includes those below it, so only the least one matters.
create or replace function nofx.approval_role(p_roles jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select case when coalesce(jsonb_typeof(p_roles), 'null') = 'null' or p_roles @> '["approver"]' then 'approver' else 'admin' end
$$;

-- The stricter of a rule and a policy, field by field. If the policy has become looser since, the rule keeps the stricter values.
create or replace function nofx.approval_strictest(p_rule jsonb, p_policy jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object(
        'required', greatest(nofx.approval_count(p_rule -> 'required'), nofx.approval_count(p_policy -> 'minimum')),
        'roles', jsonb_build_array(case when 'admin' in (nofx.approval_role(p_rule -> 'roles'), nofx.approval_role(p_policy -> 'roles'))
                                        then 'admin' else 'approver' end),
        'people', nullif(p_rule -> 'people', 'null'),
        'self', coalesce(p_policy ->> 'self' = 'allowed', false) and coalesce(p_rule -> 'self', 'null') in ('null', 'true'),
        'owners', case when p_policy ->> 'owners' = 'allowed' and coalesce(p_rule ->> 'owners', 'allowed') = 'allowed'
                       then 'allowed' else 'excluded' end,
        'waive', case when coalesce(p_policy ->> 'waive', 'admins') = 'admins' and coalesce(p_rule ->> 'waive', 'admins') = 'admins'
                      then 'admins' else 'nobody' end,
        'max_session_age_s', least(nofx.approval_seconds(p_policy -> 'max_session_age_s'),
                                   nofx.approval_seconds(p_rule -> 'max_session_age_s')))
$$;

-- What the current policy of a tenant says about approvals.
create or replace function nofx.approval_policy(p_tenant text) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_approvals jsonb;
begin
    select p.document -> 'approvals' into v_approvals
      from nofx.policy p
     where p.tenant_id = p_tenant
     order by p.version desc limit 1;
    return case when jsonb_typeof(v_approvals) = 'object' then v_approvals else '{}' end;
end
$$;

-- When a gate of this tenant expires, if it may wait p_after_s. Null for never.
create or replace function nofx.approval_expiry(p_tenant text, p_after_s integer, p_now timestamptz) returns timestamptz
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select p_now + make_interval(secs => least(p_after_s, nofx.approval_seconds(nofx.approval_policy(p_tenant) -> 'max_expires_after_s')))
$$;

-- The rule that a step's plan asks for: its field `approval`, or that of the inputs of a step that only asks.
create or replace function nofx.approval_asked(p_step nofx.step) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when jsonb_typeof(a.asked) = 'object' then a.asked else '{}' end
      from (select case when p_step.handler = 'manual' then p_step.inputs -> 'approval' else p_step.approval end as asked) a
$$;

-- Whether a rule allows this member: by role, and by the list of people if there is one.
create or replace function nofx.approval_names(p_rule jsonb, p_member nofx.membership) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select coalesce(nofx.permits('gates.decide', p_member.role, 'person')
                    and nofx.role_rank(p_member.role) >= nofx.role_rank(nofx.approval_role(p_rule -> 'roles'))
                    and case coalesce(jsonb_typeof(p_rule -> 'people'), 'null')
                            when 'null' then true
                            when 'array' then (p_rule -> 'people') ? p_member.subject
                                 or exists (select from jsonb_array_elements_text(p_rule -> 'people') l
                                             where lower(l) = lower(p_member.email))
                            else false end, false)
$$;

-- Problems of the approvals that a plan asks for, in the tenant p_tenant: [{path, message}], or null. p_steps: the steps as nofx.run_create takes
-- them.
create or replace function nofx.approval_problems(p_tenant text, p_steps jsonb) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_agg(jsonb_build_object(
               'path', format('plan.steps[%s].%s.people', (s ->> 'ordinal'), case when s ->> 'handler' = 'manual' then 'inputs.approval' else 'approval' end),
               'message', format('names %s people, and the policy demands %s approvals', jsonb_array_length(a.asked -> 'people'), p.minimum))
               order by (s ->> 'ordinal')::integer)
      from jsonb_array_elements(p_steps) s
     cross join lateral (select case when s ->> 'handler' = 'manual' then s -> 'inputs' -> 'approval' else s -> 'approval' end as asked) a
     cross join (select nofx.approval_count(nofx.approval_policy(p_tenant) -> 'minimum') as minimum) p
     where jsonb_typeof(a.asked -> 'people') = 'array' and jsonb_array_length(a.asked -> 'people') < p.minimum
$$;

-- The rules that result from the approvals of a plan and the policy: {rules: {NAME: rule}, problems}. p_steps: the steps that ask, as
-- nofx.run_create takes them.
create or replace function nofx.approval_rules(p_steps jsonb) returns jsonb
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.tenant_id();
    v_policy jsonb := nofx.approval_policy(v_tenant);
begin
    return jsonb_build_object(
        'rules', (select coalesce(jsonb_object_agg(s ->> 'name', nofx.approval_strictest(
                             case when s ->> 'handler' = 'manual' then s -> 'inputs' -> 'approval' else s -> 'approval' end, v_policy)), '{}')
                    from jsonb_array_elements(p_steps) s),
        'problems', coalesce(nofx.approval_problems(v_tenant, p_steps), '[]'));
end
$$;
revoke execute on function nofx.approval_count(jsonb), nofx.approval_seconds(jsonb), nofx.approval_role(jsonb),
    nofx.approval_strictest(jsonb, jsonb), nofx.approval_policy(text), nofx.approval_expiry(text, integer, timestamptz),
    nofx.approval_asked(nofx.step), nofx.approval_names(jsonb, nofx.membership), nofx.approval_problems(text, jsonb), nofx.approval_rules(jsonb) from public;
grant execute on function nofx.approval_rules(jsonb) to nofx_api;
