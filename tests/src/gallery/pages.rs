//! The addresses of the gallery, with a name for what each page shows.

use std::collections::BTreeMap;

use shared::domain::RunId;
use uuid::Uuid;

use super::queues::{DEAD, HEALTHY};
use super::site::{AWAY, EMPTY, Site};
use super::team::TEAM;
use super::{Page, files, forms, large, links, queues, states};

/// Runs below those with a state of their own: enough for a second page.
const MORE_RUNS: u64 = 40;

/// Steps with a page worth a look: name of the page, run, step.
const STEPS: &[(&str, &str, &str)] = &[
    ("step-succeeded", "succeeded", "typecheck"),
    ("step-uncovered", "failed-coverage", "unit"),
    ("step-findings", "failed-findings", "typecheck"),
    ("step-tests", "failed-tests", "unit"),
    ("step-skipped", "failed-tests", "release"),
    ("step-attempts", "failed-attempts", "send the labels"),
    ("step-lost", "failed-lost-workers", "package 03"),
    ("step-running", "running", "unit"),
    ("step-change", "change", "unit"),
    ("step-passed", "succeeded", "unit"),
    ("step-secrets", "succeeded", "secrets"),
    ("step-approval", "write", "approve"),
    ("step-model", "succeeded", "review"),
    ("step-write", "succeeded", "rates"),
    ("step-pending", "blocked", "rates"),
    ("step-retrying", "retrying", "notes"),
    ("step-cancelled", "cancelled", "unit"),
    ("step-outputs", "documents", "all"),
    ("step-many-parents", "sixty", "sum up"),
    ("step-hostile", "hostile", "<b>a step</b> & more"),
];

/// Runs with a gate whose page is worth a look.
const GATES: &[(&str, &str)] = &[
    ("gate-release", "blocked"),
    ("gate-change", "change"),
    ("gate-write", "write"),
    ("gate-later", "later"),
    ("gate-of-run", "requests"),
    ("gate-approved", "approved"),
    ("gate-rejected", "rejected"),
    ("gate-waived", "waived"),
    ("gate-expired", "expired"),
    ("gate-cancelled", "timed-out"),
    ("gate-hostile", "hostile"),
];

/// Artifacts: name of the page, run, step, and how their names end.
const ARTIFACTS: &[(&str, &str, &str, &str)] = &[
    ("artifact-markdown", "documents", "notes", ".md"),
    ("artifact-json", "documents", "summary", ".json"),
    ("artifact-code", "documents", "express", ".ts"),
    ("artifact-image", "documents", "chart", ".png"),
    ("artifact-archive", "documents", "checkout", ".gz"),
    ("artifact-evidence", "succeeded", "unit", "gate-unit.json"),
    ("artifact-failed", "failed-tests", "unit", "gate-unit.json"),
    ("artifact-attestation", "succeeded", "unit", "gate-unit.intoto.json"),
    ("artifact-large", "files", "store", "log.txt"),
    ("artifact-html", "files", "store", "report.html"),
    ("artifact-hostile", "files", "store", "notes.md"),
    ("artifact-not-a-picture", "files", "store", "lies.png"),
    ("artifact-long-name", "files", "store", "name-.txt"),
    ("artifact-binary", "files", "store", "broken.txt"),
    ("artifact-zip", "files", "store", "files.zip"),
    ("artifact-gone", "files", "store", "gone.md"),
    ("artifact-changed", "files", "store", "changed.json"),
    ("artifact-many", "files", "split", "orders.csv"),
    ("artifact-archived", "stored", "store", "archived.csv"),
    ("artifact-restoring", "stored", "store", "restoring.csv"),
    ("artifact-deleted", "stored", "store", "deleted.csv"),
];

/// Pages without data, beside those of the empty tenant.
const BARE: [&str; 1] = ["new"];

/// The runs by the name of their state.
pub type Runs = BTreeMap<&'static str, RunId>;

