-- A transition collects what it did as nofx.change[]; nofx.runs_settle turns that into counters, states and events. These
-- constructors are plain SQL without settings of their own: the planner inlines them, so they cost nothing.

-- A step changes its state. With no event, the timeline does not show it.
create or replace function nofx.step_change(
    p_run_id uuid, p_step_id uuid, p_from text, p_to text, p_event text, p_payload jsonb default null
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, p_from, p_to, p_event, p_payload, 0)::nofx.change
$$;

-- An event that changes no state: of a step, or of the run (p_step_id null).
create or replace function nofx.fact(p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb default null)
    returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload, 0)::nofx.change
$$;

-- A gate becomes pending (p_pending 1) or is no longer pending (-1). Only gates of the run itself are counted in its row.
create or replace function nofx.gate_change(
    p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb, p_pending integer
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload,
               case when p_step_id is null then p_pending else 0 end)::nofx.change
$$;

-- The field of a gate's event that says what the gate is about. Nothing without a subject.
create or replace function nofx.subject_of(p_subject jsonb) returns jsonb
    language sql immutable
as $$
    select case when p_subject is null then '{}' else jsonb_build_object('subject', p_subject) end
$$;

-- The payload of a gate's event `gate.created`.
create or replace function nofx.gate_asked(p_gate uuid, p_type text, p_rule jsonb, p_digest text) returns jsonb
    language sql immutable
as $$
    select jsonb_strip_nulls(jsonb_build_object('gate_id', p_gate, 'gate_type', p_type, 'required', p_rule -> 'required',
                                                'digest', p_digest))
$$;

-- The authors of a run with one more, who may be one of them already.
create or replace function nofx.authors_with(p_authors jsonb, p_author jsonb) returns jsonb
    language sql immutable
as $$
    select case when p_authors @> jsonb_build_array(p_author) then p_authors
                else coalesce(p_authors, '[]') || jsonb_build_array(p_author) end
$$;

-- The steps that became ready.
create or replace function nofx.made_ready(p_changes nofx.change[]) returns uuid[]
    language sql immutable
as $$
    select array(select c.step_id from unnest(p_changes) c where c.to_status = 'ready')
$$;
revoke execute on function nofx.step_change(uuid, uuid, text, text, text, jsonb), nofx.fact(uuid, uuid, text, jsonb),
    nofx.gate_change(uuid, uuid, text, jsonb, integer), nofx.subject_of(jsonb), nofx.made_ready(nofx.change[]),
    nofx.gate_asked(uuid, text, jsonb, text), nofx.authors_with(jsonb, jsonb) from public;
