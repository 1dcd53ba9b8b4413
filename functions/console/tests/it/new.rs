//! The page of a new run: its form, the problems of a plan, and what a check says.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{Base, Outcome, new_run_page};
use console::plan_text::{Located, MAX_TEXT_BYTES};
use shared::view::{CheckedStep, PlanChecked};

use crate::support::{Answer, HOSTILE, assert_inert, get, new_run, send, typed};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn step(name: &str, handler: &str, level: usize) -> CheckedStep {
    CheckedStep {
        name: name.into(),
        tool: name.into(),
        handler: handler.into(),
        level,
        depends_on: if level == 0 { Vec::new() } else { vec![name.into(); 9] },
        references: Vec::new(),
        timeout_s: None,
        max_attempts: 3,
        backoff_ms: 1_000,
        approval: None,
    }
}

fn plan(steps: Vec<CheckedStep>) -> PlanChecked {
    PlanChecked { goal: "g".into(), timeout_s: Some(3_600), budget_usd_micros: None, steps }
}

fn problem(line: usize, text: &str) -> Located {
    Located { line, path: text.into(), message: text.into() }
}

#[test]
fn hostile_text_is_escaped_in_every_outcome() {
    for text in HOSTILE {
        let typed = typed(text);
        let steps = ["manual", "codegen", "db_write", "echo"].map(|handler| step(text, handler, 1)).to_vec();
        let (plan, problems) = (plan(steps), [problem(1, text)]);
        for outcome in [
            Outcome::None,
            Outcome::Problems(&problems),
            Outcome::Checked { plan: &plan, has_base: false },
            Outcome::WrongActor(text),
            Outcome::Refused { maybe_done: true, sentence: text, hint: "Try again." },
        ] {
            assert_inert(&new_run_page(&new_run(Base::TOP, &typed, outcome)), text);
        }
    }
}

#[test]
fn what_was_typed_is_kept_in_every_outcome() {
    let mut typed = typed("\n  plan: é\n");
    typed.actor = "ada".into();
    typed.key = "the-key".into();
    let (plan, problems) = (plan(vec![step("s", "echo", 0)]), [problem(1, "plan")]);
    for outcome in [
        Outcome::None,
        Outcome::Problems(&problems),
        Outcome::Checked { plan: &plan, has_base: true },
        Outcome::WrongActor("must be a name"),
        Outcome::Refused { maybe_done: false, sentence: "no", hint: "" },
    ] {
        let page = new_run_page(&new_run(Base::RUN, &typed, outcome));
        // A parser of HTML drops the first line break after the tag.
        for kept in [
            ">\n\n  plan: é\n</textarea>",
            "name=\"actor\" required maxlength=\"200\" autocomplete=\"name\" value=\"ada\"",
            "name=\"key\" value=\"the-key\"",
            "name=\"workspace\" value=\"00000000-0000-0000-0000-000000000005\" checked",
            "name=\"base\" value=\"00000000-0000-0000-0000-000000000006\" checked",
            "action=\"../new\"",
            "formaction=\"../new/check\"",
        ] {
            assert!(page.contains(kept), "{kept}: {page}");
        }
    }
}