/// Makes every run.
async fn runs(site: &Site) -> Runs {
    states::settings(site).await;
    // A sweep would wake steps of later runs.
    let lost = states::failed_on_lost_workers(site).await;
    let timed_out = states::timed_out(site).await;
    let expired = states::expired(site).await;
    let running = states::running(site).await;
    let runs = [
        ("failed-lost-workers", "failed", lost),
        ("timed-out", "failed", timed_out),
        ("expired", "failed", expired),
        ("running", "running", running),
        ("succeeded", "succeeded", states::succeeded(site).await),
        ("failed-findings", "failed", states::failed_on_findings(site).await),
        ("failed-coverage", "failed", states::failed_on_coverage(site).await),
        ("failed-tests", "failed", states::failed_on_tests(site).await),
        ("failed-attempts", "failed", states::failed_after_attempts(site).await),
        ("cancelled", "cancelled", states::cancelled(site).await),
        ("retried", "succeeded", states::retried(site).await),
        ("approved", "succeeded", states::decided(site, "approve", 1).await),
        ("rejected", "failed", states::decided(site, "reject", 2).await),
        ("waived", "succeeded", states::decided(site, "waive", 3).await),
        ("documents", "succeeded", files::documents(site).await),
        ("files", "succeeded", files::hostile(site).await),
        ("stored", "succeeded", files::stored(site).await),
        ("hostile", "blocked", states::hostile(site).await),
        ("sixty", "running", states::sixty(site).await),
        ("large", "running", large::running(site).await),
        ("large-failed", "failed", large::failed(site).await),
        ("long-timeline", "running", large::eventful(site).await),
        ("blocked", "blocked", states::blocked(site).await),
        ("change", "blocked", states::blocked_on_change(site).await),
        ("write", "blocked", states::blocked_on_write(site).await),
        ("later", "blocked", states::blocked_before_a_later_write(site).await),
        ("requests", "blocked", states::blocked_on_requests(site).await),
        ("linked", "blocked", links::linked(site).await),
        ("retrying", "running", states::retrying(site).await),
        ("paused", "paused", states::paused(site).await),
        ("queued", "queued", states::queued(site).await),
    ];
    states::many(site, MORE_RUNS).await;
    let mut named = BTreeMap::new();
    for (name, status, run) in runs {
        assert_eq!(site.lab.run_status(run).await, status, "{name}: {}", site.explain(run).await);
        named.insert(name, run);
    }
    named
}

/// Makes every run, and returns the pages.
pub async fn make(site: &Site) -> Vec<Page> {
    let runs = Box::pin(runs(site)).await;
    queues::put_dead(site, runs["sixty"], ["package 11", "package 30"]).await;
    let mut pages = of_rows(site, &runs).await;
    pages.extend(lists(&runs).into_iter().chain(views(site, &runs).await).chain(settings(&runs)));
    pages.extend(forms::pages(site, &runs).await);
    pages.extend(links::pages(site, &runs).await);
    for (name, path, status) in [
        ("not-found", "/ui/nothing/is/here".to_owned(), 404),
        ("run-not-found", format!("{EMPTY}/ui/runs/{}", runs["blocked"]), 404),
        ("address-invalid", "/ui/runs?status=done".to_owned(), 400),
        ("runs-unavailable", format!("{AWAY}/ui/runs"), 503),
    ] {
        pages.push(Page { status, ..page(name, path) });
    }
    pages
}

/// A page that exists.
fn page(name: &str, path: String) -> Page {
    let bare = BARE.contains(&name) || path.starts_with(EMPTY);
    Page { name: name.to_owned(), path, status: 200, bare }
}

/// Pages of one run, step, gate or artifact.
async fn of_rows(site: &Site, runs: &Runs) -> Vec<Page> {
    let mut pages: Vec<Page> =
        runs.iter().map(|(name, run)| page(&format!("run-{name}"), format!("/ui/runs/{run}"))).collect();
    let ordinal = "select ordinal from nofx.step where run_id = $1 and name = $2";
    for (name, run, step) in STEPS {
        let ordinal = one::<i32>(site, ordinal, runs[run], step).await;
        pages.push(page(name, format!("/ui/runs/{}/steps/{ordinal}", runs[run])));
    }
    for (name, run) in GATES {
        pages.push(page(name, format!("/ui/gates/{}", site.gate(runs[run]).await)));
    }
    let artifact = "select a.id from nofx.artifact a join nofx.step s on s.id = a.step_id
                     where a.run_id = $1 and s.name = split_part($2, '/', 1) and a.name like '%' || split_part($2, '/', 2)
                     order by a.created_at desc limit 1";
    for (name, run, step, end) in ARTIFACTS {
        let id: Uuid = one(site, artifact, runs[run], &format!("{step}/{end}")).await;
        pages.push(page(name, format!("/ui/artifacts/{id}")));
    }
    pages
}

