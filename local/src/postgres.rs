//! An embedded Postgres: server binaries from the Python environment, a cluster below `.local`, loopback only.
//!
//! Postgres refuses to run as root. So a command that runs as root starts it as the owner of the checkout or, if that
//! is root too, as `nobody`.

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
use crate::process::{self, PidFile, Process, Termination, server};
use crate::report::hinted;
use crate::tools::lock;
use crate::tools::python::PythonEnv;

/// Part of the name of the cached template. Increase it when the options of `initdb` below change.
const TEMPLATE_REVISION: u32 = 1;
const TERMINATION: Termination = Termination::new(Signal::INT, Duration::from_secs(20));

/// How a cluster is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its data must survive a crash of the machine.
    Persistent,
    /// For tests. Every role but the superuser can connect without a password.
    Throwaway,
}

const TRUST_ROLES: &str = "host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";

/// Server binaries, and the user that runs them.
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
    /// Keep root's right to enter all directories, because the checkout is in one that this user may not enter, such as
    /// `/root`.
    pass_directories: bool,
}

/// A cluster on disk, and how to connect to it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    password: String,
}

impl Cluster {
    /// The cluster that [`Postgres::create`] created in `dir`. It will listen on `port`.
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
    /// The newest server that starts on this machine and can access the checkout.
    pub async fn find(env: &PythonEnv, checkout: &Checkout) -> Result<Self> {
        Self::find_for(env, checkout, &checkout.local()).await
    }

    /// The same for a cluster below `state`.
    pub async fn find_for(env: &PythonEnv, checkout: &Checkout, state: &Path) -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let mut denied = None;
        for bin in env.postgres_dirs() {
            let users = if root { unprivileged_users(checkout)? } else { vec![None] };
            for user in users {
                let mut postgres = Self { bin: bin.clone(), major: 0, user };
                if let Some(major) = postgres.version(&checkout.local()).await {
                    if postgres.version(state).await.is_some() {
                        postgres.major = major;
                        return Ok(postgres);
                    }
                    denied = user;
                }
            }
        }
        if let Some(user) = denied {
            return Err(cannot_enter(state, user));
        }
        Err(hinted(
            "postgres: no server binary starts on this machine",
            if root {
                "it does not run as root, and the user nobody cannot enter the checkout: move it out of /root, or set DATABASE_URL"
            } else {
                "set DATABASE_URL to a Postgres of your own"
            },
        ))
    }

    /// Creates the cluster in `dir` if there is none. It copies a template in `cache`, which all clusters of the
    /// checkout share.
    pub async fn create(&self, cache: &Path, dir: &Path, purpose: Purpose, pid_file: &PidFile) -> Result<()> {
        if dir.join("PG_VERSION").is_file() {
            return self.check_version(dir);
        }
        let template = self.template(cache, pid_file).await?;
        let partial = dir.with_extension("new");
        let _ = fs::remove_dir_all(&partial);
        let (from, to, user) = (template.join("data"), partial.clone(), self.user);
        tokio::task::spawn_blocking(move || copy_tree(&from, &to, user)).await?.context("cannot copy the template")?;
        match purpose {
            Purpose::Persistent => self.sync(&partial, pid_file).await?,
            Purpose::Throwaway => {
                fs::write(partial.join("pg_hba.conf"), TRUST_ROLES).context("cannot configure the cluster")?;
            }
        }
        let password = fs::read_to_string(template.join("password")).context("cannot read the password")?;
        let _ = fs::remove_file(password_path(dir));
        write_secret(&password_path(dir), &password)?;
        fs::rename(&partial, dir).with_context(|| format!("cannot create {}", dir.display()))
    }

    /// Syncs a copied cluster to disk, as `initdb` would do.
    async fn sync(&self, dir: &Path, pid_file: &PidFile) -> Result<()> {
        let mut command = self.command("initdb");
        command.arg("--sync-only").arg("-D").arg(dir);
        command.stdout(Stdio::null());
        if process::run("initdb", command, pid_file).await? {
            Ok(())
        } else {
            bail!("postgres: initdb --sync-only failed")
        }
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&self, cluster: &Cluster, log: &Path, pid_file: &PidFile) -> Result<Process> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&cluster.dir);
        let port = format!("port={}", cluster.port);
        // No Unix socket, because its path must be short. 200 connections, because each test uses its own database.
        for setting in ["listen_addresses=127.0.0.1", &port, "unix_socket_directories=", "max_connections=200"] {
            command.args(["-c", setting]);
        }
        let url = cluster.url();
        server::start("postgres", command, TERMINATION, log, pid_file, || database::check(&url)).await
    }

    fn template_dir(&self, cache: &Path) -> PathBuf {
        cache.join(format!("postgres-{}-{TEMPLATE_REVISION}", self.major))
    }

    /// A new cluster from `initdb`, created once. Copying it takes a tenth of the time.
    async fn template(&self, cache: &Path, pid_file: &PidFile) -> Result<PathBuf> {
        let template = self.template_dir(cache);
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let _lock = lock::hold(cache.join("lock")).await?;
        if template.is_dir() {
            return Ok(template);
        }
        let partial = cache.join(format!("new-{}", Uuid::new_v4().simple()));
        let data = partial.join("data");
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        fs::DirBuilder::new().mode(0o700).create(&data).context("cannot create the data directory")?;
        let password = partial.join("password");
        write_secret(&password, &Uuid::new_v4().simple().to_string())?;
        self.change_owner(&data)?;
        self.change_owner(&password)?;

        let log = cache.join("initdb.log");
        let mut initdb = self.command("initdb");
        // The password is long and random, so repeated hashing at each connect would not make it safer.
        initdb.args(["-U", "postgres", "-A", "scram-sha-256", "-c", "scram_iterations=1"]);
        initdb.args(["-E", "UTF8", "--locale=C", "--no-instructions"]).arg("--pwfile").arg(&password);
        initdb.arg("-D").arg(&data);
        process::log_to(&mut initdb, &log)?;
        if !process::run("initdb", initdb, pid_file).await? {
            let _ = fs::remove_dir_all(&partial);
            bail!("postgres: initdb failed, see {}", log.display());
        }
        fs::rename(&partial, &template).with_context(|| format!("cannot create {}", template.display()))?;
        Ok(template)
    }

    fn check_version(&self, dir: &Path) -> Result<()> {
        let found = fs::read_to_string(dir.join("PG_VERSION")).context("cannot read the version of the cluster")?;
        if found.trim() == self.major.to_string() {
            return Ok(());
        }
        Err(hinted(
            format!("the local database is of Postgres {}, the server is {}", found.trim(), self.major),
            "nofx dev --reset starts with an empty database",
        ))
    }

    /// The major version. `None` if the server does not start here, or cannot enter `dir`.
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
        // On macOS, without a locale in the environment, the server becomes multithreaded at start and exits.
        command.current_dir("/").env("LC_ALL", "C").env_remove("PGDATA");
        command
    }

    fn change_owner(&self, path: &Path) -> Result<()> {
        let Some(user) = self.user else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid))
            .with_context(|| format!("cannot change the owner of {}", path.display()))
    }
}

