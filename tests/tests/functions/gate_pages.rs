//! What pages say about gates: which one waits longest, whose time is over, and how little is read when there are many.

use nofx_tests::lab::session;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::console::{Focus, Selection, inbox_list, run_fetch};
use shared::domain::RunId;
use uuid::Uuid;

use crate::gateway::{Gateway, Shape};

async fn page(lab: &Lab, path: &str) -> String {
    let answer = Gateway::console(lab, Shape::Http).get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body.as_str().expect("a page").to_owned()
}

/// What a page says first: what happens next.
fn band(page: &str) -> &str {
    let (_, band) = page.split_once("aria-label=\"What happens next\"").expect("a band");
    band.split("</section>").next().expect("its end")
}

/// A run whose end waits for gates with these types.
async fn waiting(lab: &Lab, gates: &[&str]) -> (RunId, Vec<Uuid>) {
    let run = lab.submit(&plans::wide(100)).await;
    let approvals = Gateway::approvals(lab, Shape::Http);
    let mut ids = Vec::new();
    for gate_type in gates {
        let gate = approvals.post("/gates", &json!({"run_id": run, "gate_type": gate_type})).await;
        assert_eq!(gate.status, 201, "{gate:?}");
        ids.push(gate.body["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"));
    }
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "blocked");
    (run, ids)
}

/// Makes `count` more gates of a run after those that it has. Each names an artifact that no step of the gate has stored.
async fn more_gates(lab: &Lab, run: RunId, count: i64) {
    let sql = "insert into nofx.gate (id, tenant_id, run_id, gate_type, status, on_pass, generation, evidence_uri, created_at)
               select gen_random_uuid(), r.tenant_id, r.id, 'later', 'pending', 'release', r.generation, 's3://b/' || n,
                      clock_timestamp() + n * interval '1 ms'
                 from nofx.run r, generate_series(1, $2::bigint) n where r.id = $1";
    lab.admin.execute(sql, &[&run.0, &count]).await.unwrap();
}

#[tokio::test]
async fn the_gate_that_waits_longest_is_named_whatever_the_address_names() {
    let lab = Lab::new().await;
    let (run, ids) = waiting(&lab, &["first", "second"]).await;
    more_gates(&lab, run, 98).await;
    let shown = page(&lab, &format!("/ui/runs/{run}?gate={}", ids[1])).await;
    let (named, first) = (format!("id=\"gate-{}\"", ids[1]), format!("id=\"gate-{}\"", ids[0]));
    assert!(shown.find(&named).unwrap() < shown.find(&first).unwrap(), "the list starts with the gate of the address");
    let band = band(&shown);
    assert!(band.contains(" for 100 decisions"), "the page lists 50 of them: {band}");
    assert!(band.contains(&format!("href=\"../gates/{}\"", ids[0])), "the oldest comes first: {band}");
}

#[tokio::test]
async fn a_gate_whose_time_is_over_asks_nobody_before_the_sweep_ends_it() {
    let lab = Lab::new().await;
    let (run, ids) = waiting(&lab, &["legal"]).await;
    let sql = "update nofx.gate set expires_at = now() - interval '1 second'";
    lab.admin.execute(sql, &[]).await.unwrap();
    let shown = page(&lab, &format!("/ui/runs/{run}")).await;
    let said = band(&shown);
    assert!(said.contains("The time for a decision about ") && !said.contains("Review and decide"), "{said}");
    let shown = page(&lab, &format!("/ui/gates/{}", ids[0])).await;
    assert!(shown.contains("Nobody decided in time") && !shown.contains("method=\"post\""), "{shown}");
}

