//! Migrations and plans on a Postgres with Supabase's roles, schemas and default privileges, where `postgres` is not a
//! superuser. It needs its own server, because all databases of a server share its roles.

use std::path::Path;

use nofx_local::checkout::Checkout;
use nofx_local::postgres::{Cluster, Postgres, Purpose};
use nofx_local::process::Process;
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::python::PythonEnv;
use nofx_local::{migrate, port};
use nofx_tests::database::{TestDatabase, connect_to};
use nofx_tests::{Deliver, Lab, Script, lab, plans};
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

struct Supabase {
    server: Process,
    throwaway: Throwaway,
    port: u16,
    checkout: Checkout,
}

impl Supabase {
    async fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let checkout = Checkout::at(root);
        let throwaway = Throwaway::make(&checkout, "supabase").await.unwrap();
        let env = PythonEnv::ready(&checkout, &throwaway.pid_file).await.unwrap();
        let postgres = Postgres::find(&env, &checkout).await.unwrap();
        let dir = throwaway.dir.join("postgres");
        let cache = checkout.local().join("cache");
        postgres.create(&cache, &dir, Purpose::Throwaway, &throwaway.pid_file).await.unwrap();
        let cluster = Cluster::open(dir, port::any_free().unwrap()).unwrap();
        let server = postgres.start(&cluster, &throwaway.dir.join("postgres.log"), &throwaway.pid_file).await.unwrap();

        let bootstrap = connect_to(&cluster.url()).await;
        bootstrap.batch_execute("create role supabase_admin superuser login").await.unwrap();
        drop(bootstrap);
        let supabase = Self { server, throwaway, port: cluster.port, checkout };
        let admin = connect_to(&supabase.url("supabase_admin")).await;
        // Rename it, because an ordinary role gets this name. The cluster's first role must stay a superuser.
        admin.batch_execute("alter role postgres rename to bootstrap").await.unwrap();
        admin.batch_execute(include_str!("supabase.sql")).await.unwrap();
        supabase
    }

    fn url(&self, role: &str) -> String {
        format!("postgresql://{role}:postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Runs roles, migrations and seed, as `supabase start` does.
    async fn set_up(&self) {
        let url = self.url("postgres");
        let roles = std::fs::read_to_string(self.checkout.root().join("supabase/roles.sql")).unwrap();
        connect_to(&url).await.batch_execute(&roles).await.expect("the roles");
        self.migrate().await;
    }

    async fn migrate(&self) {
        let url = self.url("postgres");
        // Use the folder of the Supabase CLI.
        let count = migrate::migrate(&url, &self.checkout.root().join("supabase/migrations")).await.unwrap();
        assert!(count > 0);
        assert_eq!(migrate::migrate(&url, &self.checkout.migrations()).await.unwrap(), 0, "the same files");
        for _ in 0..2 {
            migrate::seed(&url, &self.checkout.seed()).await.unwrap();
        }
    }

    async fn end(self) {
        self.server.end().await;
        self.throwaway.end(true);
    }
}

/// A request of the Data API: its login role switches to the token's role, with the token's claims.
async fn request(client: &mut Client, role: &str, tenant: &str, sql: &str) -> Result<Vec<String>, SqlState> {
    let transaction = client.transaction().await.unwrap();
    let claims = json!({ "sub": "ann", "role": role, "app_metadata": { "tenant_id": tenant } }).to_string();
    transaction.batch_execute(&format!("set local role {role}")).await.unwrap();
    transaction.execute("select set_config('request.jwt.claims', $1, true)", &[&claims]).await.unwrap();
    let rows = transaction.query(sql, &[]).await.map_err(|error| error.code().expect("a code").clone())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const TABLES: &str = "select relname::text from pg_class
                       where relnamespace = 'nofx'::regnamespace and relkind in ('r', 'p') order by 1";

#[tokio::test]
async fn plans_run_where_postgres_is_not_a_superuser() {
    let supabase = Supabase::start().await;
    supabase.set_up().await;
    let url = supabase.url("postgres");
    let lab = Lab::on(TestDatabase::at(url.clone()), lab::config(&url)).await;
    let run = lab.submit(&plans::chain(3)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");

    // A login role of the workers may only execute their functions.
    let worker = connect_to(&url).await;
    worker.batch_execute("set role nofx_worker").await.expect("roles.sql makes postgres a member");
    worker.batch_execute("select nofx.sweep_leases(1)").await.unwrap();
    let refused = worker.batch_execute("select * from nofx.run").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    drop((lab, worker));
    supabase.end().await;
}

#[tokio::test]
async fn the_data_api_reads_the_rows_of_the_tenant_of_a_member_and_nothing_else() {
    let supabase = Supabase::start().await;
    // Without roles.sql, as in a hosted project: the migrations create the roles.
    supabase.migrate().await;
    let url = supabase.url("postgres");
    let mut lab = Lab::on(TestDatabase::at(url.clone()), lab::config(&url)).await;
    for tenant in ["acme", "other"] {
        lab.ctx.config.tenant = shared::domain::TenantId(tenant.into());
        lab.tenant = lab.ctx.config.tenant.clone();
        lab.submit(&plans::chain(1)).await;
    }
    lab.settle(&Script::deployed(), Deliver::Once).await;

    let mut api = connect_to(&supabase.url("authenticator")).await;
    let tables: Vec<String> = lab.admin.query(TABLES, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() >= 15);
    for role in ["anon", "authenticated", "service_role"] {
        let mut readable = 0;
        for table in &tables {
            let sql = format!("select tenant_id from nofx.{table}");
            match request(&mut api, role, "acme", &sql).await {
                Ok(rows) => {
                    assert_eq!(rows, [""; 0], "{role}, who is no member: {sql}");
                    readable += 1;
                }
                Err(refused) => assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE, "{role}: {sql}"),
            }
        }
        assert_eq!(readable, if role == "authenticated" { 14 } else { 0 }, "{role}");
        let answer = request(&mut api, role, "acme", "select nofx.sweep_leases(1)::text").await;
        assert_eq!(answer, Err(SqlState::INSUFFICIENT_PRIVILEGE), "{role}");
    }

    let members = "insert into nofx.membership (tenant_id, subject, role, name, created_by)
                   select tenant_id, 'ann', 'viewer', 'Ann', 'test' from nofx.tenant";
    lab.admin.batch_execute(members).await.unwrap();
    for tenant in ["acme", "other"] {
        let seen = request(&mut api, "authenticated", tenant, "select tenant_id from nofx.step").await;
        assert_eq!(seen, Ok(vec![tenant.to_owned()]));
        let same = "select (nofx.tenant_id() = auth.jwt() -> 'app_metadata' ->> 'tenant_id')::text";
        assert_eq!(request(&mut api, "authenticated", tenant, same).await, Ok(vec!["true".to_owned()]));
    }
    let seen = request(&mut api, "authenticated", "", "select tenant_id from nofx.run").await;
    assert_eq!(seen, Ok(Vec::new()), "no tenant, no rows");
    let answer = request(&mut api, "authenticated", "acme", "delete from nofx.run returning tenant_id").await;
    assert_eq!(answer, Err(SqlState::INSUFFICIENT_PRIVILEGE));
    drop((lab, api));
    supabase.end().await;
}
