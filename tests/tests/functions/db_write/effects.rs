//! Side effects of a write: cascades, triggers, views and partitions.

use nofx_tests::Lab;
use serde_json::{Value, json};

use super::{error_code, number, with_rule, write};

const FAMILY: &str = "create table public.parent (id int primary key, name text);
    create table public.child (id int primary key, parent_id int references public.parent on delete cascade on update cascade);
    create table public.grandchild (id int primary key, child_id int references public.child on delete set null);
    insert into public.parent select n, 'p' from generate_series(1, 3) n;
    insert into public.child select n, 1 from generate_series(1, 50) n;
    insert into public.grandchild select n, n from generate_series(1, 50) n";

#[tokio::test]
async fn cascaded_rows_are_counted_and_limited_by_the_rule() {
    let lab = Lab::new().await;
    let delete = json!({"table": "public.parent", "op": "delete", "where": {"id": 1}});
    let rule =
        |dependants: Value| json!({"columns": ["id", "name"], "key": ["id"], "max_rows": 1, "dependants": dependants});
    with_rule(&lab, FAMILY, "public.parent", rule(json!({}))).await;
    let set = async |dependants: Value| {
        lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&rule(dependants)]).await.unwrap();
    };
    let rejected = [
        json!({}),
        json!({"public.child": 50}),
        json!({"public.child": 49, "public.grandchild": 50}),
        json!({"public.child": 50, "public.grandchild": 49}),
    ];
    for dependants in rejected {
        set(dependants.clone()).await;
        let run = write(&lab, delete.clone()).await;
        assert_eq!(error_code(&lab, run).await, "cascade_not_allowed", "{dependants}");
        assert_eq!(number(&lab, "select count(*) from public.child").await, 50);
    }
    set(json!({})).await;
    let rename = json!({"table": "public.parent", "op": "update", "where": {"id": 1}, "set": {"name": "q"}});
    assert_eq!(lab.run_status(write(&lab, rename).await).await, "succeeded", "no key changes, so nothing cascades");
    let renumber = json!({"table": "public.parent", "op": "update", "where": {"id": 1}, "set": {"id": 9}});
    assert_eq!(error_code(&lab, write(&lab, renumber).await).await, "cascade_not_allowed");
    set(json!({"public.child": 50, "public.grandchild": 50})).await;
    assert_eq!(lab.run_status(write(&lab, delete).await).await, "succeeded");
    assert_eq!(number(&lab, "select count(*) from public.child").await, 0);
    assert_eq!(number(&lab, "select count(*) from public.grandchild where child_id is null").await, 50);
}

#[tokio::test]
async fn a_trigger_runs_only_with_the_definition_that_the_rule_pins() {
    let lab = Lab::new().await;
    let sql = "create table public.notes (id int primary key, body text);
        create table public.audit (body text);
        create function public.note() returns trigger language plpgsql as
            $$ begin insert into public.audit values (new.body); return new; end $$;
        create trigger note after insert on public.notes for each row execute function public.note()";
    let rule = |more: Value| {
        let mut rule = json!({"columns": ["id", "body"], "key": ["id"]});
        rule.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        rule
    };
    with_rule(&lab, sql, "public.notes", rule(json!({}))).await;
    let set = async |more: Value| {
        lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&rule(more)]).await.unwrap();
    };
    let insert = |id: i32| json!({"table": "public.notes", "op": "insert", "values": [{"id": id, "body": "x"}]});
    assert_eq!(error_code(&lab, write(&lab, insert(1)).await).await, "trigger_not_allowed");
    let target: Value =
        lab.admin.query_one("select nofx.db_write_target('public', 'notes')", &[]).await.unwrap().get(0);
    let pinned = target["triggers"].clone();
    assert!(pinned["public.notes.note"].is_string(), "{target}");
    set(json!({"triggers": pinned})).await;
    assert_eq!(
        error_code(&lab, write(&lab, insert(1)).await).await,
        "cascade_not_allowed",
        "the trigger writes to another table"
    );
    set(json!({"triggers": pinned, "dependants": {"public.audit": 1}})).await;
    assert_eq!(lab.run_status(write(&lab, insert(1)).await).await, "succeeded");
    let changed = "create or replace function public.note() returns trigger language plpgsql as
        $$ begin insert into public.audit values ('other'); return new; end $$";
    lab.admin.batch_execute(changed).await.unwrap();
    assert_eq!(error_code(&lab, write(&lab, insert(2)).await).await, "trigger_not_allowed");
    assert_eq!(number(&lab, "select count(*) from public.audit").await, 1);
}

