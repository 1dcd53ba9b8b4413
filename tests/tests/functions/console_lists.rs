//! The console's list of runs and its inbox: filters, numbers, pages, tenants apart.

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::{Outcome, RunId, StepError};

use crate::gateway::{Gateway, Shape};

/// A console that counts its round trips.
struct Console {
    gateway: Gateway,
}

impl Console {
    fn new(lab: &Lab) -> Self {
        Self { gateway: Gateway::console(lab, Shape::Http) }
    }

    /// A page, which takes one round trip.
    async fn page(&self, lab: &Lab, path: &str) -> String {
        let before = lab.ctx.db.round_trips();
        let answer = self.gateway.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(lab.ctx.db.round_trips() - before, 1, "{path}");
        answer.body.as_str().expect("a page").to_owned()
    }
}

/// The texts of the links to runs or gates, in the order of the page.
fn rows(page: &str) -> Vec<String> {
    let links = page.split("class=\"main\"").skip(1);
    links.map(|link| between(link, "<bdi>", "</bdi>").expect("a text").to_owned()).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(inner, _)| inner)
}

/// The numbers of the chips, in their order.
fn numbers(page: &str) -> Vec<String> {
    let starts = ["<nav class=\"chips\"", "aria-label=\"Gates by type\"", "<nav class=\"filters chips\""];
    let chips = starts.iter().find_map(|start| between(page, start, "</nav>"));
    let notes = chips.expect("chips").split("<span class=\"note\">").skip(1);
    notes.map(|note| note.split('<').next().unwrap_or_default().to_owned()).collect()
}

/// The address of the link with this text.
fn link(page: &str, words: &str) -> Option<String> {
    let (before, _) = page.split_once(&format!(">{words}</a>"))?;
    let (_, link) = before.rsplit_once("href=\"")?;
    Some(format!("/ui/{}", link.split('"').next()?.replace("&amp;", "&")))
}

fn plan(goal: &str, tools: &[&str]) -> Value {
    let step = |(index, tool): (usize, &&str)| plans::step(&format!("s{index}"), tool, json!({}));
    json!({"goal": goal, "steps": tools.iter().enumerate().map(step).collect::<Vec<_>>()})
}

/// Fails the steps with the tool `gate:unit`, and behaves as deployed otherwise.
fn failing_gate() -> Script {
    Script::overriding(|step, _| async move {
        (step.tool == "gate:unit").then(|| Outcome::failed(StepError::new("gate_failed", "2 tests failed")))
    })
}

