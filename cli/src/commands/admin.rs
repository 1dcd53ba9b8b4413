//! `nofx admin`: what only the owner of the database may do. It creates the first admin of a tenant, and restores access if
//! nobody can log in any more.

use std::time::Duration;

use anyhow::Result;
use nofx_local::database;
use nofx_local::migrate::tenant::{NewToken, Person, make_token, set_member};
use nofx_local::report::{self, hinted};
use shared::auth::ApiToken;
use shared::domain::{Kind, Role, TenantId};
use tokio_postgres::Client;

use crate::commands::limits;

/// Lifetime of the session of `bootstrap`.
const SESSION: Duration = Duration::from_hours(1);

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Create a tenant with an admin, and print a token of the admin that expires after an hour
    Bootstrap(Bootstrap),
    /// Create a token for a program, and print it
    Token(Token),
    /// Set limits of a tenant
    Limits {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        change: limits::Change,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub struct Bootstrap {
    #[command(flatten)]
    place: Place,
    /// The admin's id at the issuer: `sub` of their tokens
    #[arg(long, value_name = "SUB")]
    subject: String,
    /// The admin's e-mail address
    #[arg(long)]
    email: String,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Token {
    #[command(flatten)]
    place: Place,
    /// Kind of program. An agent can never decide gates, or change the policy, rules, members or tokens
    #[arg(long, value_parser = program, value_name = "agent|service")]
    kind: Kind,
    /// Name in events and lists
    #[arg(long)]
    name: String,
    /// viewer, operator, approver or admin
    #[arg(long, value_parser = role)]
    role: Role,
    /// Id of the member who owns it: it is revoked when they are removed
    #[arg(long, value_name = "SUB")]
    owner: String,
    /// Days until it expires
    #[arg(long, default_value_t = 90, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=365))]
    expires_days: u32,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Connection URL of the database, with the login that applied the migrations
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// Id of the tenant
    #[arg(long, value_parser = tenant, value_name = "ID")]
    tenant: TenantId,
}

pub async fn run(command: &Command) -> Result<()> {
    match command {
        Command::Bootstrap(args) => bootstrap(args).await,
        Command::Token(args) => token(args).await,
        Command::Limits { place, change } => limits::set(&place.database_url, &place.tenant, change).await,
    }
}

/// Creates the tenant, its admin, and a session of the admin.
pub async fn first_admin(client: &Client, tenant: &TenantId, subject: &str, email: &str) -> Result<ApiToken> {
    set_member(client, tenant, &Person { subject, email, role: Role::Admin }).await?;
    let session = NewToken { kind: Kind::Person, owner: subject, name: "bootstrap", role: None, lasts: SESSION };
    make_token(client, tenant, &session).await
}

async fn bootstrap(args: &Bootstrap) -> Result<()> {
    let Place { database_url, tenant } = &args.place;
    let client = database::connect(database_url).await?;
    let token = first_admin(&client, tenant, &args.subject, &args.email).await?;
    report::line("admin", format_args!("{} is an admin of {tenant}", args.email));
    report::line("token", "for an hour, shown once; put it into NOFX_TOKEN");
    println!("{}", token.expose());
    Ok(())
}

async fn token(args: &Token) -> Result<()> {
    let Place { database_url, tenant } = &args.place;
    if args.kind == Kind::Agent && args.role >= Role::Approver {
        return Err(hinted("an agent is a viewer or an operator", "it can never decide gates, whatever its role is"));
    }
    let client = database::connect(database_url).await?;
    let lasts = Duration::from_hours(24) * args.expires_days;
    let new = NewToken { kind: args.kind, owner: &args.owner, name: &args.name, role: Some(args.role), lasts };
    let token = make_token(&client, tenant, &new).await?;
    report::line("token", format_args!("for {} days, shown once; put it into NOFX_TOKEN", args.expires_days));
    println!("{}", token.expose());
    Ok(())
}

fn tenant(text: &str) -> Result<TenantId, &'static str> {
    TenantId::parse(text).ok_or("a tenant has 1 to 64 letters, digits, _ . and -, and does not start with a dot")
}

fn role(text: &str) -> Result<Role, &'static str> {
    Role::parse(text).ok_or("a role is viewer, operator, approver or admin")
}

fn program(text: &str) -> Result<Kind, &'static str> {
    Kind::parse(text).filter(|kind| *kind != Kind::Person).ok_or("a program is an agent or a service")
}
