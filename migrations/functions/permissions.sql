-- Who may do what. A caller needs at least the role of a permission, and one of its kinds. This is the only table of permissions. Routes name a
-- permission, and docs/security.md lists the table for people.
-- Every request asks. So the functions in SQL set no search path, which lets Postgres inline them, and a session plans nofx.permits once.

-- Each permission with the least role and the kinds of principals that may have it. Agents never decide gates, and never change a policy,
-- rules, members or tokens, whatever their role is.
create or replace function nofx.permission_list()
    returns table (permission text, role text, kinds text[])
    language sql immutable
as $$
    values
        ('account.read',      'viewer',   array['person', 'agent', 'service']),
        ('runs.read',         'viewer',   array['person', 'agent', 'service']),
        ('artifacts.read',    'viewer',   array['person', 'agent', 'service']),
        ('plans.check',       'viewer',   array['person', 'agent', 'service']),
        ('policy.read',       'viewer',   array['person', 'agent', 'service']),
        ('rules.read',        'viewer',   array['person', 'agent', 'service']),
        ('usage.read',        'viewer',   array['person', 'agent', 'service']),
        ('sessions.create',   'viewer',   array['person']),
        ('runs.create',       'operator', array['person', 'agent', 'service']),
        ('runs.control',      'operator', array['person', 'agent', 'service']),
        ('workspaces.create', 'operator', array['person', 'agent', 'service']),
        ('gates.create',      'operator', array['person', 'agent', 'service']),
        ('gates.link',        'operator', array['person', 'service']),
        ('queues.read',       'operator', array['person', 'service']),
        ('queues.redrive',    'operator', array['person', 'service']),
        ('artifacts.restore', 'operator', array['person', 'agent', 'service']),
        ('gates.decide',      'approver', array['person']),
        ('gates.waive',       'admin',    array['person']),
        ('policy.write',      'admin',    array['person', 'service']),
        ('rules.write',       'admin',    array['person', 'service']),
        ('artifacts.delete',  'admin',    array['person', 'service']),
        ('members.read',      'admin',    array['person', 'service']),
        ('tokens.read',       'admin',    array['person', 'service']),
        ('audit.read',        'admin',    array['person', 'service']),
        ('members.write',     'admin',    array['person']),
        ('tokens.write',      'admin',    array['person'])
$$;

-- 1 viewer, 2 operator, 3 approver, 4 admin. Null for anything else, and then nothing is permitted.
create or replace function nofx.role_rank(p_role text) returns integer
    language sql immutable
as $$
    select array_position(array['viewer', 'operator', 'approver', 'admin'], p_role)
$$;

-- Whether a principal of this role and kind has the permission. False for unknown words and for null.
create or replace function nofx.permits(p_permission text, p_role text, p_kind text) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return coalesce((select nofx.role_rank(p_role) >= nofx.role_rank(l.role) and p_kind = any (l.kinds)
                       from nofx.permission_list() l
                      where l.permission = p_permission), false);
end
$$;
-- Whether a permission is about members, tokens and sessions.
create or replace function nofx.is_of_access(p_permission text) returns boolean
    language sql immutable
as $$
    select split_part(p_permission, '.', 1) in ('members', 'tokens', 'sessions')
$$;
revoke execute on function nofx.permission_list(), nofx.role_rank(text), nofx.permits(text, text, text), nofx.is_of_access(text) from public;
