//! The stack of one test: a database, a channel for wake-ups, and unique names at the emulator.

use std::sync::Arc;
use std::time::SystemTime;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use nofx_local::migrate::tenant::local_tenant;
use shared::auth::ApiToken;
use shared::config::{
    ArtifactsConfig, AuthConfig, AuthMode, Config, DatabaseConfig, LlmConfig, Platform, SigningConfig,
};
use shared::context::Ctx;
use shared::db::{Database, Session};
use shared::domain::principal::{Caller, Kind, Login, Permission, Role, Via};
use shared::domain::{RunId, StepId, TenantId, Timestamp, TokenId};
use shared::flow::create_run::{Accepted, Request, create_run};
use shared::queue::{Queue, WakeUp};
use shared::signing::create_private_key;
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::database::{TestDatabase, connect_to};
use crate::environment::aws_endpoint_url;

/// How often a wait polls the database before it fails, after some seconds.
const MAX_POLLS: usize = 30_000;

/// The stack of a test. Wake-ups stay in a channel until the test delivers them.
pub struct Lab {
    pub ctx: Ctx,
    pub tenant: TenantId,
    /// For reading rows and moving time. It is not under test.
    pub admin: Client,
    pub(crate) wakeups: Arc<Mutex<mpsc::UnboundedReceiver<WakeUp>>>,
    // Keep it last: the fields above must be closed before the database is dropped.
    pub database: TestDatabase,
}

impl Lab {
    /// Creates a database, a channel, and clients of the emulator. Tests create the buckets and queues that they need.
    pub async fn new() -> Self {
        let database = TestDatabase::create().await;
        let config = config(&database.url);
        Box::pin(Self::on(database, config)).await
    }

    /// Like [`Lab::new`], with this database and configuration.
    pub async fn on(database: TestDatabase, config: Config) -> Self {
        let admin = connect_to(&database.url).await;
        let mut ctx = Box::pin(context(config)).await;
        let (sender, wakeups) = mpsc::unbounded_channel();
        ctx.queue = Queue::Channel(sender);
        let tenant = ctx.config.tenant.clone();
        for tenant in [tenant.0.as_str(), "other"] {
            local_tenant(&admin, tenant).await.expect("a tenant");
        }
        Self { ctx, tenant, admin, wakeups: Arc::new(Mutex::new(wakeups)), database }
    }

    /// Like [`Lab::new`], with a bucket for artifacts.
    pub async fn with_bucket() -> Self {
        let lab = Self::new().await;
        create_bucket(&sdk().await, &lab.ctx.config.artifacts.bucket).await;
        lab
    }

    /// The context of another function, with its own pool and counters.
    pub async fn another_ctx(&self) -> Ctx {
        let mut ctx = context(self.ctx.config.clone()).await;
        ctx.queue = self.ctx.queue.clone();
        ctx
    }

    /// The context of a worker with its own login, which has the rights of `nofx_worker`.
    pub async fn worker_ctx(&self) -> Ctx {
        let mut config = self.ctx.config.clone();
        config.database.url = self.database.worker_url();
        let queue = self.ctx.queue.clone();
        Ctx { queue, ..context(config).await }
    }

    /// The context of a function whose wake-ups are lost, as if it crashed after each commit.
    pub async fn ctx_without_queues(&self) -> Ctx {
        let mut ctx = self.another_ctx().await;
        ctx.queue = Queue::Channel(mpsc::unbounded_channel().0);
        ctx
    }

    /// The session of the one person of the tenant.
    pub fn session(&self) -> Session {
        session(&self.ctx.db, &self.tenant)
    }

    /// Makes the tenant one of several people, each with a role, a name and an e-mail address after their subject.
    pub async fn team(&self, people: &[(&str, Role)]) {
        let sql = "update nofx.tenant set is_solo = false where tenant_id = $1";
        self.admin.execute(sql, &[&self.tenant.0]).await.expect("a tenant");
        let sql = "delete from nofx.membership where tenant_id = $1";
        self.admin.execute(sql, &[&self.tenant.0]).await.expect("no members");
        for (subject, role) in people {
            let sql = "insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
                       values ($1, $2, $3, $2, $2 || '@acme.test', 'tests')";
            self.admin.execute(sql, &[&self.tenant.0, subject, &role.as_str()]).await.expect("a member");
        }
    }

    /// The session of a person who has just logged in.
    pub fn person(&self, subject: &str) -> Session {
        Session::new(self.ctx.db.clone(), Arc::new(self.caller(subject)), Permission::RunsRead)
    }

