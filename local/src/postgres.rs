//! An embedded Postgres: server binaries from the Python environment, a cluster below `.local`, loopback only.
//!
//! Postgres refuses to run as root. A command that runs as root therefore starts it as the owner of the checkout or,
//! if that is root too, as `nobody`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::process::Command;
use uuid::Uuid;

use crate::checkout::Checkout;
use crate::database;
use crate::process::{self, Ending, Ledger, Process, server};
use crate::report::hinted;
use crate::tools::python::PythonEnv;

/// Part of the name of the cached template: raise it when the options of `initdb` below change.
const TEMPLATE_REVISION: u32 = 1;
const ENDING: Ending = Ending::new(Signal::INT, Duration::from_secs(20));

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Work that is to survive a crash of the machine.
    Kept,
    /// Tests: it goes away soon, and who is not the superuser gets in without a password, as any role.
    Throwaway,
}

const TRUST_ROLES: &str = "host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";

/// Server binaries, and the user they run as.
#[derive(Clone, Debug)]
pub struct Postgres {
    bin: PathBuf,
    major: u32,
    user: Option<RunAs>,
}

/// The unprivileged user of a command that runs as root.
#[derive(Clone, Copy, Debug)]
struct RunAs {
    uid: u32,
    gid: u32,
    /// The checkout lies where this user may not go (`/root`): the server keeps root's right to pass directories.
    pass_directories: bool,
}

/// A cluster on disk and how to reach it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    password: String,
}

impl Cluster {
    /// The cluster that [`Postgres::create`] made in `dir`, to listen on `port`.
    pub fn open(dir: PathBuf, port: u16) -> Result<Self> {
        let path = password_path(&dir);
        let password = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { dir, port, password })
    }

    /// The URL of the database `postgres` for its superuser.
    pub fn url(&self) -> String {
        format!("postgresql://postgres:{}@127.0.0.1:{}/postgres?sslmode=disable", self.password, self.port)
    }
}

impl Postgres {
    /// The newest server of the environment that starts here and may enter the checkout.
    pub async fn find(env: &PythonEnv, checkout: &Checkout) -> Result<Self> {
        Self::find_for(env, checkout, &checkout.local()).await
    }