#[tokio::test]
async fn the_list_of_runs_filters_counts_and_says_where_runs_stand() {
    let lab = Lab::new().await;
    let console = Console::new(&lab);
    lab.submit(&plan("first", &["echo", "echo"])).await;
    lab.submit(&plan("broken <b>", &["echo", "gate:unit", "echo"])).await;
    lab.submit(&plan("release of May", &["echo", "manual:release"])).await;
    lab.settle(&failing_gate(), Deliver::Once).await;
    lab.submit(&plan("waits in the queue", &["manual:release"])).await;

    let all = console.page(&lab, "/ui/runs").await;
    assert_eq!(rows(&all), ["waits in the queue", "release of May", "broken &lt;b&gt;", "first"]);
    assert_eq!(numbers(&all), ["4", "2", "1", "1", "1", "0"], "all, open, waiting, failed, succeeded, cancelled");
    for words in ["waits at <bdi>s1</bdi>", "failed at <bdi>s1</bdi>", "2 steps: 2 succeeded", "1 of 2"] {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert!(all.contains("<span class=\"count due\">1<"), "the navigation counts pending gates");
    for (query, expected) in [
        ("status=open", &["waits in the queue", "release of May"][..]),
        ("status=blocked", &["release of May"]),
        ("status=failed", &["broken &lt;b&gt;"]),
        ("status=queued", &["waits in the queue"]),
        ("goal=RELEASE", &["release of May"]),
        ("tool=manual:release", &["waits in the queue", "release of May"]),
        ("tool=manual:release&status=blocked&goal=may&since=1h", &["release of May"]),
        ("goal=&tool=&since=&status=", &["waits in the queue", "release of May", "broken &lt;b&gt;", "first"]),
    ] {
        assert_eq!(rows(&console.page(&lab, &format!("/ui/runs?{query}")).await), expected, "{query}");
    }
    // The numbers follow the other filters, and not the state.
    let searched = console.page(&lab, "/ui/runs?tool=echo&status=failed").await;
    assert_eq!(numbers(&searched), ["3", "1", "1", "1", "1", "0"]);
    let none = console.page(&lab, "/ui/runs?goal=nothing&status=failed").await;
    assert!(none.contains("No run matches") && rows(&none).is_empty());

    let sql = "update nofx.run set created_at = created_at - interval '2 days' where goal = 'first'";
    lab.admin.execute(sql, &[]).await.unwrap();
    assert_eq!(rows(&console.page(&lab, "/ui/runs?since=24h").await).len(), 3);
    assert_eq!(numbers(&console.page(&lab, "/ui/runs?since=24h").await)[0], "3");
}

#[tokio::test]
async fn a_run_whose_gate_expired_says_so() {
    let lab = Lab::new().await;
    let run = lab.submit(&plan("decided too late", &["echo"])).await;
    let body = json!({"run_id": run, "gate_type": "legal", "expires_after_s": 1});
    let approvals = Gateway::approvals(&lab, Shape::Http);
    assert_eq!(approvals.post("/gates", &body).await.status, 201);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let page = Console::new(&lab).page(&lab, "/ui/runs").await;
    assert!(page.contains("waits at <bdi>legal</bdi>"), "a gate of the run itself: {page}");
    lab.admin.execute("update nofx.gate set expires_at = now() - interval '1 s'", &[]).await.unwrap();
    shared::flow::sweep::sweep(&lab.ctx).await.expect("swept");
    let page = Console::new(&lab).page(&lab, "/ui/runs").await;
    assert!(page.contains("<bdi>the gate legal of the run expired</bdi>"), "{page}");
}

/// Inserts copies of a run, each a second older than the one before.
async fn copies(lab: &Lab, run: RunId, count: i32, status: &str) {
    let sql = "insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, created_at, cancelled_at,
                                     finished_at)
               select gen_random_uuid(), r.tenant_id, $3, 'copy ' || n, r.plan, r.plan_digest, r.request_digest,
                      r.created_at - n * interval '1 s', r.created_at, r.created_at
                 from nofx.run r, generate_series(1, $2) n where r.id = $1";
    lab.admin.execute(sql, &[&run.0, &count, &status]).await.unwrap();
}

#[tokio::test]
async fn pages_of_runs_reach_every_run_once() {
    let lab = Lab::new().await;
    let console = Console::new(&lab);
    let run = lab.submit(&plan("the newest", &["echo"])).await;
    copies(&lab, run, 1_100, "cancelled").await;
    let first = console.page(&lab, "/ui/runs").await;
    assert_eq!(numbers(&first), ["1,000+", "1", "0", "0", "0", "1,000+"]);
    assert!(first.contains("50 of 1,000+ runs"));

    for query in ["", "?status=cancelled", "?goal=copy"] {
        let expected = if query.is_empty() { 1_101 } else { 1_100 };
        let (mut seen, mut next) = (Vec::new(), Some(format!("/ui/runs{query}")));
        while let Some(path) = next {
            let page = console.page(&lab, &path).await;
            seen.extend(rows(&page));
            next = link(&page, "Older runs");
        }
        let total = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((total, seen.len()), (expected, expected), "{query}");
    }
}

#[tokio::test]
async fn a_search_that_ends_before_the_oldest_run_says_so_and_goes_on() {
    let lab = Lab::new().await;
    let console = Console::new(&lab);
    let run = lab.submit(&plan("the newest", &["echo"])).await;
    copies(&lab, run, 600, "cancelled").await;
    // Steps are searched in 500 runs at a time.
    let first = console.page(&lab, "/ui/runs?tool=db_write").await;
    assert!(first.contains("No run matches so far") && rows(&first).is_empty(), "{first}");
    assert_eq!(numbers(&first)[0], "0+");
    let older = link(&first, "Older runs").expect("a link");
    let last = console.page(&lab, &older).await;
    assert!(last.contains("No run matches") && !last.contains("so far"), "{last}");
}

