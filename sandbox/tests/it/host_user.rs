//! The same promises for a user who is not root. Root's tests become that user.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::{Workspace, host, is_running, marker};

const UID: u32 = 65_533;

/// The sandbox's own binary, run by a normal user whose environment holds a secret.
struct User {
    workspace: Workspace,
    binary: PathBuf,
    _folder: tempfile::TempDir,
}

impl User {
    /// `None` if the tests are not root's: then all of them run as a normal user.
    fn new() -> Option<Self> {
        let workspace = Workspace::new();
        if !host().own_uid || !Path::new("/usr/bin/setpriv").exists() {
            return None;
        }
        rustix::fs::chown(workspace.path(), Some(rustix::fs::Uid::from_raw(UID)), Some(rustix::fs::Gid::from_raw(UID)))
            .unwrap();
        // The folder of the build may be closed to other users.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let binary = folder.path().join("nofx-sandbox");
        std::fs::copy(env!("CARGO_BIN_EXE_nofx-sandbox"), &binary).unwrap();
        Some(Self { workspace, binary, _folder: folder })
    }

    fn ask(&self, input: &str) -> Value {
        let mut child = std::process::Command::new("/usr/bin/setpriv")
            .args([&format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups"])
            .arg(&self.binary)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("SECRET", "plum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{input}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn python(&self, level: &str, script: &str, more: &Value) -> Value {
        let mut request = json!({
            "argv": ["/usr/bin/python3", "-I", "-c", script],
            "current_dir": self.workspace.path(),
            "writable": [self.workspace.path()],
            "environment": [["OWN_CANARY", "kiwi"]],
            "toolchain": true,
            "at_most": level,
        });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask(&request.to_string())
    }

    /// The levels that the host offers this user.
    fn levels(&self) -> Vec<&'static str> {
        let offered = self.ask("");
        let mut levels = vec!["limits"];
        if offered["landlock_abi"].as_u64() > Some(0) && offered["seccomp"] == true {
            levels.push("landlock");
        }
        if !offered["namespaces"].is_null() {
            levels.push("namespaces");
        }
        levels
    }
}

#[test]
fn the_environment_of_the_parent_is_unreadable() {
    let Some(user) = User::new() else { return };
    for level in user.levels() {
        let script = "import glob, os\nfor path in glob.glob('/proc/*/environ'):\n    try: print(open(path).read())\n    except OSError: pass\nprint(os.environ)";
        let answer = user.python(level, script, &json!({}));
        let text = answer["output"].as_str().unwrap();
        assert!(text.contains("kiwi") && !text.contains("plum"), "{level}: {answer}");
    }
}

#[test]
fn launcher_and_parent_survive_attacks_of_the_same_uid() {
    let Some(user) = User::new() else { return };
    let script = r#"
import os, signal
parent = os.getppid()
targets = [parent, -parent, -1]
try: targets.append(int(open(f"/proc/{parent}/stat").read().rsplit(")")[1].split()[1]))
except OSError: pass
# 0 would be the group of the script itself.
for pid in filter(None, targets):
    try: os.kill(pid, signal.SIGTERM if pid == -1 else signal.SIGKILL); print("sent", pid)
    except OSError as error: print(error)
"#;
    for level in user.levels().into_iter().filter(|level| *level != "limits") {
        for more in [json!({}), json!({"landlock_abi": 1})] {
            let answer = user.python(level, script, &more);
            let exit = &answer["exit"];
            // The signal to everything may reach the command itself.
            assert!(exit["code"] == 0 || exit["signal"] == 15, "{level} {more}: {answer}");
        }
    }
}

#[test]
fn daemons_and_fork_bombs_end() {
    let Some(user) = User::new() else { return };
    let marker = marker("user");
    let script = format!(
        "import os # {marker}\nos.setsid() if os.fork() == 0 else 0\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    );
    for level in user.levels() {
        let limits = json!({"cpu": null, "memory_bytes": null, "processes": 60, "file_bytes": null, "open_files": null, "disk_bytes": null});
        let answer = user.python(level, &script, &json!({"timeout_ms": 700, "limits": limits}));
        assert_eq!(answer["exit"], "timed_out", "{level}: {answer}");
        assert!(answer["report"]["killed_at_end"].as_u64() > Some(10), "{level}: {answer}");
        assert!(!is_running(&marker), "{level}");
    }
}

#[test]
fn services_of_the_user_are_unreachable_without_namespaces() {
    let Some(user) = User::new() else { return };
    let path = user.workspace.path().join("service");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = "import socket\ntry:\n    socket.socket(socket.AF_UNIX).connect('service'); print('connected')\nexcept OSError as error: print(error)";
    if user.levels().contains(&"landlock") {
        let answer = user.python("landlock", script, &json!({}));
        assert!(!answer["output"].as_str().unwrap().contains("connected"), "{answer}");
        assert!(listener.accept().is_err());
    }
}
