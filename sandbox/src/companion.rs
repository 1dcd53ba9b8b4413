//! Programs beside the command: starting them, and waiting until they answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::command::{Companion, Health};
use crate::launcher::Channel;
use crate::platform;
use crate::report::Exit;
use crate::supervisor::{self, Spawn};
use crate::wire::Spec;

/// How often to ask a companion that does not answer yet.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A port and the variable that names it.
pub(crate) struct Port {
    pub variable: String,
    pub number: u16,
}

pub(crate) enum Failed {
    Exit(Exit),
    Abandoned,
}

/// Starts all companions and waits until each is healthy. Returns their ports.
pub(crate) fn start_all(spec: &Spec, channel: &Channel, spawn: &dyn Spawn) -> Result<Vec<Port>, Failed> {
    let mut ports: Vec<Port> = Vec::new();
    for companion in &spec.companions {
        let failed = |message: String| Failed::Exit(Exit::CompanionFailed { name: companion.name.clone(), message });
        let number = free_port(&ports).map_err(|error| failed(format!("no port is free: {error}")))?;
        ports.push(Port { variable: companion.port_variable.clone(), number });
        let pid = start(companion, &ports, spawn).map_err(|error| failed(format!("it did not start: {error}")))?;
        wait_healthy(companion, number, pid, channel, failed)?;
    }
    Ok(ports)
}

/// Companions get the ports of those before them too, so that one can call another.
fn start(companion: &Companion, ports: &[Port], spawn: &dyn Spawn) -> std::io::Result<Pid> {
    let command = supervisor::command(&companion.argv, &companion.environment, ports, &companion.current_dir);
    let mut command = command.ok_or(std::io::ErrorKind::InvalidInput)?;
    // The standard output belongs to the command. It may be a report.
    let output = rustix::stdio::stderr().try_clone_to_owned()?;
    Ok(platform::pid_of(&spawn.spawn(command.stdout(Stdio::from(output)))?))
}

/// Nothing holds the port until the companion listens. In its own network namespace nobody else can take it.
fn free_port(taken: &[Port]) -> std::io::Result<u16> {
    loop {
        let number = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if taken.iter().all(|port| port.number != number) {
            return Ok(number);
        }
    }
}

fn wait_healthy(
    companion: &Companion,
    port: u16,
    pid: Pid,
    channel: &Channel,
    failed: impl Fn(String) -> Failed,
) -> Result<(), Failed> {
    let deadline = Instant::now() + companion.start_timeout;
    loop {
        match supervisor::reap(pid) {
            Ok(None) => {}
            Ok(Some(exit)) => return Err(failed(format!("it ended before it was healthy: {exit:?}"))),
            Err(error) => return Err(failed(error.to_string())),
        }
        let Err(last) = ask(&companion.health, port) else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(failed(format!("it was not healthy after {:?}: {last}", companion.start_timeout)));
        }
        if platform::wait_ready(pid, channel, Some(INTERVAL)) {
            return Err(Failed::Abandoned);
        }
    }
}

fn ask(health: &Health, port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).map_err(|error| error.to_string())?;
    let Health::Http { path } = health else { return Ok(()) };
    let answer = exchange(&mut stream, path).map_err(|error| error.to_string())?;
    let status =
        answer.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(status) if status < 400 => Ok(()),
        Some(status) => Err(format!("GET {path} answered {status}")),
        None => Err(format!("GET {path} did not answer with HTTP")),
    }
}

/// Sends a request and returns the start of the answer.
fn exchange(stream: &mut TcpStream, path: &str) -> std::io::Result<String> {
    // "HTTP/1.1 200" is enough.
    const START: usize = 12;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut start = [0; START];
    stream.read_exact(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}
