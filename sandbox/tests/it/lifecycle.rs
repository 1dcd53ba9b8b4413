use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nofx_sandbox::{Companion, Exit, Health, Host, Level, Network, SandboxError, Through, host, run};
use serde_json::json;

use crate::{Workspace, at, levels, prepare, printed, run_blocking, text};

/// Holds the fifo open in a daemon too, so that its reader sees the end only when both processes are gone.
const HOLD: &str = "exec 3>fifo; echo up >&3; setsid sh -c 'while :; do read x < /dev/zero; done' & wait";

#[test]
fn a_timeout_kills_everything() {
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.shell(level, "sleep 1000 & sleep 1000");
        command.timeout = Duration::from_millis(300);
        let started = Instant::now();
        let finished = run_blocking(&command).unwrap();
        assert_eq!(finished.exit, Exit::TimedOut, "{level:?}: {}", text(&finished));
        assert!(started.elapsed() < Duration::from_secs(10), "{level:?}");
        assert!(finished.report.killed_at_end >= 2, "{level:?}: {}", finished.report.killed_at_end);
    }
}

#[test]
fn dropping_the_future_kills_everything() {
    for level in levels() {
        let workspace = Workspace::new();
        let fifo = workspace.fifo();
        let command = workspace.shell(level, HOLD);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = runtime.spawn(async move { run(&command).await });
        let mut reader = open_fifo(&fifo);
        task.abort();
        // Returns when the last process that holds the fifo is dead.
        read_to_end(&mut reader);
        assert!(runtime.block_on(task).unwrap_err().is_cancelled(), "{level:?}");
    }
}

#[test]
fn killing_the_parent_kills_everything() {
    for level in levels() {
        let workspace = Workspace::new();
        let fifo = workspace.fifo();
        let mut parent = start_binary(&workspace, level);
        let mut reader = open_fifo(&fifo);
        parent.kill().unwrap();
        parent.wait().unwrap();
        read_to_end(&mut reader);
    }
}

/// Runs a command that holds the fifo, from a process of its own.
fn start_binary(workspace: &Workspace, level: Level) -> std::process::Child {
    let command = workspace.shell(level, HOLD);
    let request = json!({
        "argv": command.argv,
        "current_dir": command.current_dir,
        "environment": command.environment,
        "read_only": command.read_only,
        "writable": command.writable,
        "at_most": level,
    });
    let mut parent = std::process::Command::new(env!("CARGO_BIN_EXE_nofx-sandbox"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    parent.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    parent
}

/// Returns after the command opened the fifo and wrote to it.
fn open_fifo(path: &Path) -> std::fs::File {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{Mode, OFlags};
    // A blocking open would wait for ever for a command that failed.
    let fifo = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&fifo, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "the command did not open the fifo");
    rustix::fs::fcntl_setfl(&fifo, OFlags::empty()).unwrap();
    let mut reader = std::fs::File::from(fifo);
    let mut word = [0; 3];
    reader.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"up\n");
    reader
}

