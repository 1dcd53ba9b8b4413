//! The people who log in to a local stack, and the issuer of their tokens.

use std::path::Path;

use anyhow::Result;
use shared::domain::{Role, TenantId};
use tokio_postgres::Client;

use crate::gateway::server::only_local_hosts;
use crate::issuer::{Issuer, NewUser, User, Users};
use crate::migrate::tenant::{Person, add_member, set_member, team_tenant};
use crate::process::supervision::Part;
use crate::stack::environment::TENANT;

/// The folder of the issuer, below that of the stack.
pub const FOLDER: &str = "auth";
/// The first admin.
pub const ADMIN: &str = "admin@local.test";

/// Serves an issuer on its port.
pub async fn serve(issuer: Issuer, port: u16) -> Result<Part> {
    super::serve(port, only_local_hosts(issuer.router()), || (), Some(super::HEAD_LIMIT)).await
}

/// Who logs in, besides those who did before.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    pub people: Vec<(String, Role)>,
}

impl Logins {
    /// The issuer, and the users who are new. All users are members then. Who was a member keeps the role that an admin
    /// gave them, unless these options name them.
    pub async fn ready(&self, folder: &Path, port: u16, client: &Client) -> Result<(Issuer, Vec<NewUser>)> {
        let tenant = TenantId(TENANT.to_owned());
        team_tenant(client, &tenant).await?;
        let mut users = Users::open(folder)?;
        let mut new = Vec::new();
        if !users.all().iter().any(|user| user.email == ADMIN) {
            new.extend(users.set(ADMIN, &tenant, Role::Admin)?);
        }
        for (email, role) in &self.people {
            new.extend(users.set(email, &tenant, *role)?);
        }
        for user in users.all() {
            let subject = user.id.to_string();
            let person = Person { subject: &subject, email: &user.email, role: user.role };
            if self.names(user) || new.iter().any(|new| new.email == user.email) {
                set_member(client, &tenant, &person).await?;
            } else {
                add_member(client, &tenant, &person).await?;
            }
        }
        Ok((Issuer::new(folder, port, users.all().to_vec())?, new))
    }

    fn names(&self, user: &User) -> bool {
        self.people.iter().any(|(email, _)| email.eq_ignore_ascii_case(&user.email))
    }
}
