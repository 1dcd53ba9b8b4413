-- Finds the gates `budget` that passed a short while ago: what they promised is not given to others.
create index if not exists gate_budget_passed on nofx.gate (tenant_id, decided_at) where gate_type = 'budget' and status = 'passed';
