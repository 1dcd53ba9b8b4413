-- Finds the newest decisions of a tenant.

-- Shorter than deadlock_timeout: if a writer and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
create index if not exists approval_newest on nofx.approval (tenant_id, created_at desc, gate_id desc);
