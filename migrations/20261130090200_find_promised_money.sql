-- Finds the gates `budget` that passed a short while ago, because what they promised is not given to others, and those that wait for requests in
-- flight. A gate that nobody may approve does not expire.
create index if not exists gate_budget_passed on nofx.gate (tenant_id, decided_at) where gate_type = 'budget' and status = 'passed';
create index if not exists gate_budget_passed_run on nofx.gate (run_id, decided_at) where gate_type = 'budget' and status = 'passed';
create index if not exists gate_in_flight on nofx.gate (tenant_id, created_at, id)
    where status = 'pending' and gate_type = 'budget' and subject ->> 'waits_for' = 'reserved';
update nofx.gate set expires_at = null
 where status = 'pending' and gate_type = 'budget' and subject ->> 'scope' <> 'run' and expires_at is not null;
