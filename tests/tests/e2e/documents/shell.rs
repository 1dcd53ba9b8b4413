//! One Bash for the `sh` blocks of a page, so that variables and the current folder last from block to block.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Any failing command ends the shell, unless the block says `exit=N`. The trap notes the lines of commands that failed.
const START: &str = r#"
set -Eeuo pipefail
exec 3>&1
trap 'echo "${BASH_SOURCE[0]-} $LINENO $?" >>"$FAILURES"' ERR
"#;

/// Timeout of a block.
const LIMIT: Duration = Duration::from_mins(5);

pub struct Shell {
    _child: Child,
    input: ChildStdin,
    status: Lines<BufReader<ChildStdout>>,
    failures: PathBuf,
    printed: PathBuf,
}

/// Where the commands are, and how they must end.
pub struct Script<'a> {
    pub file: &'a Path,
    /// The folder to run in, if not the one that the block before left.
    pub folder: Option<&'a Path>,
    /// The exit status of the last command. Every other one must succeed.
    pub exit: u8,
}

impl Shell {
    /// A shell in this folder. `files` is a folder for its own files.
    pub async fn start(mut bash: Command, files: &Path) -> io::Result<Self> {
        let failures = files.join("failures");
        bash.args(["--noprofile", "--norc", "-s"]).env("FAILURES", &failures).kill_on_drop(true);
        let mut child = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(START.as_bytes()).await?;
        let status = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Ok(Self { _child: child, input, status, failures, printed: files.join("printed") })
    }

    /// What the commands print, to both of their outputs. The error says which line failed.
    pub async fn run(&mut self, script: &Script<'_>) -> Result<String, String> {
        fs::write(&self.failures, "").map_err(|error| error.to_string())?;
        let (file, printed) = (quoted(script.file), quoted(&self.printed));
        let enter = script.folder.map(|folder| format!("here=$PWD; cd {}; ", quoted(folder))).unwrap_or_default();
        let leave = if script.folder.is_some() { "; cd \"$here\"" } else { "" };
        let (lenient, strict) = if script.exit == 0 { ("", "") } else { ("set +e; ", "; set -e") };
        let line =
            format!("{enter}{lenient}source {file} </dev/null >{printed} 2>&1; echo \"$?\" >&3{strict}{leave}\n");
        self.input.write_all(line.as_bytes()).await.map_err(|error| format!("the shell has ended: {error}"))?;
        let status = timeout(LIMIT, self.status.next_line()).await.map_err(|_| format!("no end within {LIMIT:?}"));
        let printed = fs::read(&self.printed).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let printed = printed.unwrap_or_default();
        let failed = self.failed_lines(script.file);
        let ended = match status? {
            Ok(Some(status)) if status == script.exit.to_string() && failed.len() <= 1 => return Ok(printed),
            Ok(Some(status)) => format!("the last command exits with {status}, expected {}", script.exit),
            Ok(None) => "a command failed".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(format!("{ended}; failed in line: {failed:?}. Printed:\n{printed}"))
    }

    /// The lines of commands of this file that failed.
    fn failed_lines(&self, file: &Path) -> Vec<String> {
        let text = fs::read_to_string(&self.failures).unwrap_or_default();
        let prefix = format!("{} ", file.display());
        let mut lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        lines.dedup();
        lines.into_iter().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