    /// The same for a cluster below `state`, which may lie elsewhere.
    pub async fn find_for(env: &PythonEnv, checkout: &Checkout, state: &Path) -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let mut kept_out = None;
        for bin in env.postgres_dirs() {
            let users = if root { unprivileged_users(checkout)? } else { vec![None] };
            for user in users {
                let mut postgres = Self { bin: bin.clone(), major: 0, user };
                if let Some(major) = postgres.version(&checkout.local()).await {
                    if postgres.version(state).await.is_some() {
                        postgres.major = major;
                        return Ok(postgres);
                    }
                    kept_out = user;
                }
            }
        }
        if let Some(user) = kept_out {
            return Err(kept_out_of(state, user));
        }
        Err(hinted(
            "postgres: no server binary starts on this machine",
            if root {
                "it does not run as root, and the user nobody may not enter the checkout: move it out of /root, or set DATABASE_URL"
            } else {
                "set DATABASE_URL to a Postgres of your own"
            },
        ))
    }

    /// Makes the cluster in `dir` if there is none. `cache` holds one template for all clusters of the checkout.
    pub async fn create(&self, cache: &Path, dir: &Path, purpose: Purpose, ledger: &Ledger) -> Result<()> {
        if dir.join("PG_VERSION").is_file() {
            return self.check_version(dir);
        }
        let template = self.template(cache, ledger).await?;
        let half = dir.with_extension("new");
        let _ = fs::remove_dir_all(&half);
        let (from, to, user) = (template.join("data"), half.clone(), self.user);
        tokio::task::spawn_blocking(move || copy_tree(&from, &to, user)).await?.context("cannot copy the template")?;
        match purpose {
            Purpose::Kept => self.sync(&half, ledger).await?,
            Purpose::Throwaway => {
                fs::write(half.join("pg_hba.conf"), TRUST_ROLES).context("cannot configure the cluster")?;
            }
        }
        let password = fs::read_to_string(template.join("password")).context("cannot read the password")?;
        let _ = fs::remove_file(password_path(dir));
        write_secret(&password_path(dir), &password)?;
        fs::rename(&half, dir).with_context(|| format!("cannot create {}", dir.display()))
    }

    /// Forces a freshly copied cluster to disk, as `initdb` would have done.
    async fn sync(&self, dir: &Path, ledger: &Ledger) -> Result<()> {
        let mut command = self.command("initdb");
        command.arg("--sync-only").arg("-D").arg(dir);
        command.stdout(Stdio::null());
        if process::run("initdb", command, ledger).await? {
            Ok(())
        } else {
            bail!("postgres: initdb --sync-only failed")
        }
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&self, cluster: &Cluster, log: &Path, ledger: &Ledger) -> Result<Process> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&cluster.dir);
        let port = format!("port={}", cluster.port);
        // A socket file would need a short path; 127.0.0.1 is enough. Tests open a database each: 200 connections.
        for setting in ["listen_addresses=127.0.0.1", &port, "unix_socket_directories=", "max_connections=200"] {
            command.args(["-c", setting]);
        }
        let url = cluster.url();
        server::start("postgres", command, ENDING, log, ledger, || database::check(&url)).await
    }

    fn template_dir(&self, cache: &Path) -> PathBuf {
        cache.join(format!("postgres-{}-{TEMPLATE_REVISION}", self.major))
    }

    /// A cluster straight from `initdb`, made once: copying it takes a tenth of the time.
    async fn template(&self, cache: &Path, ledger: &Ledger) -> Result<PathBuf> {
        let template = self.template_dir(cache);
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let lock = fs::File::create(cache.join("lock")).context("cannot lock the cache")?;
        let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await?.context("cannot lock")?;
        if template.is_dir() {
            return Ok(template);
        }
        let half = cache.join(format!("new-{}", Uuid::new_v4().simple()));
        let data = half.join("data");
        fs::create_dir_all(&half).with_context(|| format!("cannot create {}", half.display()))?;
        fs::DirBuilder::new().mode(0o700).create(&data).context("cannot create the data directory")?;
        let password = half.join("password");
        write_secret(&password, &Uuid::new_v4().simple().to_string())?;
        self.give(&data)?;
        self.give(&password)?;

        let log = cache.join("initdb.log");
        let mut initdb = self.command("initdb");
        // The password is random and long, so hashing it thousands of times at each connect protects nothing.
        initdb.args(["-U", "postgres", "-A", "scram-sha-256", "-c", "scram_iterations=1"]);
        initdb.args(["-E", "UTF8", "--locale=C", "--no-instructions"]).arg("--pwfile").arg(&password);
        initdb.arg("-D").arg(&data);
        process::log_to(&mut initdb, &log)?;
        if !process::run("initdb", initdb, ledger).await? {
            let _ = fs::remove_dir_all(&half);
            bail!("postgres: initdb failed, see {}", log.display());
        }
        fs::rename(&half, &template).with_context(|| format!("cannot create {}", template.display()))?;
        Ok(template)
    }

    fn check_version(&self, dir: &Path) -> Result<()> {
        let found = fs::read_to_string(dir.join("PG_VERSION")).context("cannot read the version of the cluster")?;
        if found.trim() == self.major.to_string() {
            return Ok(());
        }
        Err(hinted(
            format!("the local database was made by Postgres {}, the server is {}", found.trim(), self.major),
            "nofx dev --reset starts with an empty one",
        ))
    }

    /// The major version; none if the server does not start here, or may not enter `dir`.
    async fn version(&self, dir: &Path) -> Option<u32> {
        let mut command = self.command("postgres");
        let output = command.arg("--version").current_dir(dir).kill_on_drop(true).output().await.ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.rsplit(' ').next()?.split('.').next()?.trim().parse().ok()
    }

    fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        let mut command = match self.user {
            Some(RunAs { uid, gid, pass_directories: true }) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                command.args(["--securebits=+no_setuid_fixup", "--inh-caps=-all,+dac_read_search"]);
                command.args(["--ambient-caps=-all,+dac_read_search", "--"]).arg(path);
                command
            }
            Some(RunAs { uid, gid, pass_directories: false }) => {
                let mut command = Command::new(path);
                command.uid(uid).gid(gid);
                command
            }
            None => Command::new(path),
        };
        // macOS: without a locale in the environment the server becomes multithreaded at start and gives up.
        command.current_dir("/").env("LC_ALL", "C").env_remove("PGDATA");
        command
    }

    fn give(&self, path: &Path) -> Result<()> {
        let Some(user) = self.user else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid)).with_context(|| format!("cannot give away {}", path.display()))
    }
}