/// The password file, next to the cluster. Only the owner of the checkout can read it.
fn password_path(dir: &Path) -> PathBuf {
    dir.with_extension("password")
}

/// Users as whom root can start a server: the owner of the checkout or `nobody`, without and with the right to enter
/// all directories.
fn unprivileged_users(checkout: &Checkout) -> Result<Vec<Option<RunAs>>> {
    let owner = fs::metadata(checkout.root()).context("cannot read the owner of the checkout")?;
    let (uid, gid) = if owner.uid() == 0 { nobody() } else { (owner.uid(), owner.gid()) };
    Ok([false, true].map(|pass_directories| Some(RunAs { uid, gid, pass_directories })).into())
}

/// The error for a state folder that the server's user cannot enter.
fn cannot_enter(state: &Path, user: RunAs) -> anyhow::Error {
    let folder = closed_folder(state, user.uid, user.gid).unwrap_or_else(|| state.to_owned());
    let folder = folder.display();
    hinted(
        format!(
            "postgres: it refuses to run as root, so it runs as the user {}, and that user cannot enter {folder}, which \
             contains its files",
            user.uid
        ),
        format!(
            "chmod o+x {folder}, or set NOFX_STATE_DIR to another folder, or DATABASE_URL to a Postgres of your own"
        ),
    )
}

/// The first folder on the path to `path` that a user cannot enter, by its permissions.
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

/// The ids of `nobody`: 65534 on Linux, -2 on macOS.
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
    fn the_error_names_the_folder_that_the_servers_user_cannot_enter() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let closed = base.path().join("closed");
        let state = closed.join("state");
        fs::create_dir_all(&state).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let owner = fs::metadata(&closed).unwrap();
        let stranger = RunAs { uid: owner.uid() + 1, gid: owner.gid() + 1, pass_directories: false };
        let error = cannot_enter(&state, stranger).to_string();
        assert!(error.contains(&format!("cannot enter {},", closed.display())), "{error}");
        assert_eq!(closed_folder(&closed, owner.uid(), owner.gid()), None);
    }
}
