//! The seccomp filter: system calls that honest tools do not need and that reach around the sandbox, or much of the kernel.

use std::collections::BTreeMap;

#[allow(clippy::wildcard_imports, reason = "numbers of system calls and flags")]
use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

use crate::error::{Failure, Step};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Result<T> = std::result::Result<T, seccompiler::BackendError>;

/// What depends on the other mechanisms in force.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Allow sockets of the families AF_INET and AF_INET6.
    pub internet: bool,
    /// Allow to list network interfaces. In a network namespace of its own that tells nothing about the host, and Node's
    /// `os.networkInterfaces()` throws without.
    pub interfaces: bool,
    /// Allow AF_UNIX sockets that can connect. `socketpair` is always allowed.
    pub unix: bool,
    /// Processes and groups that the command must not signal, if nothing else keeps it from them.
    pub protected: Vec<i32>,
}

/// Refused with EPERM.
const REFUSED: &[c_long] = &[
    // Other processes.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_migrate_pages,
    SYS_move_pages,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_unshare,
    SYS_setns,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    // Files by handle pass by the mounts.
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    // Programs and modules for the kernel, and its measurements.
    SYS_bpf,
    SYS_perf_event_open,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_userfaultfd,
    SYS_syslog,
    SYS_acct,
    SYS_lookup_dcookie,
    // Keys belong to the session, which the sandbox shares with its parent.
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    // The machine.
    SYS_reboot,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
    SYS_nfsservctl,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[SYS_iopl, SYS_ioperm, SYS_uselib, SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// Answered with ENOSYS, so that programs use the older call. The flags of `clone3` are out of a filter's reach: libc falls back to
/// `clone`. A memory file is memory that no process maps, so that no limit sees it.
const MISSING: &[c_long] =
    &[SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_memfd_create, SYS_memfd_secret];

/// The largest System V segment. Such memory also exists without a process.
const SEGMENT_BYTES: u64 = 64 * 1024;

/// Applies the filters to this thread and its later children.
pub(super) fn enforce(options: &Options) -> std::result::Result<(), Failure> {
    let programs =
        [Ok(foreign_numbers()), compile(missing(), ENOSYS), refused(options).and_then(|rules| compile(rules, EPERM))];
    for program in programs {
        let program = program.step("build the seccomp filter")?;
        apply_filter(&program).step("apply the seccomp filter")?;
    }
    Ok(())
}

fn compile(rules: Rules, error: c_int) -> Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(error.unsigned_abs()), arch)?.try_into()
}

/// Refuses the second set of numbers that x86-64 kernels may have (x32). The other filters compare with the first set only.
fn foreign_numbers() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k };
    vec![
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        instruction(BPF_JMP | BPF_JGE | BPF_K, 0, 1, X32_BIT),
        instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS.unsigned_abs()),
        instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW),
    ]
}

fn missing() -> Rules {
    MISSING.iter().map(|call| (*call, Vec::new())).collect()
}

fn refused(options: &Options) -> Result<Rules> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let namespaces = [
        CLONE_NEWUSER,
        CLONE_NEWNS,
        CLONE_NEWPID,
        CLONE_NEWNET,
        CLONE_NEWIPC,
        CLONE_NEWUTS,
        CLONE_NEWCGROUP,
        CLONE_NEWTIME,
    ];
    let with_namespace = namespaces.map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        all_of(vec![argument(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    rules.insert(SYS_clone, with_namespace.into_iter().collect::<Result<_>>()?);
    rules.insert(SYS_socket, refused_sockets(options)?);
    // Typing into a terminal is a way out of a sandbox that shares one.
    let typing = [TIOCSTI, TIOCLINUX].map(|request| all_of(vec![argument(1, SeccompCmpOp::Eq, request)?]));
    rules.insert(SYS_ioctl, typing.into_iter().collect::<Result<_>>()?);
    // Limits of other processes: a CPU limit of 0 kills them.
    rules.insert(SYS_prlimit64, vec![all_of(vec![argument(0, SeccompCmpOp::Ne, 0)?])?]);
    let large = SeccompCondition::new(1, seccompiler::SeccompCmpArgLen::Qword, SeccompCmpOp::Gt, SEGMENT_BYTES)?;
    rules.insert(SYS_shmget, vec![all_of(vec![large])?]);
    if !options.protected.is_empty() {
        protect(&mut rules, &options.protected)?;
    }
    Ok(rules)
}

fn refused_sockets(options: &Options) -> Result<Vec<SeccompRule>> {
    const TYPE_MASK: u64 = 0xf;
    let is_not = |family: c_int| argument(0, SeccompCmpOp::Ne, family.unsigned_abs().into());
    let is = |family: c_int| argument(0, SeccompCmpOp::Eq, family.unsigned_abs().into());
    let mut rules = Vec::new();
    let usual = [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET].map(|kind| u64::from(kind.unsigned_abs()));
    for kind in (0..=TYPE_MASK).filter(|kind| !usual.contains(kind)) {
        rules.push(all_of(vec![is_not(AF_NETLINK)?, argument(1, SeccompCmpOp::MaskedEq(TYPE_MASK), kind)?])?);
    }
    rules.push(all_of(vec![is_not(AF_UNIX)?, is_not(AF_INET)?, is_not(AF_INET6)?, is_not(AF_NETLINK)?])?);
    rules.push(all_of(vec![is(AF_NETLINK)?, argument(2, SeccompCmpOp::Ne, NETLINK_ROUTE.unsigned_abs().into())?])?);
    let mut families = Vec::new();
    if !options.internet {
        families.extend([AF_INET, AF_INET6]);
    }
    if !options.unix {
        families.push(AF_UNIX);
    }
    if !options.interfaces {
        families.push(AF_NETLINK);
    }
    for family in families {
        rules.push(all_of(vec![is(family)?])?);
    }
    Ok(rules)
}

/// Refuses signals to these processes and groups, and to everything.
fn protect(rules: &mut Rules, protected: &[i32]) -> Result<()> {
    // The filter sees 32 bits of the argument, so negative numbers keep their bits.
    let is = |position: u8, value: i32| {
        all_of(vec![argument(position, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))?])
    };
    let mut kill = vec![is(0, -1)?];
    let mut by_process = Vec::new();
    for &pid in protected {
        kill.extend([is(0, pid)?, is(0, -pid)?]);
        by_process.push(is(0, pid)?);
    }
    rules.insert(SYS_kill, kill);
    for call in [SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_open] {
        rules.insert(call, by_process.clone());
    }
    // These name a thread or a descriptor, which the filter cannot trace to its process. musl's `raise` is the only known user.
    rules.insert(SYS_tkill, Vec::new());
    rules.insert(SYS_pidfd_send_signal, Vec::new());
    Ok(())
}

fn argument(position: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(position, Dword, operator, value)
}

fn all_of(conditions: Vec<SeccompCondition>) -> Result<SeccompRule> {
    SeccompRule::new(conditions)
}
