use nofx_sandbox::{Exit, Level, host};

use crate::{Workspace, closed_levels, is_running, levels, marker, printed, run_blocking, text};

/// Prints the environment of each process that it can read.
const READ_ENVIRONMENTS: &str = r#"
import glob
for path in glob.glob("/proc/*/environ"):
    try: print(open(path).read())
    except OSError: pass
import os
print(os.environ)
"#;

#[test]
fn the_environment_of_other_processes_is_unreadable() {
    for level in levels() {
        let workspace = Workspace::new();
        let text = printed(&workspace.python(level, READ_ENVIRONMENTS));
        assert!(text.contains("kiwi"), "{level:?}: the script does not see its own environment: {text}");
        // cargo and nextest set this one for the test.
        assert!(!text.contains("CARGO_MANIFEST_DIR"), "{level:?}: {text}");
    }
}

#[test]
fn other_processes_are_invisible_in_namespaces() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let workspace = Workspace::new();
    let text = printed(
        &workspace.shell(Level::Namespaces, "ls -d /proc/[0-9]*; cat /proc/1/environ; readlink /proc/1/exe; true"),
    );
    assert!(text.lines().filter(|line| line.starts_with("/proc/")).count() <= 4, "{text}");
    assert!(!text.contains("nofx-sandbox"), "{text}");
}

#[test]
fn processes_that_left_the_session_are_killed() {
    for level in levels() {
        let workspace = Workspace::new();
        let marker = marker("daemon");
        let script = format!(
            r#"
import os, time, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", "echo up > ready; while :; do read x < /dev/zero; done", "{marker}"], {{}})
    os._exit(0)
while not os.path.exists("ready"): pass
"#
        );
        let finished = run_blocking(&workspace.python(level, &script)).unwrap();
        assert_eq!(finished.exit, Exit::Code(0), "{level:?}: {}", text(&finished));
        assert!(finished.report.killed_at_end >= 1, "{level:?}");
        assert!(!is_running(&marker), "{level:?}");
    }
}

#[test]
fn a_process_whose_first_thread_ended_is_measured_and_killed() {
    for level in levels() {
        let workspace = Workspace::new();
        let marker = marker("headless");
        let script = r"
import ctypes, os, sys, threading
def work():
    data = bytearray(300 << 20)
    while True: pass
if os.fork() == 0:
    threading.Thread(target=work).start()
    ctypes.CDLL(None).pthread_exit(None)
while True: pass
";
        let mut command = workspace.command(level, &["/usr/bin/python3", "-I", "-c", script, &marker]);
        command.limits.memory_bytes = Some(100 << 20);
        let finished = run_blocking(&command).unwrap();
        assert_eq!(finished.exit, Exit::OverLimit(nofx_sandbox::Limit::Memory), "{level:?}: {}", text(&finished));
        assert_eq!(finished.report.killed_at_end, 2, "{level:?}");
        assert!(!is_running(&marker), "{level:?}");
    }
}

#[test]
fn a_fork_bomb_ends() {
    for level in levels() {
        let workspace = Workspace::new();
        let marker = marker("bomb");
        let script = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
        let mut command = workspace.command(level, &["/usr/bin/python3", "-I", "-c", script, &marker]);
        command.limits.processes = Some(100);
        command.timeout = std::time::Duration::from_secs(1);
        let finished = run_blocking(&command).unwrap();
        assert_eq!(finished.exit, Exit::TimedOut, "{level:?}: {}", text(&finished));
        assert!(finished.report.killed_at_end > 20, "{level:?}: {}", finished.report.killed_at_end);
        assert!(finished.report.killed_at_end <= 110, "{level:?}: {}", finished.report.killed_at_end);
        assert!(!is_running(&marker), "{level:?}");
    }
}

