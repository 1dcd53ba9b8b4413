//! Landlock: which files the command may use, and whom it may signal.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

use crate::command::Network;
use crate::error::{Failure, Step};
use crate::wire::Spec;

/// Devices that programs expect. They hold no data.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Files that runtimes read at their start and that tell nothing about other processes or users' data.
const COMMON: [&str; 14] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/random",
    "/proc/sys/vm/overcommit_memory",
    "/proc/uptime",
    "/proc/version",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
];

fn abi(version: u32) -> ABI {
    match version {
        0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

/// The version that kernel and library share. Restricts the calling thread, so call it in one that ends.
pub(super) fn probe() -> Result<u32, Failure> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self)
        .step("try Landlock")?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset == RulesetStatus::FullyEnforced => {
            Ok((1..=7).rev().find(|version| abi(*version) == effective_abi).unwrap_or(0))
        }
        LandlockStatus::Available { .. } => Err(Failure::new("try Landlock", "it is not fully enforced")),
        LandlockStatus::NotEnabled => Err(Failure::new("try Landlock", "the kernel has it, but it is not enabled")),
        LandlockStatus::NotImplemented => Err(Failure::new("try Landlock", "the kernel does not have it")),
    }
}

/// The ruleset for a command. Opens the paths, so call it before the uid changes and after the mounts.
pub(super) fn ruleset(spec: &Spec, inside_namespaces: bool) -> Result<RulesetCreated, Failure> {
    build(spec, inside_namespaces).step("build the Landlock ruleset")
}

fn build(spec: &Spec, inside_namespaces: bool) -> Result<RulesetCreated, landlock::RulesetError> {
    let abi = abi(spec.plan.landlock_abi);
    let (all, read) = (AccessFs::from_all(abi), AccessFs::from_read(abi));
    // Device nodes can be neither made nor granted: the sandbox has those that it needs.
    let change = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    // The library drops rights silently by default. A hard requirement makes it fail instead.
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(all)?;
    if abi >= ABI::V4 && spec.network == Network::None && !inside_namespaces {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    let mut created = ruleset.create()?.add_rules(rules(DEVICES, all))?;
    created = if inside_namespaces {
        // The mounts decide what is visible. All of it may be read.
        created.add_rules(rules(["/"], read))?.add_rules(rules(["/tmp", "/dev/shm"], change))?
    } else {
        created.add_rules(rules(COMMON, read))?.add_rules(rules(&spec.read_only, read))?
    };
    created.add_rules(rules(&spec.writable, change))
}

fn rules<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<landlock::PathBeneath<landlock::PathFd>, landlock::RulesetError>> {
    let paths: Vec<PathBuf> = paths.into_iter().map(|path| path.as_ref().to_path_buf()).collect();
    path_beneath_rules(paths, access)
}

/// Restricts this thread and its later children.
pub(super) fn enforce(ruleset: RulesetCreated) -> Result<(), Failure> {
    let status = ruleset.restrict_self().step("enforce Landlock")?;
    if status.ruleset == RulesetStatus::FullyEnforced {
        Ok(())
    } else {
        Err(Failure::new("enforce Landlock", format!("its status is {:?}", status.ruleset)))
    }
}