#[test]
fn a_valid_plan_shows_its_order_and_what_it_asks_for() {
    let typed = typed("x");
    let mut approval = step("release", "manual", 1);
    approval.depends_on = vec!["unit".into()];
    let mut unit = step("unit", "gate", 0);
    (unit.tool, unit.timeout_s) = ("gate:unit".into(), Some(300));
    let plan = plan(vec![approval, unit]);
    let page = |has_base| new_run_page(&new_run(Base::RUN, &typed, Outcome::Checked { plan: &plan, has_base }));
    let shown = page(false);
    for words in [
        "2 steps in 2 levels",
        "<b><bdi>release</bdi></b> waits for a person.",
        "a decision may take as long as the run lasts",
        "No gate has a base",
        "No step writes to a database, none asks a model.",
        "The run fails after 1\u{a0}h\u{a0}0\u{a0}min",
        "5\u{a0}min\u{a0}0\u{a0}s",
        "up to 3",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // The step that starts first comes first.
    let (_, order) = shown.split_once("id=\"order\"").expect("a table");
    assert!(order.find("<bdi>unit</bdi>") < order.find("<bdi>release</bdi>"));
    assert!(!page(true).contains("No gate has a base"));
}

#[test]
fn a_valid_plan_shows_its_graph_before_it_runs() {
    let typed = typed("x");
    let after = |parents: &[&str]| parents.iter().map(|&parent| parent.to_owned()).collect();
    let named =
        |name: &str, level, parents: &[&str]| CheckedStep { depends_on: after(parents), ..step(name, "echo", level) };
    let steps = vec![named("a", 0, &[]), named("b", 1, &["a"]), named("c", 1, &["a"]), named("d", 2, &["b", "c"])];
    let shown = |plan: PlanChecked| {
        new_run_page(&new_run(Base::RUN, &typed, Outcome::Checked { plan: &plan, has_base: false }))
    };
    let small = shown(plan(steps));
    assert!(small.contains("role=\"region\" aria-label=\"Graph of the steps\"><svg width=\"656\""), "{small}");
    assert_eq!((small.matches("<g class=\"node\">").count(), small.matches("<path class=\"wire\" ").count()), (4, 4));
    assert!(small.contains("<title>d, d</title>"), "a step that has not begun has no state: {small}");
    // Too many for a drawing: a row for each level, with a cell for each step.
    let mut wide = vec![named("first", 0, &[])];
    wide.extend((0..80).map(|index| named(&format!("s{index}"), 1, &["first"])));
    let wide = shown(plan(wide));
    assert!(!wide.contains("class=\"graph\"") && wide.contains("Steps by level"), "{wide}");
    assert_eq!((wide.matches("class=\"level\"").count(), wide.matches("h9v9h-9z").count()), (2, 81));
}

#[test]
fn a_huge_plan_makes_an_answer_that_lambda_can_send() {
    let mut typed = typed("x");
    typed.plan = "\"".repeat(MAX_TEXT_BYTES);
    let plan = plan((0..1_000).map(|index| step(&"\"".repeat(200), "manual", index)).collect());
    let problems: Vec<_> = (0..1_000).map(|line| problem(line + 1, &"\"".repeat(600))).collect();
    for outcome in [Outcome::Checked { plan: &plan, has_base: false }, Outcome::Problems(&problems)] {
        let page = new_run_page(&new_run(Base::RUN, &typed, outcome));
        assert!(page.len() < 5_500_000, "{} bytes", page.len());
    }
}

#[tokio::test]
async fn the_form_shows_an_example_also_without_a_database() {
    let answer = get("/ui/new").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("goal: release notes that a person approves"), "{}", answer.body);
    assert_eq!(answer.body.matches("?example=").count(), 9);
    let other = get("/ui/new?example=manual-deploy").await;
    assert!(other.body.contains("manual:deploy") && other.body.contains("aria-current=\"true\""));
    let key = |page: &str| page.split("name=\"key\" value=\"").nth(1).map(|rest| rest[..36].to_owned());
    assert!(key(&answer.body).is_some() && key(&answer.body) != key(&other.body), "each form has a key of its own");
}

async fn post(path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let part = |(name, value): &(&str, &str)| {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body: String = fields.iter().map(part).chain(["--XX--\r\n".to_owned()]).collect();
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "multipart/form-data; boundary=XX");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn a_form_without_the_right_token_starts_nothing_and_keeps_its_text() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let own = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    let fields = |token| [("plan", "plan: {goal: <kept>}"), ("actor", "ada"), ("csrf", token)];
    for path in ["/ui/new", "/ui/new/check"] {
        let answer = post(path, &own, &fields("f")).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.body.contains("Nothing was changed") && answer.body.contains("{goal: &lt;kept&gt;}"));
        // Text of another site is not shown in our page.
        let foreign = [("origin", "https://evil.test"), ("cookie", cookie.as_str())];
        let answer = post(path, &foreign, &fields(TOKEN)).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(!answer.body.contains("kept"), "{}", answer.body);
        assert_eq!(post(path, &[("cookie", cookie.as_str())], &fields(TOKEN)).await.status, 403);
    }
}

#[tokio::test]
async fn problems_of_a_plan_need_no_database() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let own = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    let text = "plan:\n  goal: g\n  steps:\n    - name: a\n      tool: echoo\n      timeout: 3\n";
    for path in ["/ui/new", "/ui/new/check"] {
        let answer = post(path, &own, &[("plan", text), ("actor", "ada"), ("csrf", TOKEN)]).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        for words in ["2 problems", "line 5", "unknown tool", "line 6", "is not a known field", "data-line=\"6\""] {
            assert!(answer.body.contains(words), "{path} {words}: {}", answer.body);
        }
    }
    let valid = "plan: {goal: g, steps: [{name: a, tool: echo}]}";
    let unnamed = post("/ui/new", &own, &[("plan", valid), ("actor", " "), ("csrf", TOKEN)]).await;
    assert_eq!(unnamed.status, 400);
    assert!(unnamed.body.contains("must be a name") && unnamed.body.contains(valid), "{}", unnamed.body);
    // A valid plan reaches the database, which is down. The text is kept.
    let down = post("/ui/new", &own, &[("plan", valid), ("actor", "ada"), ("csrf", TOKEN)]).await;
    assert_eq!(down.status, 503);
    assert!(down.body.contains("Nothing was started") && down.body.contains(valid), "{}", down.body);
}

#[tokio::test]
async fn a_form_that_is_too_large_or_malformed_is_refused_with_a_page() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let own = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    let (long, huge) = ("x".repeat(MAX_TEXT_BYTES + 1), "x".repeat(5 << 20));
    for (fields, status) in [
        (vec![("plan", "x"), ("csrf", TOKEN), ("other", "x")], 400),
        (vec![("plan", "x"), ("plan", "y"), ("csrf", TOKEN)], 400),
        (vec![("plan", long.as_str()), ("csrf", TOKEN)], 400),
        (vec![("plan", huge.as_str()), ("csrf", TOKEN)], 413),
    ] {
        let answer = post("/ui/new", &own, &fields).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.body.contains("<h1>"));
    }
}
