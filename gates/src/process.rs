//! Runs a package manager with a minimal environment, its own process group, a timeout and captured output. No code of
//! the workspace runs here: that is what the sandbox is for.
//!
//! No process of the command outlives the call, even if the call's future is dropped. The whole group is killed. On Linux
//! processes that left the group are killed too; a tag in their environment shows which they are. Memory and network are
//! not limited.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::time::timeout;

/// How much of the end of the output to keep.
const TAIL_BYTES: usize = 64 * 1024;

/// The environment variable that tags processes, so that the gate finds those that left their group.
const TAG_VARIABLE: &str = "NOFX_GATE_ATTEMPT";

/// A command and its complete environment. It inherits no variable.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments. The program is looked up in the PATH of `environment`.
    pub argv: Vec<String>,
    pub current_dir: PathBuf,
    pub environment: Vec<(String, String)>,
    pub timeout: Duration,
    /// Unique to the attempt.
    pub tag: String,
}

/// The result of a command.
#[derive(Debug)]
pub struct CommandResult {
    pub exit: Exit,
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    TimedOut,
}

/// The end of standard output and standard error as one stream, in the order of writing.
#[derive(Debug, Default)]
pub struct Output(VecDeque<u8>);

/// Runs the command until it ends or times out. An error means that it could not be started or watched.
pub async fn run(command: &Command) -> io::Result<CommandResult> {
    // How long to drain the pipe once all writers are dead.
    const DRAIN: Duration = Duration::from_secs(2);
    let (mut child, reader) = spawn(command)?;
    let mut group = ProcessGroup {
        leader: child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
        tag: command.tag.clone(),
    };
    let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let mut output = Output::default();
    let status = timeout(command.timeout, read_until_exit(&mut child, &mut reader, &mut output)).await;
    // Kill even after a normal exit: a background process would keep the pipe open and outlive the gate.
    group.kill();
    let exit = if let Ok(status) = status {
        exit_of(status?)
    } else {
        child.wait().await?;
        Exit::TimedOut
    };
    group.leader = None;
    let _ = timeout(DRAIN, read_all(&mut reader, &mut output)).await;
    Ok(CommandResult { exit, output })
}

fn spawn(command: &Command) -> io::Result<(Child, io::PipeReader)> {
    let (program, arguments) = command.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (reader, writer) = io::pipe()?;
    let mut builder = tokio::process::Command::new(program);
    builder
        .args(arguments)
        .current_dir(&command.current_dir)
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .env(TAG_VARIABLE, &command.tag)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    // The builder owns our copies of the pipe's write end. Dropping it here closes them, else the reader would never
    // see the end of the output.
    builder.spawn().map(|child| (child, reader))
}

async fn read_until_exit(
    child: &mut Child,
    reader: &mut pipe::Receiver,
    output: &mut Output,
) -> io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        read = read_all(reader, output) => read?,
    }
    child.wait().await
}

async fn read_all(reader: &mut pipe::Receiver, output: &mut Output) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        output.push(buffer.get(..count).unwrap_or_default());
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.drain(..self.0.len().saturating_sub(TAIL_BYTES));
    }

    pub fn tail(&self) -> String {
        let (first, second) = self.0.as_slices();
        String::from_utf8_lossy(&[first, second].concat()).into_owned()
    }
}

/// The processes of a command. Dropping this kills them.
struct ProcessGroup {
    /// `None` once the leader was reaped, because another process may then have its pid.
    leader: Option<Pid>,
    tag: String,
}

impl ProcessGroup {
    fn kill(&self) {
        // A process that was being forked shows up in the next round.
        const ROUNDS: usize = 10;
        if let Some(leader) = self.leader {
            // It fails only if no process is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
        for _ in 0..ROUNDS {
            let survivors = tagged_processes(&self.tag);
            if survivors.is_empty() {
                return;
            }
            for process in survivors {
                let _ = kill_process(process, Signal::KILL);
            }
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.leader.is_some() {
            self.kill();
        }
    }
}

/// Running processes with our tag in their environment. Empty except on Linux: other systems do not show the
/// environment.
fn tagged_processes(tag: &str) -> Vec<Pid> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let wanted = format!("{TAG_VARIABLE}={tag}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        // The environment of a zombie is empty, so killed processes do not match.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    pids.filter(is_ours).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, timeout: Duration) -> (tempfile::TempDir, Command) {
        let folder = tempfile::tempdir().unwrap();
        let command = Command {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            current_dir: folder.path().to_path_buf(),
            environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            timeout,
            tag: uuid::Uuid::new_v4().to_string(),
        };
        (folder, command)
    }

    const LONG: Duration = Duration::from_secs(20);

    fn is_alive(pid: &str) -> bool {
        // A killed process may stay a zombie until its new parent reaps it.
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    }

    async fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
        for _ in 0..200 {
            if is_true() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} did not happen");
    }

