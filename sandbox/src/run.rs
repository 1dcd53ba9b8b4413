//! The side of the caller: starts a launcher, reads the output, and waits for the end.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as BlockingSocket;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::command::Command;
#[cfg(target_os = "linux")]
use crate::command::Network;
use crate::error::SandboxError;
#[cfg(target_os = "linux")]
use crate::error::{Failure, Step};
use crate::host::{Host, host};
use crate::identity::{self, Identity, Use};
use crate::launcher::{self, Stage};
use crate::output::{BoundedFile, Capture};
use crate::platform;
use crate::report::{Exit, Finished, Report};
use crate::wire::{self, Event, Parent, Plan, Spec};

/// How much longer than all timeouts the launcher may take before it counts as dead.
const GRACE: Duration = Duration::from_secs(30);
/// How long to wait for the end of the output after the launcher ended. At the level `limits` a process may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a command until nothing of it is left. If the future is dropped, everything is killed within milliseconds.
///
/// The calling process becomes non-dumpable: the command cannot read its memory and environment.
pub async fn run(command: &Command) -> Result<Finished, SandboxError> {
    check(command)?;
    platform::hide_memory()?;
    // The first call tries things in processes and threads of its own.
    let host = tokio::task::spawn_blocking(host).await.map_err(io::Error::other)?;
    let host = command.at_most.as_ref().map_or_else(|| host.clone(), |at_most| host.both(at_most));
    if host.level() < command.minimum {
        let (offered, minimum) = (host.level(), command.minimum);
        return Err(SandboxError::TooWeak { offered, minimum, reasons: host.reasons.join("; ") });
    }
    let identity = identify(command, &host).await?;
    let spec = spec(command, &host, identity.as_ref().map(Use::uid));
    let result = Session::start(command, &spec).await?.finish(backstop(command)).await;
    if let Some(identity) = identity {
        // If the launcher died, nobody is left who would kill the processes of the command.
        let is_orphaned = matches!(result, Err(SandboxError::LauncherDied(_)));
        release(command, identity, is_orphaned).await?;
    }
    result
}

/// Leaves nothing to the next command with the same uid: no process, and no file if `run` took the uid itself.
async fn release(command: &Command, identity: Use, is_orphaned: bool) -> Result<(), SandboxError> {
    let writable = if command.identity.is_none() { command.writable.clone() } else { Vec::new() };
    let work = tokio::task::spawn_blocking(move || {
        if is_orphaned {
            platform::kill_orphans(identity.uid());
        }
        for path in writable {
            // A command can make folders that are too deep. Their owner then stays, and the result of the command counts.
            let _ = identity::take(&path);
        }
    });
    Ok(work.await.map_err(io::Error::other)?)
}

fn check(command: &Command) -> Result<(), SandboxError> {
    let invalid = |message: String| Err(SandboxError::Invalid(message));
    if command.argv.first().is_none_or(String::is_empty) {
        return invalid("the command is empty".into());
    }
    let paths = command.read_only.iter().chain(&command.hidden).chain(&command.writable).chain([&command.current_dir]);
    for path in paths {
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !path.is_absolute() || !plain || path.parent().is_none() {
            return invalid(format!("{} is not an absolute path below the root", path.display()));
        }
    }
    for companion in &command.companions {
        if companion.argv.is_empty() || companion.port_variable.is_empty() {
            return invalid(format!("the companion {} has no command or no variable for its port", companion.name));
        }
        if let crate::Health::Http { path } = &companion.health
            && (!path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            return invalid(format!("the health path of the companion {} is not a path", companion.name));
        }
    }
    Ok(())
}

/// The given identity, or a free one that gets the writable paths.
async fn identify(command: &Command, host: &Host) -> Result<Option<Use>, SandboxError> {
    if !host.own_uid {
        return Ok(None);
    }
    if let Some(identity) = &command.identity {
        let begun = Use::begin(Arc::clone(identity));
        return begun
            .map(Some)
            .ok_or_else(|| SandboxError::Invalid("another command runs with the same identity".into()));
    }
    let writable = command.writable.clone();
    let taken = tokio::task::spawn_blocking(move || -> Result<_, SandboxError> {
        let Some(identity) = Identity::acquire()? else { return Ok(None) };
        for path in &writable {
            identity::give(path, &identity)?;
        }
        Ok(Use::begin(Arc::new(identity)))
    });
    taken.await.map_err(io::Error::other)?
}