/// A run whose gates wait: two manual steps and one of the run itself.
async fn waiting(lab: &Lab) -> RunId {
    let ask = |name: &str, tool: &str, parents: &[&str], reason: &str| {
        let mut step = plans::after(name, parents, json!({ "reason": reason }));
        step["tool"] = json!(tool);
        step
    };
    let values = json!([{"sku": "a"}, {"sku": "b"}, {"sku": "c"}]);
    let mut write =
        plans::after("rates", &["release"], json!({"table": "public.rates", "op": "insert", "values": values}));
    let mut clean =
        plans::after("clean", &["release"], json!({"table": "public.rates", "op": "delete", "where": {"sku": "d"}}));
    for step in [&mut write, &mut clean] {
        step["tool"] = json!("db_write");
    }
    let mut unit = plans::step("unit", "gate:unit", json!({}));
    unit["depends_on"] = json!([]);
    let steps = json!([
        unit,
        ask("release", "manual:release", &["unit"], "Can <i>this</i> go out?"),
        ask("budget", "manual:budget", &[], "Too much?"),
        write,
        clean,
    ]);
    let run = lab.submit(&json!({"goal": "delivery costs", "steps": steps})).await;
    let passing = Script::overriding(|step, _| async move {
        (step.tool == "gate:unit").then(|| Outcome::succeeded(serde_json::Map::new()))
    });
    lab.settle(&passing, Deliver::Once).await;
    let body = json!({"run_id": run, "gate_type": "legal & tax"});
    assert_eq!(Gateway::approvals(lab, Shape::Http).post("/gates", &body).await.status, 201);
    run
}

#[tokio::test]
async fn the_inbox_lists_what_waits_by_type_and_what_was_decided() {
    let lab = Lab::new().await;
    let console = Console::new(&lab);
    let empty = console.page(&lab, "/ui/inbox").await;
    assert!(empty.contains("Nothing waits for you") && !empty.contains("The last one"));
    waiting(&lab).await;

    let all = console.page(&lab, "/ui/inbox").await;
    assert_eq!(numbers(&all), ["3", "1", "1", "1"]);
    let questions = rows(&all);
    assert_eq!(questions.last().map(String::as_str), Some("legal &amp; tax"), "the newest is the last");
    assert!(questions.contains(&"Can &lt;i&gt;this&lt;/i&gt; go out?".to_owned()), "{questions:?}");
    for words in [
        "1 gate passed, 3 rows to insert, 1 other write to a table",
        "only the question",
        "3 gates wait, the oldest has waited <b><time datetime=",
        "the run itself",
        "never",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    let one = console.page(&lab, "/ui/inbox?type=manual:release").await;
    assert_eq!(rows(&one), ["Can &lt;i&gt;this&lt;/i&gt; go out?"]);
    assert_eq!(rows(&console.page(&lab, "/ui/inbox?type=legal%20%26%20tax").await), ["legal &amp; tax"]);
    let none = console.page(&lab, "/ui/inbox?type=manual:nothing").await;
    assert!(none.contains("No gate of this type waits") && numbers(&none)[0] == "3");

    let approvals = Gateway::approvals(&lab, Shape::Http);
    let gate = async |gate_type: &str| {
        let sql = "select id from nofx.gate where gate_type = $1";
        lab.admin.query_one(sql, &[&gate_type]).await.unwrap().get::<_, uuid::Uuid>(0)
    };
    let (budget, legal) = (gate("manual:budget").await, gate("legal & tax").await);
    for (id, verb) in [(budget, "approve"), (legal, "waive")] {
        let body = json!({"actor": "ann", "reason": "because <u>"});
        assert_eq!(approvals.post(&format!("/gates/{id}/{verb}"), &body).await.status, 200);
    }
    let left = console.page(&lab, "/ui/inbox").await;
    assert!(left.contains("in the last week: 1 approved, 1 waived") && rows(&left).len() == 1, "{left}");
    let decided = console.page(&lab, "/ui/inbox?decided=1").await;
    assert_eq!(rows(&decided), ["legal &amp; tax", "Too much?"], "newest first");
    for words in [
        "waived by <b><bdi>ann</bdi></b>",
        "approved by <b><bdi>ann</bdi></b>",
        "because &lt;u&gt;",
        "1 approved, 0 rejected, 1 waived",
    ] {
        assert!(decided.contains(words), "{words}: {decided}");
    }
    // A cursor is the gate of the last decision.
    assert_eq!(rows(&console.page(&lab, &format!("/ui/inbox?decided=1&after={legal}")).await), ["Too much?"]);

    for table in ["run", "step", "gate"] {
        lab.admin.batch_execute(&format!("update nofx.{table} set tenant_id = 'other'")).await.unwrap();
    }
    lab.rewrite("approval", "update nofx.approval set tenant_id = 'other'", &[]).await;
    for path in ["/ui/inbox", "/ui/inbox?decided=1", "/ui/runs"] {
        let page = console.page(&lab, path).await;
        assert!(
            rows(&page).is_empty() && !page.contains("<bdi>ann</bdi>") && !page.contains("count due"),
            "{path}: {page}"
        );
    }
}