    /// A person who has just logged in.
    pub fn caller(&self, subject: &str) -> Caller {
        let at = Timestamp(DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime).expect("a time"));
        let via = Via::Jwt(Login { email: None, aal: None, at: Some(at) });
        Caller { tenant: self.tenant.clone(), subject: subject.to_owned(), via, ip: None, request_id: String::new() }
    }

    /// A new API token of the tenant, as the text that a client sends. An admin of the tenant answers for it. A person's is a session of a member with the role.
    pub async fn token(&self, kind: Kind, role: Role) -> String {
        let token = ApiToken::generate(kind, TokenId(Uuid::new_v4()), self.tenant.clone()).expect("a token");
        let name = format!("{kind}:{role}");
        if kind == Kind::Person {
            let sql = "insert into nofx.membership (tenant_id, subject, role, name, created_by)
                       values ($1, $2, $3, $2, 'test') on conflict do nothing";
            self.admin.execute(sql, &[&self.tenant.0, &name, &role.as_str()]).await.expect("a member");
        }
        let sql = "insert into nofx.api_token
                          (id, tenant_id, kind, subject, owner, name, role, secret_sha256, expires_at)
                   select $1, $2, $3, $4, min(m.subject), $4, $5, $6, clock_timestamp() + interval '1 hour'
                     from nofx.membership m where m.tenant_id = $2 and m.role = 'admin' and m.removed_at is null";
        let hash = token.hash().as_bytes().to_vec();
        // A session has the role that its member has now.
        let role = (kind != Kind::Person).then(|| role.as_str());
        let values: [&(dyn ToSql + Sync); 6] = [&token.id.0, &self.tenant.0, &kind.as_str(), &name, &role, &hash];
        self.admin.execute(sql, &values).await.expect("a token");
        token.expose()
    }

    /// Posts a plan.
    pub async fn submit(&self, plan: &serde_json::Value) -> RunId {
        self.accept(plan).await.id
    }

    /// Posts a plan and returns the whole response.
    pub async fn accept(&self, plan: &serde_json::Value) -> Accepted {
        let body = serde_json::json!({ "plan": plan });
        let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
        create_run(&self.ctx, &session(&self.ctx.db, &self.tenant), &request).await.expect("the plan is accepted")
    }

    /// A step's id by its name.
    pub async fn step(&self, run: RunId, name: &str) -> StepId {
        let sql = "select id from nofx.step where run_id = $1 and name = $2";
        StepId(self.admin.query_one(sql, &[&run.0, &name]).await.expect("a step of that name").get(0))
    }

    /// Changes rows of a table whose rows the database keeps as they are. Returns how many.
    pub async fn rewrite(&self, table: &str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> u64 {
        let guard = format!("nofx.{table} {{}} trigger records_are_kept");
        let open = format!("begin; alter table {}", guard.replace("{}", "disable"));
        self.admin.batch_execute(&open).await.expect("no guard");
        let changed = self.admin.execute(sql, values).await.expect("changed rows");
        let close = format!("alter table {}; commit", guard.replace("{}", "enable always"));
        self.admin.batch_execute(&close).await.expect("the guard again");
        changed
    }

    /// Polls until the query returns true. Panics after some seconds.
    pub async fn until(&self, what: &str, sql: &str) {
        for _ in 0..MAX_POLLS {
            if self.admin.query_one(sql, &[]).await.expect("one row").get(0) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("timed out waiting for {what}");
    }

    /// One text column of one row.
    pub async fn text(&self, sql: &str, id: Uuid) -> String {
        self.admin.query_one(sql, &[&id]).await.expect("one row").get(0)
    }

    /// A run's state.
    pub async fn run_status(&self, run: RunId) -> String {
        self.text("select status from nofx.run where id = $1", run.0).await
    }

    /// A step's state.
    pub async fn step_status(&self, step: StepId) -> String {
        self.text("select status from nofx.step where id = $1", step.0).await
    }
}

/// A session of the one person of a local tenant, who may do everything.
pub fn session(db: &Database, tenant: &TenantId) -> Session {
    Session::new(db.clone(), Arc::new(Caller::local(tenant.clone())), Permission::RunsRead)
}

/// A configuration for the database at `url`, with unique names at the emulator.
pub fn config(url: &str) -> Config {
    let unique = Uuid::new_v4().simple().to_string();
    let bucket = format!("t-{unique}");
    Config {
        sqs_prefix: format!("t-{unique}-"),
        artifacts: ArtifactsConfig { bucket, endpoint_url: Some(aws_endpoint_url()), region: None, keys: None },
        tenant: TenantId("acme".into()),
        auth: local_auth(),
        decisions: decision_key(),
        llm: LlmConfig { secret_id: format!("t-{unique}"), ..LlmConfig::default() },
        ..Config::new(DatabaseConfig { url: url.to_owned(), ca_file: None, pool_size: 8 })
    }
}

/// The key with which the functions of all tests sign decisions.
fn decision_key() -> SigningConfig {
    let file = std::env::temp_dir().join("nofx-tests-decisions.pem");
    create_private_key(&file).expect("a key");
    SigningConfig { key_file: Some(file), ..SigningConfig::none(SigningConfig::DECISIONS) }
}

/// The local mode, which works only against an emulator on this machine.
fn local_auth() -> Arc<AuthConfig> {
    let platform = Platform { aws_variable: None, aws_endpoint_url: Some(aws_endpoint_url()) };
    Arc::new(AuthConfig { mode: Some(AuthMode::Local), platform, ..AuthConfig::default() })
}

/// A context that uses the emulator.
pub async fn context(config: Config) -> Ctx {
    Ctx::new(config, &sdk().await).expect("a context")
}

/// SDK configuration for the emulator. It ignores the machine's AWS profile.
pub async fn sdk() -> SdkConfig {
    sdk_at(&aws_endpoint_url(), "us-east-1", ("test", "test")).await
}

/// SDK configuration for another endpoint, with its region, access key and secret.
pub async fn sdk_at(endpoint: &str, region: &str, (id, secret): (&str, &str)) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .credentials_provider(Credentials::new(id, secret, None, None, "tests"))
        .load()
        .await
}

/// An S3 client that is independent of the code under test.
pub fn s3(sdk: &SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(sdk).force_path_style(true).build())
}

/// Creates a bucket.
pub async fn create_bucket(sdk: &SdkConfig, name: &str) {
    s3(sdk).create_bucket().bucket(name).send().await.expect("make a bucket");
}