fn spec(command: &Command, host: &Host, uid: Option<u32>) -> Spec {
    Spec {
        plan: Plan { namespaces: host.namespaces.clone(), landlock_abi: host.landlock_abi, seccomp: host.seccomp, uid },
        parent: parent(),
        host_namespaces: platform::host_namespaces(),
        argv: command.argv.clone(),
        current_dir: command.current_dir.clone(),
        environment: command.environment.clone(),
        timeout: command.timeout,
        read_only: command.read_only.clone(),
        hidden: command.hidden.clone(),
        writable: command.writable.clone(),
        network: command.network,
        limits: command.limits.clone(),
        companions: command.companions.clone(),
        probe: false,
    }
}

fn parent() -> Parent {
    Parent {
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        group: rustix::process::getpgrp().as_raw_nonzero().get(),
    }
}

fn backstop(command: &Command) -> Duration {
    command.companions.iter().map(|companion| companion.start_timeout).sum::<Duration>() + command.timeout + GRACE
}

/// Starts a launcher with a socket as its standard input. Both streams of the command are inherited from it.
fn start(stdout: Stdio, stderr: Stdio) -> Result<(std::process::Command, BlockingSocket), SandboxError> {
    let (ours, theirs) = BlockingSocket::pair()?;
    let mut command = launcher::command_line(Stage::Guard)?;
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(stdout).stderr(stderr);
    Ok((command, ours))
}

/// The command for each process of the chain.
fn frames(spec: &Spec) -> io::Result<Vec<u8>> {
    let readers = 1 + usize::from(spec.plan.namespaces.is_some());
    Ok(wire::encode(spec)?.repeat(readers))
}

/// A running launcher. Dropping it closes the socket, and the launcher kills everything.
struct Session {
    launcher: tokio::process::Child,
    socket: UnixStream,
    reader: OutputReader,
}

impl Session {
    async fn start(command: &Command, spec: &Spec) -> Result<Self, SandboxError> {
        let capture = Capture::new(command.output, command.log.as_deref())?;
        let (both, writer) = io::pipe()?;
        let (alone, stdout) = match &command.stdout {
            Some(path) => {
                let (reader, writer) = io::pipe()?;
                let file = BoundedFile::create(path, command.output.file_bytes)?;
                (Some((receiver(reader)?, file)), writer)
            }
            None => (None, writer.try_clone()?),
        };
        let reader = OutputReader { both: receiver(both)?, alone, capture };
        let (launcher, socket) = start(stdout.into(), writer.into())?;
        // The builder owns our ends of the pipes for writing. They close with it, else the output would never end.
        let launcher = tokio::process::Command::from(launcher).spawn()?;
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        // A launcher that cannot read its frames says why, so an error here is not the cause.
        let _ = socket.write_all(&frames(spec)?).await;
        Ok(Self { launcher, socket, reader })
    }

    /// Reads events and output until both have ended.
    async fn finish(self, backstop: Duration) -> Result<Finished, SandboxError> {
        let Self { mut launcher, mut socket, mut reader } = self;
        let launch = async {
            let events = Events::read(&mut socket).await;
            let status = launcher.wait().await?;
            Ok::<_, SandboxError>((events, status))
        };
        let deadline = tokio::time::sleep(backstop);
        let mut output = Box::pin(reader.read_all());
        tokio::pin!(launch, deadline);
        let mut is_output_over = false;
        let (events, status) = loop {
            tokio::select! {
                ended = &mut launch => break ended?,
                read = &mut output, if !is_output_over => {
                    read?;
                    is_output_over = true;
                }
                () = &mut deadline => return Err(SandboxError::LauncherDied("it does not answer".into())),
            }
        };
        let ended = Instant::now();
        if !is_output_over && let Ok(read) = tokio::time::timeout(DRAIN, &mut output).await {
            read?;
        }
        drop(output);
        events.conclude(status, ended, reader.capture)
    }
}