#[test]
fn the_launcher_and_its_parent_cannot_be_signalled() {
    let shielded = levels().into_iter().filter(|level| *level > Level::Limits || host().own_uid);
    for level in shielded {
        let workspace = Workspace::new();
        let parent = std::process::id();
        let script = format!(
            r#"
import os, signal, resource
def refused(call):
    try: call()
    except (PermissionError, ProcessLookupError): return True
    return False
for pid in [{parent}, os.getppid()]:
    for kind in [signal.SIGKILL, signal.SIGSTOP]:
        # Process 1 of a namespace ignores these signals from inside.
        assert refused(lambda: os.kill(pid, kind)) or pid == 1, pid
        try: os.kill(-pid, kind)
        except OSError: pass
print("alive")
try: os.kill(-1, signal.SIGCONT)
except OSError: pass
"#
        );
        assert!(printed(&workspace.python(level, &script)).contains("alive"), "{level:?}");
    }
}

/// Calls that must be refused, by name and number on x86-64.
#[cfg(target_arch = "x86_64")]
#[test]
fn dangerous_system_calls_are_refused() {
    const CALLS: [(&str, u32); 22] = [
        ("ptrace", 101),
        ("process_vm_readv", 310),
        ("process_vm_writev", 311),
        ("mount", 165),
        ("umount2", 166),
        ("pivot_root", 155),
        ("chroot", 161),
        ("unshare", 272),
        ("setns", 308),
        ("bpf", 321),
        ("perf_event_open", 298),
        ("add_key", 248),
        ("keyctl", 250),
        ("io_uring_setup", 425),
        ("userfaultfd", 323),
        ("kexec_load", 246),
        ("init_module", 175),
        ("open_by_handle_at", 304),
        ("open_tree", 428),
        ("move_mount", 429),
        ("clone3", 435),
        ("getpid of x32", 0x4000_0000 + 39),
    ];
    for level in closed_levels().into_iter().filter(|_| host().seccomp) {
        let workspace = Workspace::new();
        let calls = CALLS.map(|(name, number)| format!("({name:?}, {number})")).join(", ");
        let script = format!(
            r#"
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for name, number in [{calls}]:
    ctypes.set_errno(0)
    result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
    assert result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS), (name, result, ctypes.get_errno())
CLONE_NEWUSER = 0x10000000
assert libc.syscall(56, CLONE_NEWUSER | 17, 0, 0, 0, 0) == -1
assert ctypes.get_errno() == errno.EPERM
TIOCSTI = 0x5412
assert libc.ioctl(0, TIOCSTI, b"x") == -1 and ctypes.get_errno() == errno.EPERM
assert libc.syscall(302, 1, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM # prlimit64 of another process
assert libc.syscall(39) > 0
print("refused")
"#
        );
        assert!(printed(&workspace.python(level, &script)).contains("refused"), "{level:?}");
    }
}

#[test]
fn privileges_are_gone_and_cannot_come_back() {
    for level in levels() {
        let workspace = Workspace::new();
        let script = r#"
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
PR_GET_NO_NEW_PRIVS = 39
assert libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
class Header(ctypes.Structure): _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
data = (ctypes.c_uint32 * 6)()
assert libc.capget(ctypes.byref(Header(0x20080522, 0)), data) == 0
assert list(data) == [0] * 6, list(data)
subprocess.run(["chattr", "+i", "."])
open("still", "w").write("mutable")
print("none")
"#;
        let finished = run_blocking(&workspace.python(level, script)).unwrap();
        assert!(text(&finished).contains("none"), "{level:?}: {}", text(&finished));
        assert!(finished.report.no_new_privs && finished.report.capabilities_dropped, "{level:?}");
    }
}

#[test]
fn no_file_descriptor_is_inherited() {
    for level in levels() {
        let workspace = Workspace::new();
        let secret = std::fs::File::open("/etc/hostname").or_else(|_| std::fs::File::open("/etc/passwd")).unwrap();
        // Without the flag, as a C library would open it.
        rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
        let script = r"
import os
def is_open(fd):
    try: os.fstat(fd)
    except OSError: return False
    return True
print([fd for fd in range(1000) if is_open(fd)])
";
        assert_eq!(printed(&workspace.python(level, script)).trim(), "[0, 1, 2]", "{level:?}");
    }
}
