//! A stack that serves the pages and the API on a port, and workers that the seeding controls.

use std::collections::HashSet;
use std::sync::Arc;

use ::db_write::DbWrite;
use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::Response;
use nofx_local::migrate::tenant::local_tenant;
use reqwest::Method;
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::domain::{GateId, RunId, StepId, TenantId, tool};
use shared::flow::sweep::sweep;
use shared::queue::WakeUp;
use shared::signing::PrivateKey;
use shared::worker::{InTransaction, WorkThenRecord, Worker};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::clock::When;
use super::commands::Runner;
use super::forms::{self, Forms};
use super::queues::{self, DEAD, HEALTHY};
use super::team::{self, TEAM};
use super::work::{Act, Acts};
use super::{models, work};
use crate::delivery::{Deliver, event};
use crate::lab::config;
use crate::{Lab, Script};

/// The prefix of the pages of a tenant that has nothing, and of pages whose database is away.
pub const EMPTY: &str = "/empty";
pub const AWAY: &str = "/away";

/// Who starts runs. Some name nobody.
const STARTERS: [Option<&str>; 4] = [Some("ann"), Some("ben"), Some("cai"), None];

/// A stack with its address.
pub struct Site {
    pub lab: Lab,
    pub url: String,
    pub runner: Runner,
    pub forms: Forms,
    acts: Arc<Acts>,
    script: Script,
    db_write: Worker<InTransaction<DbWrite>>,
    client: reqwest::Client,
    /// Steps whose next attempt stays in the future.
    waiting: std::sync::Mutex<HashSet<StepId>>,
    _folder: tempfile::TempDir,
}

impl Site {
    /// Serves on this listener until the process ends.
    pub async fn open(listener: TcpListener) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = PrivateKey::generate().expect("a key");
        let mut lab = Lab::with_bucket().await;
        lab.ctx.config.signing.public_keys = Some(key.public().to_pem());
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let forms = Forms::default();
        let router = Box::pin(router(&lab, &forms)).await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (acts, runner) = (Arc::new(Acts::default()), Runner::new(folder.path()));
        let models = models::serve().await;
        let script = work::script(Arc::clone(&acts), folder.path(), runner.program(), key, &models);
        let spec = tool::handler("db_write").expect("a handler");
        let db_write = Worker::new(lab.worker_ctx().await, spec, InTransaction(DbWrite)).without_continuation();
        let client = reqwest::Client::new();
        let waiting = std::sync::Mutex::default();
        Self { lab, url, runner, forms, acts, script, db_write, client, waiting, _folder: folder }
    }

    /// Sends a request to the API. The answer must be 2xx.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.url)).json(body);
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Posts a plan with this goal and these steps.
    pub async fn create(&self, goal: &str, steps: &[Value]) -> RunId {
        self.create_with(json!({ "goal": goal, "steps": steps })).await
    }

    pub async fn create_with(&self, plan: Value) -> RunId {
        let goal = plan["goal"].as_str().unwrap_or_default();
        let actor = STARTERS[goal.len() % STARTERS.len()];
        let answer = self.send(Method::POST, "/runs", &json!({ "plan": plan, "actor": actor })).await;
        answer["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
    }

    pub async fn control(&self, run: RunId, verb: &str, body: &Value) {
        self.send(Method::POST, &format!("/runs/{run}/{verb}"), body).await;
    }

    pub async fn decide(&self, gate: GateId, verb: &str, actor: &str, reason: &str) {
        let body = json!({ "actor": actor, "reason": reason });
        self.send(Method::POST, &format!("/gates/{gate}/{verb}"), &body).await;
    }

    /// The newest gate of a run that is for people.
    pub async fn gate(&self, run: RunId) -> GateId {
        let sql = "select id from nofx.gate where run_id = $1 and gate_type like 'manual:%'
                    order by created_at desc, id desc limit 1";
        match self.lab.admin.query_opt(sql, &[&run.0]).await.expect("an answer") {
            Some(row) => GateId(row.get(0)),
            None => panic!("no gate: {}", self.explain(run).await),
        }
    }

    /// The steps of a run with their states and errors, for whoever finds that it is not as it should be.
    pub async fn explain(&self, run: RunId) -> String {
        let sql = "select string_agg(concat_ws(' ', name, status, error), e'\n' order by ordinal) from nofx.step where run_id = $1";
        self.lab.text(sql, run.0).await
    }

    pub fn act(&self, run: RunId, step: &str, act: Act) {
        self.acts.set(run, step, act);
    }

    /// The step's next attempt after a failure stays in the future.
    pub async fn let_wait(&self, run: RunId, step: &str) {
        let step = self.lab.step(run, step).await;
        self.waiting.lock().expect("no panic").insert(step);
    }

    /// Delivers wake-ups until nothing goes on without a person, a held step or time.
    pub async fn settle(&self) {
        let (mut attempts, mut held) = (JoinSet::new(), 0);
        loop {
            for wakeup in self.lab.sent().await {
                if wakeup.delay_ms > 0 && self.waiting.lock().expect("no panic").contains(&wakeup.step_id) {
                    continue;
                }
                self.lab.delay_over(wakeup.step_id).await;
                attempts.spawn(self.deliver(wakeup));
            }
            if attempts.len() == held {
                // Held attempts end here as if their process died, and their steps stay as they are.
                return;
            }
            tokio::select! {
                ended = attempts.join_next() => ended.expect("an attempt").expect("no panic"),
                permit = self.acts.held.acquire() => {
                    permit.expect("an open semaphore").forget();
                    held += 1;
                }
            }
        }
    }

    /// Delivers whatever comes, for ever.
    pub async fn work(&self) {
        loop {
            let wakeup = self.lab.wakeups.lock().await.recv().await;
            let Some(wakeup) = wakeup else { return };
            tokio::time::sleep(std::time::Duration::from_millis(wakeup.delay_ms)).await;
            tokio::spawn(self.deliver(wakeup));
        }
    }

    /// Nobody works on the wake-ups that were sent.
    pub async fn lose_wakeups(&self) {
        self.lab.sent().await;
    }

    pub async fn sweep(&self) {
        sweep(&self.lab.ctx).await.expect("a sweep");
        self.settle().await;
    }

    /// Moves a run into the past.
    pub async fn was(&self, run: RunId, when: When) {
        self.lab.spread(run, when).await;
        self.lab.leases_last(run).await;
    }

    fn deliver(&self, wakeup: WakeUp) -> impl Future<Output = ()> + Send + 'static {
        let spec = tool::handler(&wakeup.handler).expect("a handler");
        let others =
            Worker::new(self.lab.ctx.clone(), spec, WorkThenRecord(self.script.clone())).without_continuation();
        let db_write = self.db_write.clone();
        async move {
            let event = event(&[wakeup], Deliver::Once);
            let answer = match spec.name {
                "db_write" => Box::pin(db_write.handle_batch(event, None)).await,
                _ => Box::pin(others.handle_batch(event, None)).await,
            };
            assert!(answer.batch_item_failures.is_empty(), "{answer:?}");
        }
    }
}