fn read_to_end(reader: &mut impl Read) {
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_host_below_the_minimum_is_refused() {
    let workspace = Workspace::new();
    let mut command = workspace.shell(Level::Limits, "echo ran > ran");
    command.minimum = Level::Landlock;
    let error = run_blocking(&command).unwrap_err();
    assert!(matches!(error, SandboxError::TooWeak { offered: Level::Limits, minimum: Level::Landlock, .. }), "{error}");
    assert!(!workspace.path().join("ran").exists());
}

#[test]
fn more_than_the_host_has_cannot_be_asked_for() {
    let workspace = Workspace::new();
    let mut command = workspace.shell(Level::Limits, "true");
    command.at_most = Some(Host { landlock_abi: 99, ..at(Level::Limits) });
    let finished = run_blocking(&command).unwrap();
    assert!(finished.report.landlock_abi.unwrap_or(0) <= host().landlock_abi);
}

#[test]
fn the_report_names_the_level_and_the_gaps() {
    for level in levels() {
        let workspace = Workspace::new();
        let report = run_blocking(&workspace.shell(level, "true")).unwrap().report;
        assert_eq!(report.level, level);
        assert_eq!(report.seccomp, level > Level::Limits && host().seccomp);
        assert_eq!(report.own_uid, host().own_uid);
        assert_eq!(report.not_in_force.is_empty(), level == Level::Namespaces, "{:?}", report.not_in_force);
        assert_eq!(report.namespaces.iter().any(|name| name == "pid"), level == Level::Namespaces);
    }
}

#[test]
fn relative_paths_are_refused() {
    let workspace = Workspace::new();
    for path in ["relative", "/tmp/../etc", "/"] {
        let mut command = workspace.shell(Level::Limits, "true");
        command.writable.push(path.into());
        assert!(matches!(run_blocking(&command), Err(SandboxError::Invalid(_))), "{path}");
    }
}

#[test]
fn a_companion_answers_before_the_command_starts_and_dies_after_it() {
    prepare();
    for (level, network) in with_ports() {
        let workspace = Workspace::new();
        std::fs::write(workspace.path().join("hello"), "from the stub").unwrap();
        let script =
            "import os, urllib.request as u; print(u.urlopen(f'http://127.0.0.1:{os.environ[\"STUB\"]}/hello').read())";
        let mut command = workspace.python(level, script);
        command.network = network;
        command.companions = vec![companion(&workspace, "/hello")];
        let finished = run_blocking(&command).unwrap();
        assert_eq!(finished.exit, Exit::Code(0), "{level:?}: {}", text(&finished));
        assert!(text(&finished).contains("from the stub"), "{level:?}: {}", text(&finished));
        assert_eq!(finished.report.killed_at_end, 1, "{level:?}");
    }
}

#[test]
fn a_companion_that_is_not_healthy_keeps_the_command_from_starting() {
    prepare();
    for (level, network) in with_ports() {
        let workspace = Workspace::new();
        let mut command = workspace.shell(level, "echo ran > ran");
        command.network = network;
        let mut unhealthy = companion(&workspace, "/missing");
        unhealthy.start_timeout = Duration::from_millis(1500);
        command.companions = vec![unhealthy];
        let finished = run_blocking(&command).unwrap();
        let Exit::CompanionFailed { name, message } = &finished.exit else { panic!("{:?}", finished.exit) };
        assert_eq!(name, "stub");
        assert!(message.contains("404"), "{level:?}: {message}");
        command.companions[0].argv = vec!["false".into()];
        let finished = run_blocking(&command).unwrap();
        assert!(
            matches!(&finished.exit, Exit::CompanionFailed { message, .. } if message.contains("ended")),
            "{level:?}"
        );
        assert!(!workspace.path().join("ran").exists(), "{level:?}");
    }
}

/// Levels at which companions can listen.
fn with_ports() -> Vec<(Level, Network)> {
    let network = |level| if level == Level::Namespaces { Network::None } else { Network::Open };
    levels().into_iter().map(|level| (level, network(level))).collect()
}

fn companion(workspace: &Workspace, path: &str) -> Companion {
    let script = "import http.server as h, os; h.HTTPServer(('127.0.0.1', int(os.environ['STUB'])), h.SimpleHTTPRequestHandler).serve_forever()";
    Companion {
        name: "stub".into(),
        argv: ["/usr/bin/python3", "-I", "-c", script].map(str::to_owned).to_vec(),
        current_dir: workspace.path().to_owned(),
        environment: Vec::new(),
        port_variable: "STUB".into(),
        health: Health::Http { path: path.into() },
        start_timeout: Duration::from_secs(20),
    }
}

#[test]
fn many_commands_run_side_by_side() {
    for level in levels() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let workspace = Workspace::new();
                runtime.spawn(async move {
                    let finished = run(&workspace.shell(level, &format!("echo {number}; id -u"))).await.unwrap();
                    (text(&finished), finished.report.uid)
                })
            })
            .collect();
        let mut uids = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            let (text, uid) = runtime.block_on(task).unwrap();
            assert_eq!(text, format!("{number}\n{uid}\n"), "{level:?}");
            uids.push(uid);
        }
        assert!(!host().own_uid || uids.iter().all(|uid| *uid != 0), "{level:?}");
    }
}

