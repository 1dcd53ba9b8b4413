//! Answers to forms, as pages of the gallery. A browser goes to them with `?form=NAME` at the address of the form, and the
//! gallery sends the form in its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use super::Page;
use super::pages::Runs;
use super::shop;
use super::site::Site;
use super::team::TEAM;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What a page of an older session would send.
const OLD_TOKEN: &str = "00000000000000000000000000000000";
const QUERY: &str = "form=";

/// A form that was filled in, by the name of the page with its answer.
pub type Forms = Arc<Mutex<BTreeMap<String, Form>>>;

#[derive(Debug, Clone)]
pub struct Form {
    path: String,
    status: u16,
    fields: Vec<(&'static str, String)>,
    token: &'static str,
    has_files: bool,
}

impl Form {
    fn new(path: String, status: u16, fields: &[(&'static str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { path, status, fields, token: TOKEN, has_files: false }
    }

    /// A form that may have files: a new run.
    fn of_plan(path: &str, status: u16, plan: &str) -> Self {
        let fields = [("plan", plan), ("actor", "ann"), ("key", ""), ("workspace", ""), ("base", "")];
        Self { has_files: true, ..Self::new(path.to_owned(), status, &fields) }
    }

    fn request(&self) -> Request {
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str())).chain([("csrf", self.token)]);
        let (kind, body) = if self.has_files {
            let part =
                |(name, value)| format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            ("multipart/form-data; boundary=XX", fields.map(part).collect::<String>() + "--XX--\r\n")
        } else {
            let pairs: Vec<String> =
                fields.map(|(name, value)| format!("{name}={}", shared::http::encoded(value))).collect();
            ("application/x-www-form-urlencoded", pairs.join("&"))
        };
        Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(header::CONTENT_TYPE, kind)
            .header(header::HOST, "localhost")
            .header("sec-fetch-site", "same-origin")
            .header(header::COOKIE, format!("nofx-csrf={TOKEN}"))
            .body(Body::from(body))
            .expect("a request")
    }
}

/// Sends the form that the address names.
pub async fn send(State(forms): State<Forms>, request: Request, next: Next) -> Response {
    let name = request.uri().query().and_then(|query| query.strip_prefix(QUERY)).map(str::to_owned);
    let form = name.and_then(|name| forms.lock().expect("no panic").get(&name).cloned());
    let request = match form {
        Some(form) if request.method() == Method::GET => form.request(),
        _ => request,
    };
    next.run(request).await
}

/// Fills in the forms, and returns the pages with their answers.
pub async fn pages(site: &Site, runs: &Runs) -> Vec<Page> {
    let large = json!({ "plan": { "goal": "build all packages", "steps": shop::fan(120) } });
    let small = json!({ "plan": { "goal": "delivery costs for the shop", "steps": shop::delivery() } });
    let text = |plan: &Value| format!("{plan:#}\n");
    let control = |verb: &str| format!("/ui/runs/{}/{verb}", runs["succeeded"]);
    let (open, decided) = (site.gate(runs["blocked"]).await, site.gate(runs["approved"]).await);
    let gate = |id, verb: &str| format!("/ui/gates/{id}/{verb}");
    let old = |form: Form| Form { token: OLD_TOKEN, ..form };
    let reason = "The rates of Austria are those of last year.\n\nPlease take them from the new contract.";
    let policy = [
        ("document", "gates:\n  minimum_threshold: 0.9\n"),
        ("version", "1"),
        ("actor", "ben"),
        ("reason", "As agreed with the auditors."),
    ];
    let login = [("email", "ann@shop.test"), ("password", "x"), ("next", "inbox")];
    let token = [("kind", "agent"), ("name", "planner"), ("role", "operator"), ("days", "90")];
    let invalid = [("document", "gates:\n  minimum_treshold: 2\n"), policy[1], policy[2], policy[3]];
    let forms = [
        ("new-checked", Form::of_plan("/ui/new/check", 200, &text(&small))),
        ("new-checked-large", Form::of_plan("/ui/new/check", 200, &text(&large))),
        ("new-problems", Form::of_plan("/ui/new/check", 400, PROBLEMS)),
        ("new-old-form", old(Form::of_plan("/ui/new", 403, &text(&small)))),
        ("run-not-paused", Form::new(control("pause"), 409, &[("actor", "ben")])),
        ("run-nobody-retried", Form::new(control("retry"), 400, &[("actor", "")])),
        ("run-old-form", old(Form::new(control("cancel"), 403, &[("actor", "ben")]))),
        ("gate-late", Form::new(gate(decided, "reject"), 409, &[("actor", "cai"), ("reason", reason)])),
        ("gate-twice", Form::new(gate(decided, "approve"), 409, &[("actor", "ann"), ("reason", "")])),
        ("gate-incomplete", Form::new(gate(open, "reject"), 400, &[("actor", ""), ("reason", "")])),
        ("gate-old-form", old(Form::new(gate(open, "reject"), 403, &[("actor", "ben"), ("reason", reason)]))),
        ("policy-late", Form::new("/ui/policy".to_owned(), 409, &policy)),
        ("policy-problems", Form::new("/ui/policy".to_owned(), 400, &invalid)),
        ("policy-old-form", old(Form::new("/ui/policy".to_owned(), 403, &policy))),
        ("login-unavailable", Form::new(format!("{TEAM}/ui/login"), 503, &login)),
        ("members-last-admin", Form::new("/ui/members".to_owned(), 400, &[("subject", "local"), ("role", "viewer")])),
        ("tokens-created", Form::new("/ui/tokens".to_owned(), 200, &token)),
        ("health-old-form", old(Form::new("/ui/health/gate/redrive".to_owned(), 403, &[("actor", "ben")]))),
    ];
    let page = |(name, form): &(&str, Form)| Page {
        name: (*name).to_owned(),
        path: format!("{}?{QUERY}{name}", form.path),
        status: form.status,
        bare: false,
    };
    let pages = forms.iter().map(page).collect();
    site.forms.lock().expect("no panic").extend(forms.map(|(name, form)| (name.to_owned(), form)));
    pages
}

/// The page with the answer to one form.
pub(super) fn filled(
    site: &Site,
    name: &str,
    path: &str,
    status: u16,
    fields: &[(&'static str, &str)],
) -> Option<Page> {
    let form = Form::new(path.to_owned(), status, fields);
    site.forms.lock().ok()?.insert(name.to_owned(), form);
    Some(Page { name: name.to_owned(), path: format!("{path}?{QUERY}{name}"), status, bare: false })
}

/// The path of a page that is an answer to a form.
pub fn form_of(address: &str) -> Option<&str> {
    let (path, query) = address.split_once('?')?;
    query.starts_with(QUERY).then_some(path)
}

const PROBLEMS: &str = "plan:
  goal: delivery costs for the shop
  steps:
    - name: notes
      tool: codgen
      inputs:
        prompt: Release notes.
    - name: release
      tool: manual:release
      depends_on: [note]
      timeout: 3600
    - name: release
      tool: echo
";