#[tokio::test]
async fn a_rejection_says_that_it_cancels_the_other_gates_and_does() {
    let lab = Lab::new().await;
    let (run, ids) = waiting(&lab, &["legal", "tax", "press"]).await;
    let shown = page(&lab, &format!("/ui/gates/{}", ids[0])).await;
    let (_, effect) = shown.split_once("id=\"o-reject\">").expect("an effect");
    let effect = effect.split("</dd>").next().unwrap();
    assert!(effect.contains("2 other gates of the run are cancelled"), "{effect}");
    let approvals = Gateway::approvals(&lab, Shape::Http);
    let decided = approvals.post(&format!("/gates/{}/reject", ids[0]), &json!({"reason": "no"})).await;
    assert_eq!(decided.status, 200, "{decided:?}");
    let gates = Gateway::api(&lab, Shape::Http).get(&format!("/runs/{run}/gates")).await.body;
    let statuses: Vec<&Value> = gates.as_array().unwrap().iter().map(|gate| &gate["status"]).collect();
    assert_eq!(statuses, ["failed", "cancelled", "cancelled"]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_text_that_is_cut_says_so() {
    let lab = Lab::new().await;
    let goal = |length: usize| format!("{}end", "g".repeat(length - 3));
    let mut plan = plans::approval(600);
    plan["goal"] = json!(goal(300));
    lab.submit(&plan).await;
    plan["goal"] = json!(goal(301));
    lab.submit(&plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    for path in ["/ui/runs", "/ui/inbox"] {
        let shown = page(&lab, path).await;
        let cut = format!("{}en…", "g".repeat(298));
        assert!(shown.contains(&goal(300)) && shown.contains(&cut) && !shown.contains(&goal(301)), "{path}: {shown}");
    }
}

/// Rows of artifacts that may be read for the page of a run with 3,000 artifacts: all of them for each of 50 gates. For 1,000
/// gates it would be 3,000,000.
const MOST_ROWS: i64 = 160_000;

#[tokio::test]
async fn only_the_gates_of_a_page_look_for_their_evidence() {
    let lab = Lab::new().await;
    let (run, _) = waiting(&lab, &["legal"]).await;
    more_gates(&lab, run, 1_000).await;
    let sql = "insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes, media_type)
               select gen_random_uuid(), s.tenant_id, s.run_id, s.id, 1, 'a', 'text', 's3://b/' || n, repeat('a', 64), 1, 'text/plain'
                 from generate_series(1, 3000) n join nofx.step s on s.run_id = $1 and s.ordinal = n % 100";
    lab.admin.execute(sql, &[&run.0]).await.unwrap();
    lab.admin
        .batch_execute("analyze nofx.artifact; analyze nofx.gate; select pg_stat_force_next_flush()")
        .await
        .unwrap();
    let table = "from pg_stat_user_tables where relid = 'nofx.artifact'::regclass";
    let read = async || -> i64 {
        lab.admin.query_one(&format!("select seq_tup_read + idx_tup_fetch {table}"), &[]).await.unwrap().get(0)
    };
    let scans = format!("select seq_scan + idx_scan {table}");
    for of_run in [true, false] {
        let (before, scanned): (_, i64) = (read().await, lab.admin.query_one(&scans, &[]).await.unwrap().get(0));
        let ctx = lab.another_ctx().await;
        if of_run {
            let found = run_fetch(&session(&ctx.db, &lab.tenant), run, Focus::default(), &Selection::default()).await;
            let found = found.expect("read").expect("a run");
            assert_eq!((found.gates.len(), found.gates_total, found.gates_open), (50, 1_001, 1_001));
            assert!(found.gates[1].evidence_id.is_some(), "any artifact of the run can be evidence");
        } else {
            assert_eq!(
                inbox_list(&session(&ctx.db, &lab.tenant), None, true, None).await.expect("an inbox").gates.len(),
                50
            );
        }
        // A connection reports what it did when it ends.
        drop(ctx);
        let reported = format!("select seq_scan + idx_scan > {scanned} {table}");
        lab.until("the statistics of the reads", &reported).await;
        let rows = read().await - before;
        assert!(rows < MOST_ROWS, "{rows} rows of artifacts were read, of the run: {of_run}");
    }
}

/// A plan whose write is one step behind the question, and another write behind another question.
fn hidden_write() -> Value {
    let after = |name: &str, tool: &str, parent: &str, inputs: Value| json!({"name": name, "tool": tool, "inputs": inputs, "depends_on": [parent]});
    let update = |table: &str| json!({"table": table, "op": "update", "where": {"id": 1}, "set": {"price": 0}});
    json!({"goal": "notes", "steps": [
        {"name": "ask", "tool": "manual:notes", "inputs": {"reason": "Publish the notes? (only text)"}},
        after("log", "echo", "ask", json!({})),
        after("w", "db_write", "log", update("public.products")),
        after("draft", "codegen", "w", json!({"prompt": "p"})),
        after("ask-again", "manual:money", "log", json!({"reason": "And the money?"})),
        after("pay", "db_write", "ask-again", update("public.money")),
    ]})
}

#[tokio::test]
async fn a_write_further_down_is_told_before_the_decision() {
    let lab = Lab::new().await;
    let run = lab.submit(&hidden_write()).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gate: Uuid =
        lab.admin.query_one("select id from nofx.gate where status = 'pending'", &[]).await.unwrap().get(0);
    let shown = page(&lab, &format!("/ui/gates/{gate}")).await;
    let (_, later) = shown.split_once("Later, without another question</h3>").expect("what follows later");
    let (later, _) = later.split_once("</section>").expect("its end");
    assert!(later.contains("changes rows of <code><bdi>public.products</bdi></code>"), "{later}");
    assert!(later.contains("price") && later.contains("no rule lets plans write this table"), "{later}");
    assert!(later.contains("<b><bdi>draft</bdi></b>"), "it asks a model: {later}");
    assert!(!shown.contains("public.money"), "another question is before that: {shown}");
    let (_, effect) = shown.split_once("id=\"o-approve\">").expect("an effect");
    let effect = effect.split("</dd>").next().unwrap();
    assert!(effect.contains("<b><bdi>log</bdi></b> starts."), "{effect}");
    assert!(
        effect.contains(
            "Later, without another question: <b><bdi>w</bdi></b> changes rows of <code><bdi>public.products</bdi></code>"
        ) && effect.contains("1 step asks a model"),
        "{effect}"
    );
    let inbox = page(&lab, "/ui/inbox").await;
    assert!(inbox.contains("1 other write to a table, 1 question to a model"), "{inbox}");
    let next = page(&lab, &format!("/ui/runs/{run}")).await;
    assert!(band(&next).contains("writes to the database") && band(&next).contains("asks a model"), "{}", band(&next));
}

#[tokio::test]
async fn what_two_people_decide_is_on_the_pages_of_both() {
    let lab = Lab::new().await;
    let mut plan = hidden_write();
    plan["steps"][4]["depends_on"] = json!([]);
    plan["steps"][5]["depends_on"] = json!(["ask-again", "log"]);
    lab.submit(&plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gates = lab.admin.query("select id from nofx.gate where status = 'pending'", &[]).await.unwrap();
    assert_eq!(gates.len(), 2);
    for gate in gates {
        let shown = page(&lab, &format!("/ui/gates/{}", gate.get::<_, Uuid>(0))).await;
        assert!(shown.contains("<code><bdi>public.money</bdi></code>"), "{shown}");
    }
}

/// Many writes of one kind do not push another kind off the page, whether they follow at once or later.
#[tokio::test]
async fn each_kind_of_write_is_listed_before_repeats() {
    for parent in ["ask", "log"] {
        let lab = Lab::new().await;
        let mut steps = vec![json!({"name": "ask", "tool": "manual:notes", "inputs": {}})];
        steps.push(plans::after("log", &["ask"], json!({})));
        let mut write = |name: String, inputs: Value| {
            steps.push(json!({"name": name, "tool": "db_write", "inputs": inputs, "depends_on": [parent]}));
        };
        for n in 0..30 {
            write(format!("w{n}"), json!({"table": "public.products", "op": "insert", "values": [{"name": "a"}]}));
        }
        write(
            "last".into(),
            json!({"table": "public.products", "op": "update", "where": {"id": 1}, "set": {"price": 0}}),
        );
        lab.submit(&json!({"goal": "decoys", "steps": steps})).await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let gate: Uuid =
            lab.admin.query_one("select id from nofx.gate where status = 'pending'", &[]).await.unwrap().get(0);
        let shown = page(&lab, &format!("/ui/gates/{gate}")).await;
        assert!(shown.contains("changes rows of <code><bdi>public.products</bdi></code>"), "behind {parent}: {shown}");
        let (_, effect) = shown.split_once("id=\"o-approve\">").expect("an effect");
        assert!(effect.split("</dd>").next().unwrap().contains("<bdi>last</bdi>"), "behind {parent}: {effect}");
    }
}

/// A decision before a chain of echo steps, with so many writes at its end that a page cannot list them.
#[tokio::test]
async fn writes_that_are_not_listed_are_counted() {
    let lab = Lab::new().await;
    let mut steps = vec![json!({"name": "ask", "tool": "manual:notes", "inputs": {}})];
    for n in 0..60 {
        steps.push(plans::after(&format!("e{n}"), &["ask"], json!({})));
    }
    for n in 0..30 {
        let table = if n == 29 { "public.money" } else { "public.products" };
        let inputs = json!({"table": table, "op": "delete", "where": {"id": n}});
        steps.push(json!({"name": format!("w{n}"), "tool": "db_write", "inputs": inputs, "depends_on": ["e0"]}));
    }
    lab.submit(&json!({"goal": "many", "steps": steps})).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gate: Uuid =
        lab.admin.query_one("select id from nofx.gate where status = 'pending'", &[]).await.unwrap().get(0);
    let shown = page(&lab, &format!("/ui/gates/{gate}")).await;
    assert!(shown.contains("And 40 more steps: 40 steps without effects beyond the run."), "{shown}");
    assert!(shown.contains("And 10 more steps: 10 steps write to tables."), "{shown}");
    assert!(shown.contains("deletes rows of <code><bdi>public.money</bdi></code>"), "each table is listed: {shown}");
    assert!(shown.contains("27 steps write to tables"), "the form names three of them: {shown}");
    let inbox = page(&lab, "/ui/inbox").await;
    assert!(inbox.contains("30 other writes to tables") && !inbox.contains("steps after it"), "{inbox}");
    // A list reads only some of the steps, and says so.
    let mut steps = vec![json!({"name": "ask", "tool": "manual:long", "inputs": {}})];
    steps.extend((0..201).map(|n| plans::after(&format!("e{n}"), &["ask"], json!({}))));
    lab.submit(&json!({"goal": "long", "steps": steps})).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let inbox = page(&lab, "/ui/inbox?type=manual:long").await;
    assert!(inbox.contains("more than 200 steps after it") && !inbox.contains("only the question"), "{inbox}");
}

#[tokio::test]
async fn every_type_of_gate_has_its_number_in_the_inbox() {
    let lab = Lab::new().await;
    let (run, _) = waiting(&lab, &["legal"]).await;
    more_gates(&lab, run, 1_200).await;
    let sql = "update nofx.gate set gate_type = 'newest' where id in (select id from nofx.gate order by created_at desc limit 90)";
    lab.admin.execute(sql, &[]).await.unwrap();
    let inbox = page(&lab, "/ui/inbox").await;
    for (words, count) in [("Later", "1,110"), ("Newest", "90"), ("Legal", "1")] {
        let chip = format!("<bdi>{words}</bdi> <span class=\"note\">{count}</span>");
        assert!(inbox.contains(&chip), "{chip}: {inbox}");
    }
    let sql = "update nofx.gate set gate_type = 'type-' || right(id::text, 1)";
    lab.admin.execute(sql, &[]).await.unwrap();
    assert!(page(&lab, "/ui/inbox").await.contains("and 6 more types"));
    let sql = "update nofx.gate set gate_type = 'later'";
    lab.admin.execute(sql, &[]).await.unwrap();
    more_gates(&lab, run, 9_000).await;
    let inbox = page(&lab, "/ui/inbox").await;
    assert!(inbox.contains("<span class=\"note\">10,000+</span>"), "{inbox}");
}

#[tokio::test]
async fn a_decision_of_an_older_session_is_not_recorded_and_its_text_is_kept() {
    let lab = Lab::new().await;
    let (_, gates) = waiting(&lab, &["manual:release"]).await;
    let gate = gates[0];
    let console = Gateway::console(&lab, Shape::Http);
    let token = "0123456789abcdef0123456789abcdef";
    let cookie = format!("nofx-csrf={token}");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let send = async |verb: &str, site: &str, actor: &str, token: &str| {
        let headers = [form, ("sec-fetch-site", site), ("cookie", cookie.as_str())];
        let body = format!("actor={actor}&reason=Prices+of+%3C2025%3E.&csrf={token}");
        let answer = console.send("POST", &format!("/ui/gates/{gate}/{verb}"), &headers, Some(body)).await;
        (answer.status, answer.body.as_str().unwrap_or_default().to_owned())
    };
    let (status, shown) = send("reject", "same-origin", "ada", "").await;
    assert_eq!(status, 403, "{shown}");
    for words in
        ["Nothing was decided.", "Prices of &lt;2025&gt;.</textarea>", "value=\"ada\"", "name=\"csrf\" value=\""]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // What another site sent is not shown, and the answer does not say what the gate is about.
    let (status, shown) = send("reject", "cross-site", "ada", token).await;
    assert!(status == 403 && !shown.contains("Prices of") && !shown.contains("release"), "{shown}");
    let status_of = async || lab.text("select status from nofx.gate where id = $1", gate).await;
    assert_eq!(status_of().await, "pending");

    assert_eq!(send("approve", "same-origin", "ada", token).await.0, 303);
    let (status, shown) = send("approve", "same-origin", "ada", token).await;
    assert!(status == 409 && shown.contains("Your decision is recorded already"), "{shown}");
    let (status, shown) = send("reject", "same-origin", "ada", token).await;
    assert!(status == 409 && shown.contains("You have decided already"), "{shown}");
    let (status, shown) = send("approve", "same-origin", "ben", token).await;
    assert!(status == 409 && shown.contains("Your decision came too late"), "{shown}");
    assert_eq!(status_of().await, "passed");
    lab.assert_invariants().await;
}
