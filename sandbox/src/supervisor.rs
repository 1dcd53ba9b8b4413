//! Starts companions and the command, waits, and kills what is left. The last stage of a launcher at every level.

use std::io;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::companion::{self, Port};
use crate::error::{Failure, Step};
use crate::launcher::Channel;
use crate::platform::{self, Scope};
use crate::report::{Exit, Report};
use crate::watch::Watch;
use crate::wire::{Event, Spec};

/// Starts a program with the restrictions of the command.
pub(crate) trait Spawn {
    fn spawn(&self, command: &mut std::process::Command) -> io::Result<Child>;
}

/// The parent is gone. Nobody waits for an answer.
pub(crate) struct Abandoned;

pub(crate) fn supervise(
    spec: &Spec,
    channel: &mut Channel,
    report: Report,
    scope: Scope,
    spawn: &dyn Spawn,
) -> Result<(), Failure> {
    channel.send(&Event::InForce(Box::new(report)))?;
    if spec.probe {
        return Ok(());
    }
    let exit = run(spec, channel, scope, spawn);
    let (killed, left) = platform::kill_all(scope);
    match exit {
        Ok(Ok(exit)) => channel.send(&Event::Ended { exit, killed, left }),
        Ok(Err(Abandoned)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn run(
    spec: &Spec,
    channel: &mut Channel,
    scope: Scope,
    spawn: &dyn Spawn,
) -> Result<Result<Exit, Abandoned>, Failure> {
    let ports = match companion::start_all(spec, channel, spawn) {
        Ok(ports) => ports,
        Err(companion::Failed::Exit(exit)) => return Ok(Ok(exit)),
        Err(companion::Failed::Abandoned) => return Ok(Err(Abandoned)),
    };
    let mut command = command(&spec.argv, &spec.environment, &ports, &spec.current_dir)
        .ok_or_else(|| Failure::new("start the command", "it is empty"))?;
    let child = match spawn.spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return Ok(Ok(Exit::NotStarted { message: format!("{}: {error}", spec.argv[0]) })),
    };
    channel.send(&Event::Started)?;
    wait(spec, channel, scope, platform::pid_of(&child)).step("wait for the command")
}

/// A program with a complete environment and the ports of the companions.
pub(crate) fn command(
    argv: &[String],
    environment: &[(String, String)],
    ports: &[Port],
    current_dir: &std::path::Path,
) -> Option<std::process::Command> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) = argv.split_first()?;
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .envs(ports.iter().map(|port| (&port.variable, port.number.to_string())))
        .current_dir(current_dir)
        .stdin(Stdio::null())
        .process_group(0);
    Some(command)
}

/// Waits for the command and reaps the orphans that its processes leave to this one.
fn wait(spec: &Spec, channel: &Channel, scope: Scope, command: Pid) -> io::Result<Result<Exit, Abandoned>> {
    let deadline = Instant::now() + spec.timeout;
    let mut watch = Watch::new(&spec.limits, &spec.writable);
    loop {
        if let Some(exit) = reap(command)? {
            return Ok(Ok(exit));
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(Ok(Exit::TimedOut));
        }
        if let Some(limit) = watch.check(now, scope) {
            return Ok(Ok(Exit::OverLimit(limit)));
        }
        let pause = watch.next().min(deadline).saturating_duration_since(now).max(Duration::from_millis(1));
        if platform::wait_ready(command, channel, Some(pause)) {
            return Ok(Err(Abandoned));
        }
    }
}

/// Reaps all children that ended. Returns how the command ended, if it did.
pub(crate) fn reap(command: Pid) -> io::Result<Option<Exit>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => return Ok(Some(exit_of(status))),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Signal(0),
    }
}