fn receiver(reader: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(reader.into())
}

/// Reads the output of the command.
struct OutputReader {
    /// Both streams, or standard error if standard output has a pipe of its own.
    both: pipe::Receiver,
    alone: Option<(pipe::Receiver, BoundedFile)>,
    capture: Capture,
}

impl OutputReader {
    async fn read_all(&mut self) -> io::Result<()> {
        const CHUNK_BYTES: usize = 64 * 1024;
        let (mut first, mut second) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let mut is_open = true;
        while is_open || self.alone.is_some() {
            let alone = async {
                match &mut self.alone {
                    Some((pipe, _)) => pipe.read(&mut second).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.both.read(&mut first), if is_open => {
                    let length = read?;
                    self.capture.push(&first[..length])?;
                    is_open = length > 0;
                }
                read = alone => {
                    let length = read?;
                    self.capture.push(&second[..length])?;
                    match &mut self.alone {
                        Some((_, file)) if length > 0 => file.push(&second[..length])?,
                        _ => self.alone = None,
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the launcher told.
#[derive(Default)]
struct Events {
    report: Option<Report>,
    started: Option<Instant>,
    ended: Option<(Exit, u32, u32)>,
    failed: Option<(String, String)>,
}

impl Events {
    /// Reads until the launcher closes the socket.
    async fn read(socket: &mut UnixStream) -> Self {
        let mut events = Self::default();
        while let Ok(event) = next_event(socket).await {
            match event {
                Event::InForce(report) => events.report = Some(*report),
                Event::Started => events.started = Some(Instant::now()),
                Event::Ended { exit, killed, left } => events.ended = Some((exit, killed, left)),
                Event::Failed { step, message } => events.failed = Some((step, message)),
            }
        }
        events
    }

    fn conclude(
        self,
        status: std::process::ExitStatus,
        now: Instant,
        capture: Capture,
    ) -> Result<Finished, SandboxError> {
        if let Some((step, message)) = self.failed {
            return Err(SandboxError::Failed { step, message });
        }
        let (Some(mut report), Some((exit, killed, left))) = (self.report, self.ended) else {
            // A message of the dynamic linker or of bubblewrap may be in the output.
            let output = capture.finish();
            let text = String::from_utf8_lossy(if output.tail.is_empty() { &output.head } else { &output.tail });
            return Err(SandboxError::LauncherDied(format!("{status} {}", text.trim_end())));
        };
        if left > 0 {
            return Err(SandboxError::Unkillable(left));
        }
        report.killed_at_end = killed;
        let duration = self.started.map_or(Duration::ZERO, |started| now - started);
        Ok(Finished { exit, output: capture.finish(), duration, report })
    }
}

async fn next_event(socket: &mut UnixStream) -> io::Result<Event> {
    let mut header = [0; 4];
    socket.read_exact(&mut header).await?;
    let mut body = vec![0; wire::length(header)?];
    socket.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Builds an empty sandbox.
#[cfg(target_os = "linux")]
pub(crate) fn probe(plan: Plan) -> Result<(), Failure> {
    use std::io::Write;
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut command = Command::new(Vec::new(), "/tmp".into());
    command.network = Network::None;
    let nothing = Host { own_uid: false, namespaces: None, landlock_abi: 0, seccomp: false, reasons: Vec::new() };
    let spec = Spec { plan, probe: true, ..spec(&command, &nothing, None) };
    let (mut launcher, mut socket) = start(Stdio::null(), Stdio::null()).step("start the launcher")?;
    let mut child = launcher.spawn().step("start the launcher")?;
    // The builder holds the launcher's end of the socket.
    drop(launcher);
    let answer = socket
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| socket.write_all(&frames(&spec)?))
        .and_then(|()| wire::read(&mut socket))
        .step("try namespaces");
    drop(socket);
    child.wait().step("wait for the launcher")?;
    match answer? {
        Event::InForce(_) => Ok(()),
        Event::Failed { step, message } => Err(Failure { step, message }),
        other => Err(Failure::new("try namespaces", format!("the launcher answered {other:?}"))),
    }
}
