use std::time::Duration;

use nofx_sandbox::{Exit, Level, Limit};

use crate::{Workspace, levels, printed, run_blocking, text};

const MIB: u64 = 1024 * 1024;

#[test]
fn a_command_that_uses_too_much_memory_is_killed() {
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.python(level, "x = bytearray(300 << 20)\nwhile True: pass");
        command.limits.memory_bytes = Some(100 * MIB);
        assert_eq!(run_blocking(&command).unwrap().exit, Exit::OverLimit(Limit::Memory), "{level:?}");
    }
}

#[test]
fn memory_of_all_processes_counts_and_shared_memory_too() {
    for level in levels() {
        let workspace = Workspace::new();
        let script = r"
import mmap, os
for _ in range(3):
    if os.fork() == 0: break
shared = mmap.mmap(-1, 60 << 20)
shared.write(bytes(60 << 20))
while True: pass
";
        let mut command = workspace.python(level, script);
        command.limits.memory_bytes = Some(200 * MIB);
        assert_eq!(run_blocking(&command).unwrap().exit, Exit::OverLimit(Limit::Memory), "{level:?}");
    }
}

#[test]
fn memory_that_workers_share_counts_once() {
    for level in levels() {
        let workspace = Workspace::new();
        // 100 MB in ten processes would be 1 GB.
        let script = r#"
import os, time
data = bytearray(100 << 20)
children = []
for _ in range(9):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5); os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
print("done")
"#;
        let mut command = workspace.python(level, script);
        command.limits.memory_bytes = Some(250 * MIB);
        assert_eq!(printed(&command), "done\n", "{level:?}");
    }
}

#[test]
fn files_cannot_grow_over_their_limit() {
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.command(level, &["dd", "if=/dev/zero", "of=big", "bs=1M", "count=64"]);
        command.limits.file_bytes = Some(8 * MIB);
        let finished = run_blocking(&command).unwrap();
        assert_ne!(finished.exit, Exit::Code(0), "{level:?}: {}", text(&finished));
        assert!(std::fs::metadata(workspace.path().join("big")).unwrap().len() <= 8 * MIB, "{level:?}");
    }
}

#[test]
fn the_disk_cannot_be_filled() {
    for level in levels() {
        let workspace = Workspace::new();
        let script = r#"
number = 0
while True:
    open(f"file{number}", "wb").write(bytes(1 << 20)); number += 1
    if number >= 400:
        while True: pass
"#;
        let mut command = workspace.python(level, script);
        command.limits.disk_bytes = Some(100 * MIB);
        assert_eq!(run_blocking(&command).unwrap().exit, Exit::OverLimit(Limit::Disk), "{level:?}");
    }
}

#[test]
fn memory_files_cannot_pass_by_the_limit() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let workspace = Workspace::new();
    let script = r#"
import os
try: os.memfd_create("x"); print("made")
except OSError: print("refused")
try: open("/dev/shm/x", "wb").write(bytes(64 << 20)); print("written")
except OSError as error: print("full")
"#;
    let mut command = workspace.python(Level::Namespaces, script);
    command.limits.disk_bytes = Some(16 * MIB);
    assert_eq!(printed(&command), "refused\nfull\n");
}

#[test]
fn cpu_time_is_limited() {
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.python(level, "while True: pass");
        command.limits.cpu = Some(Duration::from_secs(1));
        let exit = run_blocking(&command).unwrap().exit;
        // SIGKILL or SIGXCPU.
        assert!(matches!(exit, Exit::Signal(9 | 24)), "{level:?}: {exit:?}");
    }
}

#[test]
fn output_is_bounded_and_its_digest_is_of_everything() {
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.command(level, &["head", "-c", "20000000", "/dev/zero"]);
        let log = workspace.path().join("log");
        command.log = Some(log.clone());
        command.output.file_bytes = 1000;
        let finished = run_blocking(&command).unwrap();
        assert_eq!(finished.exit, Exit::Code(0), "{level:?}");
        assert_eq!(finished.output.bytes, 20_000_000, "{level:?}");
        assert_eq!(
            finished.output.sha256, "9e21c61969cd3e077a1b2b58ddb583b175e13c6479d2d83912eaddc23c0cdd52",
            "{level:?}"
        );
        assert!(finished.output.head.len() + finished.output.tail.len() < 100_000, "{level:?}");
        assert_eq!(std::fs::metadata(log).unwrap().len(), 1000, "{level:?}");
    }
}

#[test]
fn standard_output_can_have_a_file_of_its_own() {
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.shell(level, "echo report; echo noise >&2");
        let file = workspace.path().join("report");
        command.stdout = Some(file.clone());
        let text = printed(&command);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "report\n", "{level:?}");
        assert!(text.contains("noise") && text.contains("report"), "{level:?}: {text}");
    }
}