#[tokio::test]
async fn a_trigger_that_drops_or_rewrites_a_row_fails_the_write() {
    let lab = Lab::new().await;
    let sql = "create table public.notes (id int primary key, body text);
        create function public.meddle() returns trigger language plpgsql as
            $$ begin if new.body = 'swallow' then return null; end if; new.body := 'rewritten'; return new; end $$;
        create trigger meddle before insert or update on public.notes for each row execute function public.meddle();
        create function public.spare() returns trigger language plpgsql as $$ begin return null; end $$;
        create trigger spare before delete on public.notes for each row execute function public.spare()";
    with_rule(&lab, sql, "public.notes", json!({})).await;
    let target: Value =
        lab.admin.query_one("select nofx.db_write_target('public', 'notes')", &[]).await.unwrap().get(0);
    let rule = json!({"columns": ["id", "body"], "key": ["id"], "triggers": target["triggers"]});
    lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&rule]).await.unwrap();
    let insert = |body: &str| json!({"table": "public.notes", "op": "insert", "values": [{"id": 1, "body": body}]});
    assert_eq!(error_code(&lab, write(&lab, insert("swallow")).await).await, "unexpected_rows");
    assert_eq!(error_code(&lab, write(&lab, insert("x")).await).await, "unexpected_effects");
    lab.admin.batch_execute("insert into public.notes values (1, 'x')").await.unwrap();
    let delete = json!({"table": "public.notes", "op": "delete", "where": {"id": 1}, "expected_rows": 1});
    assert_eq!(error_code(&lab, write(&lab, delete).await).await, "unexpected_rows");
    assert_eq!(number(&lab, "select count(*) from public.notes").await, 1);
}

#[tokio::test]
async fn a_trigger_cannot_write_tables_of_the_control_plane() {
    let lab = Lab::new().await;
    let sql = "create table public.notes (id int primary key);
        create function public.reach() returns trigger language plpgsql as $$ begin
            insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops) values ('acme', 'public.x', '{insert}');
            return new; end $$;
        create trigger reach before insert on public.notes for each row execute function public.reach()";
    with_rule(&lab, sql, "public.notes", json!({})).await;
    let target: Value =
        lab.admin.query_one("select nofx.db_write_target('public', 'notes')", &[]).await.unwrap().get(0);
    let set = "update nofx.db_write_rule set constraints = $1";
    let open = json!({"columns": ["id"], "triggers": target["triggers"], "dependants": {"nofx.db_write_rule": 9}});
    lab.admin.execute(set, &[&open]).await.expect_err("no rule opens that schema");
    let rule = json!({"columns": ["id"], "triggers": target["triggers"]});
    lab.admin.execute(set, &[&rule]).await.unwrap();
    let run = write(&lab, json!({"table": "public.notes", "op": "insert", "values": [{"id": 1}]})).await;
    assert_eq!(error_code(&lab, run).await, "not_permitted");
    assert_eq!(number(&lab, "select count(*) from nofx.db_write_rule").await, 1);
}