/// Beside the cluster, for the owner of the checkout only.
fn password_path(dir: &Path) -> PathBuf {
    dir.with_extension("password")
}

/// Whom root may start a server as: the owner of the checkout, or `nobody`, who may need help to get there.
fn unprivileged_users(checkout: &Checkout) -> Result<Vec<Option<RunAs>>> {
    let owner = fs::metadata(checkout.root()).context("cannot look at the checkout")?;
    let (uid, gid) = if owner.uid() == 0 { nobody() } else { (owner.uid(), owner.gid()) };
    Ok([false, true].map(|pass_directories| Some(RunAs { uid, gid, pass_directories })).into())
}

/// The error of a state folder that the server's user cannot reach.
fn kept_out_of(state: &Path, user: RunAs) -> anyhow::Error {
    let folder = closed_folder(state, user.uid, user.gid).unwrap_or_else(|| state.to_owned());
    let folder = folder.display();
    hinted(
        format!(
            "postgres: it runs as the user {} because it refuses to run as root, and that user may not enter {folder}, \
             where its files are to be",
            user.uid
        ),
        format!(
            "let it pass: chmod o+x {folder}; or set NOFX_STATE_DIR to a folder outside, or DATABASE_URL to a Postgres of \
             your own"
        ),
    )
}

/// The first folder on the way to `path` that a user may not enter, by the permissions that it has.
fn closed_folder(path: &Path, uid: u32, gid: u32) -> Option<PathBuf> {
    let mut folders: Vec<&Path> = path.ancestors().collect();
    folders.reverse();
    let closed = folders.into_iter().find(|folder| {
        fs::metadata(folder).is_ok_and(|metadata| {
            let may_enter = match (metadata.uid() == uid, metadata.gid() == gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            metadata.permissions().mode() & may_enter == 0
        })
    });
    closed.map(Path::to_owned)
}

/// The ids of `nobody`; Linux distributions agree on 65534, macOS uses -2.
fn nobody() -> (u32, u32) {
    let id = if cfg!(target_os = "macos") { u32::MAX - 1 } else { 65534 };
    (id, id)
}

fn copy_tree(from: &Path, to: &Path, user: Option<RunAs>) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        fs::DirBuilder::new().mode(metadata.permissions().mode()).create(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_tree(&entry.path(), &to.join(entry.file_name()), user)?;
        }
    } else {
        fs::copy(from, to)?;
    }
    match user {
        Some(user) => chown(to, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(secret.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_that_the_servers_user_cannot_enter_is_named_with_what_to_do() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let closed = base.path().join("closed");
        let state = closed.join("state");
        fs::create_dir_all(&state).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let owner = fs::metadata(&closed).unwrap();
        let stranger = RunAs { uid: owner.uid() + 1, gid: owner.gid() + 1, pass_directories: false };
        let error = kept_out_of(&state, stranger).to_string();
        assert!(error.contains(&format!("may not enter {},", closed.display())), "{error}");
        assert_eq!(closed_folder(&closed, owner.uid(), owner.gid()), None);
    }
}
