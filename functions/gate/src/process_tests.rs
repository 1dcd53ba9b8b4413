use super::*;

fn shell(script: &str, limit: Duration) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let command = Command {
        line: vec!["sh".into(), "-c".into(), script.into()],
        folder: folder.path().to_path_buf(),
        environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        limit,
        mark: uuid::Uuid::new_v4().to_string(),
    };
    (folder, command)
}

const LONG: Duration = Duration::from_secs(20);

fn is_alive(pid: &str) -> bool {
    // A killed process may stay a zombie until its new parent collects it.
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
async fn exit_codes_and_signals_are_told_apart() {
    let (_folder, command) = shell("echo out; echo err >&2; exit 3", LONG);
    let ended = run(&command).await.unwrap();
    assert_eq!((ended.exit, ended.output.tail().as_str()), (Exit::Code(3), "out\nerr\n"));
    let (_folder, command) = shell("kill -TERM $$", LONG);
    assert_eq!(run(&command).await.unwrap().exit, Exit::Signal(15));
}

#[tokio::test]
async fn a_command_sees_no_variable_but_ours() {
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
async fn endless_output_is_counted_but_not_kept() {
    let (_folder, command) = shell("head -c 1000000 /dev/zero | tr '\\0' 'a'; echo end", LONG);
    let output = run(&command).await.unwrap().output;
    assert_eq!(output.bytes, 1_000_004);
    assert_eq!(output.tail().len(), TAIL_BYTES);
    assert!(output.tail().ends_with("aend\n"));
    assert_eq!(output.head().unwrap().len(), HEAD_BYTES);
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
async fn what_runs_on_in_the_background_ends_with_its_command() {
    let (folder, command) = shell("sleep 60 & echo $! > pid", LONG);
    let ended = run(&command).await.unwrap();
    assert_eq!(ended.exit, Exit::Code(0));
    assert!(ended.took < Duration::from_secs(10), "the pipe was held open");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    wait_until("the end of the background process", || !is_alive(pid.trim())).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_left_its_group_is_killed_too() {
    let (folder, command) =
        shell("setsid sh -c 'echo $$ > pid; exec sleep 60' & while ! [ -s pid ]; do sleep 0.01; done", LONG);
    run(&command).await.unwrap();
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    wait_until("the end of the daemon", || !is_alive(pid.trim())).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_call_leaves_no_process_and_no_zombie() {
    let (folder, command) = shell("sleep 60 & echo $! > child; echo $$ > leader; wait", LONG);
    let pids = ["leader", "child"].map(|file| folder.path().join(file));
    tokio::select! {
        _ = run(&command) => panic!("it ended by itself"),
        () = wait_until("its start", || pids.iter().all(|file| fs::read(file).is_ok_and(|pid| pid.ends_with(b"\n")))) => {}
    }
    for file in pids {
        let pid = fs::read_to_string(file).unwrap();
        wait_until("the end of a process", || !is_alive(pid.trim())).await;
    }
    let leader = fs::read_to_string(folder.path().join("leader")).unwrap();
    // The runtime collects dead children when the next child ends.
    wait_until("the leader's collection", || !fs::exists(format!("/proc/{}", leader.trim())).unwrap()).await;
}

#[tokio::test]
async fn a_missing_program_is_an_error_and_not_a_verdict() {
    let (_folder, mut command) = shell("", LONG);
    command.line = vec!["no-such-program".into()];
    assert_eq!(run(&command).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}
