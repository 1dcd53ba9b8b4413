//! The `nofx` command as a program: in a pipe, and on a terminal of its own.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::{env, fs, thread};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A program of this workspace, built now.
pub fn program(name: &str) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--bin", name])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status();
    assert!(built.expect("run cargo").success(), "{name} is built");
    // This test is in the folder `deps` beside the programs.
    let own = env::current_exe().expect("this program");
    own.parent().and_then(Path::parent).expect("the folder of programs").join(name)
}

/// The command as a person calls it, with the API at one address.
pub struct Nofx {
    program: PathBuf,
    url: String,
    folder: TempDir,
}

impl Nofx {
    pub fn at(url: &str) -> Self {
        Self { program: program("nofx"), url: url.to_owned(), folder: tempfile::tempdir().expect("a folder") }
    }

    /// Where commands run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the file with the plan of a run.
    pub fn plan(&self, plan: &Value) -> &'static str {
        const FILE: &str = "plan.json";
        let document = serde_json::json!({ "plan": plan });
        fs::write(self.folder().join(FILE), document.to_string()).expect("write the plan");
        FILE
    }

    /// A call without the settings of whoever runs the tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.folder()).stdin(Stdio::null()).env_clear();
        command.envs(env::vars_os().filter(|(name, _)| name == "PATH"));
        let profiles = self.folder().join("config.toml");
        command.env("HOME", self.folder()).env("NOFX_CONFIG", profiles).env("NOFX_API_URL", &self.url);
        command.env("USER", "ann").env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        command
    }

    /// Runs a call in a pipe. The test's servers answer in the meantime.
    pub async fn output(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    /// Runs a call that succeeds and prints JSON.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {printed}{why}");
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}"))
    }
}

/// Runs a command in a pipe.
pub async fn output(command: Command) -> Output {
    tokio::process::Command::from(command).kill_on_drop(true).output().await.expect("the program starts")
}

/// What a terminal of this size shows.
pub fn screen(columns: u16, rows: u16) -> vt100::Parser {
    let size = |count| NonZero::new(count).expect("a size");
    vt100::Parser::new(size(rows), size(columns), 0)
}

/// A program on a terminal. It is killed with this value.
pub struct Terminal {
    pub child: Child,
    chunks: mpsc::UnboundedReceiver<Vec<u8>>,
    /// What it has written.
    pub written: Vec<u8>,
    screen: vt100::Parser,
}

impl Terminal {
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
        let copy = || Stdio::from(slave.try_clone().expect("a copy"));
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("the program starts");
        let (sender, chunks) = mpsc::unbounded_channel();
        let mut master = File::from(master);
        thread::spawn(move || {
            let mut buffer = [0; 8_192];
            // An error: the program has ended, and nobody has the other end.
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, chunks, written: Vec::new(), screen: screen(columns, rows) }
    }

    /// Waits until it has written more. False, if it has ended.
    pub async fn more(&mut self) -> bool {
        let Some(chunk) = self.chunks.recv().await else { return false };
        self.screen.process(&chunk);
        self.written.extend(chunk);
        true
    }

    /// What a person sees now.
    pub fn seen(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until a person sees this.
    pub async fn until(&mut self, text: &str) {
        while !self.seen().contains(text) {
            assert!(self.more().await, "it ended without {text}: {}", self.seen());
        }
    }

    /// Waits until it ends.
    pub async fn end(&mut self) -> ExitStatus {
        while self.more().await {}
        self.child.wait().expect("it ends")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
