-- A gate as the API shows it, to the principal p_who.
create or replace function nofx.gate_view(p_gate uuid, p_who jsonb) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return (
    select jsonb_build_object(
               'id', g.id, 'run_id', g.run_id, 'step_id', g.step_id, 'gate_type', g.gate_type, 'status', g.status,
               'on_pass', g.on_pass, 'generation', g.generation, 'subject', g.subject, 'evidence_uri', g.evidence_uri,
               'evidence_id', (select a.id from nofx.artifact a
                                where a.step_id = g.step_id and a.tenant_id = g.tenant_id and a.uri = g.evidence_uri
                                order by a.id limit 1),
               'reason', g.reason,
               'approved_by', g.approved_by, 'approved_at', g.approved_at, 'expires_at', g.expires_at,
               'created_at', g.created_at, 'decided_at', g.decided_at,
               'decision', (select jsonb_build_object('decision', a.decision, 'actor', a.actor, 'reason', a.reason,
                                                      'created_at', a.created_at)
                              from nofx.approval a where a.gate_id = g.id and a.decides),
               'digest', g.bound_digest, 'required', s.required, 'approved', s.approved, 'eligible', s.eligible, 'rule', s.rule, 'approvals', s.approvals,
               'may_decide', s.may_decide)
      from nofx.gate g
      left join lateral nofx.gate_stands(g, p_who) s on true
     where g.id = p_gate);
end
$$;
revoke execute on function nofx.gate_view(uuid, jsonb) from public;

-- What nofx.gate_decide of the release before calls; drop it in the next release.
create or replace function nofx.gate_json(p_gate uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$ select nofx.gate_view(p_gate, null) $$;
revoke execute on function nofx.gate_json(uuid) from public, nofx_api;