#[tokio::test]
async fn views_and_inherited_tables_need_an_allowance_and_never_lead_to_a_closed_schema() {
    let lab = Lab::new().await;
    let sql = "create table public.base (id int primary key, n int);
        create view public.shown with (security_invoker = true) as select * from public.base;
        create view public.inner_view as select tenant_id, table_name, allowed_ops, constraints from nofx.db_write_rule;
        create view public.leak as select * from public.inner_view;
        create table public.animal (id int);
        create table public.dog () inherits (public.animal)";
    with_rule(&lab, sql, "public.shown", json!({"columns": ["id", "n"], "key": ["id"]})).await;
    let insert = |table: &str, row: Value| json!({"table": table, "op": "insert", "values": [row]});
    let row = json!({"id": 1, "n": 1});
    assert_eq!(error_code(&lab, write(&lab, insert("public.shown", row.clone())).await).await, "target_not_allowed");
    let allowed = json!({"columns": ["id", "n"], "key": ["id"], "allow": ["view"], "dependants": {"public.base": 1}});
    lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&allowed]).await.unwrap();
    assert_eq!(lab.run_status(write(&lab, insert("public.shown", row)).await).await, "succeeded");
    assert_eq!(number(&lab, "select count(*) from public.base").await, 1);

    let leak = json!({"columns": ["tenant_id", "table_name", "allowed_ops", "constraints"], "allow": ["view"]});
    with_rule(&lab, "select 1", "public.leak", leak).await;
    let forged =
        json!({"tenant_id": "acme", "table_name": "public.base", "allowed_ops": ["delete"], "constraints": {}});
    assert_eq!(error_code(&lab, write(&lab, insert("public.leak", forged)).await).await, "target_not_allowed");
    with_rule(&lab, "select 1", "public.animal", json!({"columns": ["id"]})).await;
    let run = write(&lab, insert("public.animal", json!({"id": 1}))).await;
    assert_eq!(error_code(&lab, run).await, "target_not_allowed");
}

#[tokio::test]
async fn a_view_with_its_owners_rights_is_rejected() {
    let lab = Lab::new().await;
    let sql = "create table public.base (id int primary key); create view public.shown as select * from public.base";
    let rule = json!({"columns": ["id"], "allow": ["view"], "dependants": {"public.base": 1}});
    with_rule(&lab, sql, "public.shown", rule).await;
    let run = write(&lab, json!({"table": "public.shown", "op": "insert", "values": [{"id": 1}]})).await;
    assert_eq!(error_code(&lab, run).await, "target_not_allowed");
}

#[tokio::test]
async fn triggers_are_pinned_by_kind_and_on_dependants_too() {
    let lab = Lab::new().await;
    let sql = "create table public.c1 (id int primary key);
        create rule audit as on delete to public.c1 do instead nothing";
    with_rule(&lab, sql, "public.c1", json!({})).await;
    let pin = async |dependants: Value| {
        let names: Vec<String> = dependants.as_object().unwrap().keys().cloned().collect();
        let sql = "select nofx.db_write_target('public', 'c1', $1)";
        let target: Value = lab.admin.query_one(sql, &[&names]).await.unwrap().get(0);
        let rule = json!({"columns": ["id"], "triggers": target["triggers"], "dependants": dependants});
        lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&rule]).await.unwrap();
    };
    pin(json!({"public.c2": 9})).await;
    let evil = "create table public.c2 (id int);
        create function public.evil() returns trigger language plpgsql as
            $$ begin insert into public.c2 values (1); return new; end $$;
        create trigger audit before insert on public.c1 for each row execute function public.evil();
        grant all on public.c2 to nofx_writer";
    lab.admin.batch_execute(evil).await.unwrap();
    let insert = json!({"table": "public.c1", "op": "insert", "values": [{"id": 1}]});
    assert_eq!(error_code(&lab, write(&lab, insert.clone()).await).await, "trigger_not_allowed");
    // Pin the trigger, then add a trigger on the dependant that runs at commit.
    pin(json!({"public.c2": 9})).await;
    assert_eq!(lab.run_status(write(&lab, insert.clone()).await).await, "succeeded");
    lab.admin
        .batch_execute(
            "create function public.later() returns trigger language plpgsql as $$ begin return null; end $$;
             create constraint trigger later after insert on public.c2 deferrable initially deferred
                 for each row execute function public.later(); delete from public.c1",
        )
        .await
        .unwrap();
    assert_eq!(error_code(&lab, write(&lab, insert.clone()).await).await, "trigger_not_allowed");
    pin(json!({"public.c2": 9})).await;
    assert_eq!(
        error_code(&lab, write(&lab, insert).await).await,
        "trigger_not_allowed",
        "a deferrable trigger is never allowed"
    );
}