    #[tokio::test]
    async fn exit_codes_and_signals_are_distinguished() {
        let (_folder, command) = shell("echo out; echo err >&2; exit 3", LONG);
        let result = run(&command).await.unwrap();
        assert_eq!((result.exit, result.output.tail().as_str()), (Exit::Code(3), "out\nerr\n"));
        let (_folder, command) = shell("kill -TERM $$", LONG);
        assert_eq!(run(&command).await.unwrap().exit, Exit::Signal(15));
    }

    #[tokio::test]
    async fn a_command_inherits_no_variable() {
        // Cargo sets variables for its tests. The command must not see any of them.
        assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
        let (_folder, command) = shell("env", LONG);
        let seen = run(&command).await.unwrap().output.tail();
        let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["NOFX_GATE_ATTEMPT", "PATH"]);
    }

    #[tokio::test]
    async fn only_the_tail_of_a_long_output_is_kept() {
        let (_folder, command) = shell("head -c 1000000 /dev/zero | tr '\\0' 'a'; echo end", LONG);
        let output = run(&command).await.unwrap().output;
        assert_eq!(output.tail().len(), TAIL_BYTES);
        assert!(output.tail().ends_with("aend\n"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_timeout_kills_grandchildren() {
        let (folder, command) =
            shell("sleep 60 & echo $! > pid; (sleep 61 & echo $! > pid2; wait) ; wait", Duration::from_millis(500));
        let started = Instant::now();
        assert_eq!(run(&command).await.unwrap().exit, Exit::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(10));
        for file in ["pid", "pid2"] {
            let pid = fs::read_to_string(folder.path().join(file)).unwrap();
            wait_until("the end of a grandchild", || !is_alive(pid.trim())).await;
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn background_processes_are_killed_when_the_command_exits() {
        let (folder, command) = shell("sleep 60 & echo $! > pid", LONG);
        let started = Instant::now();
        assert_eq!(run(&command).await.unwrap().exit, Exit::Code(0));
        assert!(started.elapsed() < Duration::from_secs(10), "the pipe was held open");
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
        wait_until("the end of the background process", || !is_alive(pid.trim())).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_process_that_left_its_group_is_killed() {
        let (folder, command) =
            shell("setsid sh -c 'echo $$ > pid; exec sleep 60' & while ! [ -s pid ]; do sleep 0.01; done", LONG);
        run(&command).await.unwrap();
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
        wait_until("the end of the daemon", || !is_alive(pid.trim())).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn dropping_the_call_leaves_no_process_and_no_zombie() {
        let (folder, command) = shell("sleep 60 & echo $! > child; echo $$ > leader; wait", LONG);
        let pids = ["leader", "child"].map(|file| folder.path().join(file));
        tokio::select! {
            _ = run(&command) => panic!("the command ended by itself"),
            () = wait_until("its start", || pids.iter().all(|file| fs::read(file).is_ok_and(|pid| pid.ends_with(b"\n")))) => {}
        }
        for file in pids {
            let pid = fs::read_to_string(file).unwrap();
            wait_until("the end of a process", || !is_alive(pid.trim())).await;
        }
        let leader = fs::read_to_string(folder.path().join("leader")).unwrap();
        // The runtime reaps dead children when the next child ends.
        wait_until("reaping the leader", || !fs::exists(format!("/proc/{}", leader.trim())).unwrap()).await;
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let (_folder, mut command) = shell("", LONG);
        command.argv = vec!["no-such-program".into()];
        assert_eq!(run(&command).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