/// The lists, with filters and without rows.
fn lists(runs: &Runs) -> Vec<Page> {
    let pages = [
        ("runs", "/ui/runs".to_owned()),
        ("runs-older", format!("/ui/runs?after={}", runs["expired"])),
        ("runs-failed", "/ui/runs?status=failed".to_owned()),
        ("runs-found", "/ui/runs?goal=shop".to_owned()),
        ("runs-started-by", "/ui/runs?by=ann".to_owned()),
        ("runs-none-found", "/ui/runs?goal=nothing%20has%20this%20goal".to_owned()),
        ("runs-empty", format!("{EMPTY}/ui/runs")),
        ("inbox", "/ui/inbox".to_owned()),
        ("inbox-of-type", "/ui/inbox?type=manual:release".to_owned()),
        ("inbox-decided", "/ui/inbox?decided=1".to_owned()),
        ("inbox-empty", format!("{EMPTY}/ui/inbox")),
    ];
    pages.map(|(name, path)| page(name, path)).into()
}

/// Runs and gates as an address can select parts of them.
async fn views(site: &Site, runs: &Runs) -> Vec<Page> {
    let (large, timeline, failed) = (runs["large"], runs["long-timeline"], runs["failed-coverage"]);
    let (approved, next) = (site.gate(runs["approved"]).await, site.gate(runs["blocked"]).await);
    let pages = [
        ("run-lineage", format!("/ui/runs/{}/lineage", runs["documents"])),
        ("run-lineage-deleted", format!("/ui/runs/{}/lineage", runs["stored"])),
        ("run-lineage-open", format!("/ui/runs/{}/lineage", runs["running"])),
        ("run-large-more-steps", format!("/ui/runs/{large}?steps=100")),
        ("run-large-level", format!("/ui/runs/{large}?level=3")),
        ("run-large-waiting", format!("/ui/runs/{large}?state=ready")),
        ("run-earlier-events", format!("/ui/runs/{timeline}?before=50000")),
        ("run-events-of-a-step", format!("/ui/runs/{failed}?step=2")),
        ("run-events-of-a-kind", format!("/ui/runs/{failed}?kind=gates,models")),
        ("run-events-not-found", format!("/ui/runs/{timeline}?kind=writes")),
        ("run-still", format!("/ui/runs/{}?still=1", runs["running"])),
        ("run-decided", format!("/ui/runs/{}?decided={approved}", runs["approved"])),
        ("gate-all-rows", format!("/ui/gates/{next}?write=rates&rows=0")),
        ("gate-of-inbox", format!("/ui/gates/{next}?from=inbox&decided={approved}")),
    ];
    pages.map(|(name, path)| page(name, path)).into()
}

/// What is no run: new runs, policy, rules, people, usage, health.
fn settings(runs: &Runs) -> Vec<Page> {
    let pages = [
        ("new", "/ui/new".to_owned()),
        ("new-example", "/ui/new?example=db-write".to_owned()),
        ("new-again", format!("/ui/new?from={}", runs["failed-coverage"])),
        ("policy", "/ui/policy".to_owned()),
        ("policy-none", format!("{EMPTY}/ui/policy")),
        ("rules", "/ui/rules".to_owned()),
        ("rules-empty", format!("{EMPTY}/ui/rules")),
        ("rule", "/ui/rules/public.rates".to_owned()),
        ("audit", "/ui/audit".to_owned()),
        ("audit-filtered", "/ui/audit?action=rule.set&actor=ben".to_owned()),
        ("audit-empty", "/ui/audit?actor=nobody".to_owned()),
        ("login", format!("{TEAM}/ui/login?next=inbox")),
        ("runs-of-a-team", format!("{TEAM}/ui/runs")),
        ("members", format!("{TEAM}/ui/members")),
        ("tokens", format!("{TEAM}/ui/tokens")),
        ("tokens-sessions", format!("{TEAM}/ui/tokens?sessions=true")),
        ("costs", "/ui/costs".to_owned()),
        ("costs-empty", format!("{EMPTY}/ui/costs")),
        ("usage", "/ui/usage".to_owned()),
        ("usage-empty", format!("{EMPTY}/ui/usage")),
        ("health", "/ui/health".to_owned()),
        ("health-redriven", format!("/ui/health?redriven={}", states::REDRIVE)),
        ("health-healthy", format!("{HEALTHY}/ui/health")),
        ("health-dead-letters", format!("{DEAD}/ui/health")),
        ("health-empty", format!("{EMPTY}/ui/health")),
    ];
    pages.map(|(name, path)| page(name, path)).into()
}

/// One value of a run.
async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(site: &Site, sql: &str, run: RunId, key: &str) -> T {
    let rows = site.lab.admin.query(sql, &[&run.0, &key]).await.expect("an answer");
    rows.first().unwrap_or_else(|| panic!("{key} of {run}")).get(0)
}