#[tokio::test]
async fn a_truncate_in_a_trigger_fails_the_write() {
    let lab = Lab::new().await;
    let sql = "create table public.notes (id int primary key); create table public.victim (id int);
        insert into public.victim values (1);
        create function public.wipe() returns trigger language plpgsql security definer as
            $$ begin truncate public.victim; return new; end $$;
        create trigger wipe before insert on public.notes for each row execute function public.wipe()";
    with_rule(&lab, sql, "public.notes", json!({})).await;
    let target: Value =
        lab.admin.query_one("select nofx.db_write_target('public', 'notes')", &[]).await.unwrap().get(0);
    let rule = json!({"columns": ["id"], "triggers": target["triggers"]});
    lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&rule]).await.unwrap();
    let run = write(&lab, json!({"table": "public.notes", "op": "insert", "values": [{"id": 1}]})).await;
    assert_eq!(error_code(&lab, run).await, "unexpected_effects");
    assert_eq!(number(&lab, "select count(*) from public.victim").await, 1);
}

#[tokio::test]
async fn a_function_of_the_table_can_neither_change_the_role_nor_affect_the_next_write() {
    let mut lab = Lab::new().await;
    // Use one connection for all writes and one to record, so that a setting of one write could affect the next.
    lab.ctx.config.database.pool_size = 2;
    lab.ctx = lab.another_ctx().await;
    let sql = "create function public.escape(int) returns boolean language plpgsql as $$ begin
            perform set_config('role', 'none', true);
            perform set_config('default_transaction_read_only', 'on', false);
            perform pg_advisory_lock(77);
            return true; end $$;
        create domain public.dm as int;
        create table public.held (id public.dm primary key, x int);
        insert into public.held values (1, 1);
        alter domain public.dm add constraint escapes check (public.escape(value)) not valid";
    with_rule(&lab, sql, "public.held", json!({"columns": ["x"], "key": ["id"]})).await;
    lab.admin.batch_execute("revoke update on public.held from nofx_writer").await.unwrap();
    let update = json!({"table": "public.held", "op": "update", "where": {"id": 1}, "set": {"x": 666}});
    assert_eq!(error_code(&lab, write(&lab, update).await).await, "not_permitted");
    assert_eq!(number(&lab, "select x::bigint from public.held").await, 1);
    with_rule(&lab, "create table public.next (id int primary key)", "public.next", json!({"columns": ["id"]})).await;
    for id in 1..4 {
        let run = write(&lab, json!({"table": "public.next", "op": "insert", "values": [{"id": id}]})).await;
        assert_eq!(lab.run_status(run).await, "succeeded", "the connection keeps no state of the previous write");
    }
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and pid <> pg_backend_pid()";
    assert_eq!(number(&lab, locks).await, 0);
}

#[tokio::test]
async fn cascades_within_a_table_are_limited_by_the_rule() {
    let lab = Lab::new().await;
    let sql = "create table public.tree (id int primary key, up int references public.tree on delete cascade);
        insert into public.tree values (1, null), (2, 1), (3, 1)";
    with_rule(&lab, sql, "public.tree", json!({"key": ["id"], "dependants": {"public.tree": 1}})).await;
    let delete = json!({"table": "public.tree", "op": "delete", "where": {"id": 1}});
    assert_eq!(error_code(&lab, write(&lab, delete.clone()).await).await, "unexpected_effects");
    let more =
        "update nofx.db_write_rule set constraints = '{\"key\": [\"id\"], \"dependants\": {\"public.tree\": 2}}'";
    lab.admin.batch_execute(more).await.unwrap();
    assert_eq!(lab.run_status(write(&lab, delete).await).await, "succeeded");
}

#[tokio::test]
async fn a_partitioned_table_counts_as_one_table() {
    let lab = Lab::new().await;
    let sql = "create table public.parts (id int primary key, n int) partition by range (id);
        create table public.low partition of public.parts for values from (0) to (10);
        create table public.high partition of public.parts for values from (10) to (20)";
    with_rule(&lab, sql, "public.parts", json!({"columns": ["id", "n"], "key": ["id"]})).await;
    let insert = json!({"table": "public.parts", "op": "insert", "values": [{"id": 1, "n": 1}, {"id": 11, "n": 1}]});
    assert_eq!(lab.run_status(write(&lab, insert).await).await, "succeeded");
    let moved =
        json!({"table": "public.parts", "op": "update", "where": {"id": 1}, "set": {"id": 12}, "expected_rows": 1});
    assert_eq!(lab.run_status(write(&lab, moved).await).await, "succeeded");
    assert_eq!(number(&lab, "select count(*) from public.high").await, 2);
}