#[test]
fn the_temporary_folder_of_namespaces_is_empty_and_private() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let workspace = Workspace::new();
    let other = Workspace::new();
    let name = other.path().display().to_string();
    let text = printed(
        &workspace.shell(Level::Namespaces, &format!("test -e {name} && echo seen; echo x > /tmp/left; echo end")),
    );
    assert_eq!(text, "end\n");
    assert_eq!(printed(&workspace.shell(Level::Namespaces, "test -e /tmp/left || echo gone")), "gone\n");
}

#[test]
fn bubblewrap_gives_the_same_isolation() {
    let workspace = Workspace::new();
    let program = Path::new("/usr/bin/bwrap");
    // Hosts without it make namespaces by themselves or not at all.
    if !program.exists() || host().namespaces.is_none() {
        return;
    }
    let script = "ls -1 /; id -u; echo $$; cat /proc/1/environ; echo x > kept; echo end";
    let mut command = workspace.shell(Level::Namespaces, script);
    command.at_most = Some(Host { namespaces: Some(Through::Bubblewrap(program.into())), ..host().clone() });
    let finished = run_blocking(&command).unwrap();
    let text = text(&finished);
    assert!(text.contains("end") && text.lines().all(|line| !["home", "var", "root", "0"].contains(&line)), "{text}");
    assert_eq!(finished.report.level, Level::Namespaces);
    assert!(finished.report.namespaces.iter().any(|name| name == "user"), "{:?}", finished.report);
    assert!(workspace.path().join("kept").exists());
}

#[test]
fn the_writable_paths_belong_to_the_caller_again() {
    use std::os::unix::fs::MetadataExt;
    for level in levels() {
        let workspace = Workspace::new();
        printed(&workspace.shell(level, "mkdir made; touch made/file"));
        for path in ["", "made", "made/file"] {
            let owner = std::fs::metadata(workspace.path().join(path)).unwrap().uid();
            assert_eq!(owner, rustix::process::geteuid().as_raw(), "{level:?}: {path}");
        }
    }
}

#[test]
fn a_killed_launcher_is_an_error_and_leaves_nothing() {
    // Without namespaces and a uid of its own, nobody finds the processes.
    for level in levels().into_iter().filter(|level| *level == Level::Namespaces || host().own_uid) {
        let workspace = Workspace::new();
        let fifo = workspace.fifo();
        let parent = start_binary(&workspace, level);
        let mut reader = open_fifo(&fifo);
        for launcher in children(parent.id()) {
            rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
        }
        read_to_end(&mut reader);
        let output = parent.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains("launcher of the sandbox died"), "{level:?}: {message}");
    }
}

fn children(parent: u32) -> Vec<rustix::process::Pid> {
    let parent = parent.to_string();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&parent))
    };
    pids.filter(is_child).filter_map(rustix::process::Pid::from_raw).collect()
}

#[test]
fn one_identity_serves_one_command_at_a_time() {
    let workspace = Workspace::new();
    let Some(identity) = nofx_sandbox::Identity::acquire().unwrap() else { return };
    let fifo = workspace.fifo();
    nofx_sandbox::give(workspace.path(), &identity).unwrap();
    let mut first = workspace.shell(host().level(), HOLD);
    first.identity = Some(std::sync::Arc::new(identity));
    let second = first.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let task = runtime.spawn(async move { run(&first).await });
    let mut reader = open_fifo(&fifo);
    assert!(matches!(run_blocking(&second), Err(SandboxError::Invalid(_))));
    task.abort();
    read_to_end(&mut reader);
    let _ = runtime.block_on(task);
    let mut third = second;
    third.argv = vec!["true".into()];
    assert_eq!(run_blocking(&third).unwrap().exit, Exit::Code(0));
}
