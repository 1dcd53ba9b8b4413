//! The users of the issuer, in a file of its folder.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use shared::domain::{Role, TenantId};
use uuid::Uuid;

use super::password::Stored;

/// A user, with the role with which it became a member.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub tenant: TenantId,
    pub role: Role,
    pub(super) password: Stored,
}

/// A user who did not exist before. The password is shown once.
#[derive(Debug)]
pub struct NewUser {
    pub email: String,
    pub role: Role,
    pub password: String,
}

/// The file.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    users: Vec<User>,
}

impl Users {
    /// The users of an issuer's folder. None if there is no file.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("users.json");
        let users = match fs::read(&file) {
            Ok(json) => serde_json::from_slice(&json).with_context(|| format!("{} is not readable", file.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self { file, users })
    }

    pub fn all(&self) -> &[User] {
        &self.users
    }

    /// Adds a user, unless there is one with this e-mail address, who then gets this role.
    pub fn set(&mut self, email: &str, tenant: &TenantId, role: Role) -> Result<Option<NewUser>> {
        let known = self.users.iter_mut().find(|user| user.email.eq_ignore_ascii_case(email) && user.tenant == *tenant);
        let new = if let Some(user) = known {
            user.role = role;
            None
        } else {
            let (password, stored) = Stored::generate()?;
            let (id, email, tenant) = (Uuid::new_v4(), email.to_owned(), tenant.clone());
            self.users.push(User { id, email: email.clone(), tenant, role, password: stored });
            Some(NewUser { email, role, password })
        };
        self.save()?;
        Ok(new)
    }

    /// Writes the file in one step. Only its owner can read it.
    fn save(&self) -> Result<()> {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.file.parent() {
                fs::create_dir_all(folder)?;
                fs::set_permissions(folder, Permissions::from_mode(0o700))?;
            }
            let next = self.file.with_extension("json.new");
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&serde_json::to_vec_pretty(&self.users)?)?;
            fs::rename(&next, &self.file)
        };
        write().with_context(|| format!("cannot write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_keeps_id_and_password_and_nobody_else_can_read_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("auth");
        let tenant = TenantId("local".into());
        let mut users = Users::open(&folder).unwrap();
        assert!(users.all().is_empty());
        let new = users.set("Ann@local.test", &tenant, Role::Approver).unwrap().unwrap();
        let first = users.all()[0].clone();
        assert!(users.set("ann@LOCAL.test", &tenant, Role::Admin).unwrap().is_none());

        let again = Users::open(&folder).unwrap();
        let [user] = again.all() else { panic!("one user, not {:?}", again.all()) };
        assert_eq!((user.id, user.email.as_str(), user.role), (first.id, "Ann@local.test", Role::Admin));
        assert!(user.password.is(&new.password));
        let file = folder.join("users.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!fs::read_to_string(&file).unwrap().contains(&new.password));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("users.json"), "[{").unwrap();
        assert!(Users::open(folder.path()).unwrap_err().to_string().contains("is not readable"));
    }
}
