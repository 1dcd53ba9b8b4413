//! The people who try a deployment to the emulator: an admin whom the owner of the database makes, and two people whom the admin
//! makes members. These log in with their passwords.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nofx_local::issuer::{Issuer, User, Users};
use nofx_local::migrate::tenant::{NewToken, make_token};
use nofx_local::process::supervision::Part;
use nofx_local::{database, port, stack};
use serde_json::{Value, json};
use shared::domain::{Kind, Role, TenantId};
use shared::view::AuthSettings;

use crate::client::api::Api;
use crate::client::issuer;
use crate::client::token::Token;
use crate::commands::{admin, login};

/// The tenant, and its first admin's id.
pub const TENANT: &str = "local";
const ADMIN: &str = "admin";
/// Who starts runs.
pub const STARTER: (&str, Role) = ("ann@local.test", Role::Operator);
/// Who decides their gates.
pub const DECIDER: (&str, Role) = ("ben@local.test", Role::Approver);

/// Everybody, and the issuer of their tokens.
pub struct People {
    /// A session of the first admin.
    pub admin: Token,
    /// A token of a service that may only read.
    pub viewer: Token,
    issuer: Part,
    variables: [(&'static str, String); 3],
    /// The users of the issuer, with their passwords.
    users: Vec<(User, String)>,
}

impl People {
    /// Makes the tenant with its admin in this database, and starts the issuer, with its files in a folder.
    pub async fn ready(database_url: &str, folder: &Path) -> Result<Self> {
        let (client, tenant) = (database::connect(database_url).await?, TenantId(TENANT.to_owned()));
        let admin = admin::first_admin(&client, &tenant, ADMIN, "admin@local.test").await?;
        let (kind, role, lasts) = (Kind::Service, Some(Role::Viewer), Duration::from_hours(1));
        let viewer =
            make_token(&client, &tenant, &NewToken { kind, owner: ADMIN, name: "viewer", role, lasts }).await?;

        let mut users = Users::open(folder)?;
        let mut passwords = Vec::new();
        for (email, role) in [STARTER, DECIDER] {
            passwords.push(users.set(email, &tenant, role)?.context("a new user")?.password);
        }
        let port = port::any_free()?;
        let issuer = Issuer::new(folder, port, users.all().to_vec())?;
        let variables = issuer.variables();
        let users = users.all().iter().cloned().zip(passwords).collect();
        let issuer = stack::logins::serve(issuer, port).await?;
        let [admin, viewer] = [admin, viewer].map(|token| Token::parse(&token.expose()));
        Ok(Self { admin: admin?, viewer: viewer?, issuer, variables, users })
    }

    /// The parameters of the template that name the issuer.
    pub fn parameters(&self) -> impl Iterator<Item = String> {
        self.variables.iter().map(|(name, value)| {
            let words = name.split('_').map(|word| format!("{}{}", &word[..1], word[1..].to_ascii_lowercase()));
            format!("{}={value}", words.collect::<String>())
        })
    }

    /// The API as this person calls it, whom the admin makes a member before.
    pub async fn log_in(&self, api: &Api, email: &str) -> Result<Api> {
        let found = self.users.iter().find(|(user, _)| user.email == email);
        let (user, password) = found.with_context(|| format!("nobody has the address {email}"))?;
        let member = json!({ "role": user.role, "email": user.email });
        let admin = api.clone().with_token(Some(self.admin.clone()));
        admin.put::<Value>(&format!("/members/{}", user.id), &member).await?;
        let settings: AuthSettings = api.get("/auth/config").await?;
        let grant = login::grant_of(&settings)?;
        let jwt = issuer::login(grant, settings.publishable_key.as_deref(), email, password).await?;
        let session = login::start_session(api, &jwt).await?;
        Ok(api.clone().with_token(Some(Token::parse(&session)?)))
    }

    pub async fn stop(self) {
        self.issuer.stop().await;
    }
}