/// The functions at their paths, and the console again for other tenants and without a database.
async fn router(lab: &Lab, forms: &Forms) -> Router {
    let mut empty = lab.another_ctx().await;
    empty.config.tenant = TenantId("empty".into());
    local_tenant(&lab.admin, &empty.config.tenant.0).await.expect("a tenant");
    let mut config = config("postgres://nobody@127.0.0.1:1/none?connect_timeout=1");
    config.tenant = lab.tenant.clone();
    let away = crate::lab::context(config).await;
    let healthy = queues::context(lab, &empty.config.tenant, HEALTHY).await;
    let dead = queues::context(lab, &lab.tenant, DEAD).await;
    let (team, session) = team::context(lab).await;
    let with_queues = |ctx: &Ctx| functions(ctx).layer(middleware::from_fn_with_state(ctx.clone(), queues::swept));
    Router::new()
        .nest(EMPTY, functions(&empty))
        .nest(AWAY, functions(&away))
        .nest(HEALTHY, with_queues(&healthy))
        .nest(DEAD, with_queues(&dead))
        .nest(TEAM, functions(&team).layer(middleware::from_fn_with_state(session, team::logged_in)))
        .fallback_service(functions(&lab.ctx))
        .layer(middleware::from_fn_with_state(Arc::clone(forms), forms::send))
}

/// The functions with which people and programs talk, at their paths.
pub fn functions(ctx: &Ctx) -> Router {
    let [api, approvals, console] = [
        api::router(ctx.clone()).expect("a router"),
        approvals::router(ctx.clone()).expect("a router"),
        console::router(ctx.clone()).expect("a router"),
    ]
    .map(shared::http::with_layers);
    let answer = async move |request: Request| -> Response {
        let path = request.uri().path();
        let function = match path.split('/').nth(1) {
            Some("gates") => &approvals,
            Some("ui") => &console,
            _ => &api,
        };
        function.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    };
    Router::new().fallback(answer)
}
