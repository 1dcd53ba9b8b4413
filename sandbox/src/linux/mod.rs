//! The launcher on Linux.

mod bubblewrap;
mod landlock;
mod loopback;
mod namespaces;
mod privileges;
mod processes;
mod root;
mod seccomp;
mod sys;

use std::io;
use std::process::Child;
use std::thread;

use rustix::process::{DumpableBehavior, Pid};

pub(crate) use processes::{Scope, kill_all, kill_orphans, members, memory_bytes, pid_of, wait_ready};

use crate::command::{Level, Network};
use crate::error::{Failure, Step};
use crate::host::{Host, Through};
use crate::launcher::{Channel, Stage};
use crate::report::{NetworkInForce, Report};
use crate::run;
use crate::supervisor::{self, Spawn};
use crate::wire::{Plan, Spec};

/// Keeps other processes with the same uid from reading this one's memory and environment.
pub(crate) fn hide_memory() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Runs a launcher until the command has ended.
pub(crate) fn serve(stage: Stage, spec: &Spec, channel: &mut Channel) -> Result<(), Failure> {
    sys::close_inherited_on_exec().step("close inherited files")?;
    if stage == Stage::Init {
        return inside(spec, channel);
    }
    // A session of its own: no terminal, and no signals to the group of the parent.
    let _ = rustix::process::setsid();
    match &spec.plan.namespaces {
        Some(through) => namespaces::guard(spec, channel, through),
        None => outside(spec, channel),
    }
}

/// Process 1 of the namespaces: restricts itself, so that all its children are restricted.
fn inside(spec: &Spec, channel: &mut Channel) -> Result<(), Failure> {
    if !namespaces::is_first() {
        return Err(Failure::new("start", "this is not process 1"));
    }
    namespaces::die_with_parent()?;
    let own = matches!(spec.plan.namespaces, Some(Through::Launcher));
    if own {
        let _ = rustix::system::sethostname(b"sandbox");
        if spec.network == Network::None {
            loopback::turn_on().step("turn on the loopback interface")?;
        }
        root::enter(spec)?;
    }
    privileges::set_limits(&spec.limits, 1)?;
    let ruleset = (spec.plan.landlock_abi >= MINIMUM_ABI_INSIDE).then(|| landlock::ruleset(spec, true)).transpose()?;
    privileges::drop_all(spec.plan.uid)?;
    hide_memory().step("hide the launcher's memory")?;
    namespaces::die_with_parent()?;
    let landlock_abi = ruleset.map(landlock::enforce).transpose()?.map(|()| spec.plan.landlock_abi);
    if spec.plan.seccomp {
        seccomp::enforce(&seccomp::Options {
            internet: true,
            interfaces: spec.network == Network::None,
            unix: true,
            protected: Vec::new(),
        })?;
    }
    let mut report = report(spec, Level::Namespaces, landlock_abi);
    report.through.clone_from(&spec.plan.namespaces);
    report.namespaces = namespaces::in_force(&spec.host_namespaces);
    if spec.network == Network::None {
        demand(&report, &["pid", "mount", "network", "ipc"])?;
        report.network = NetworkInForce::PrivateLoopback;
    } else {
        demand(&report, &["pid", "mount", "ipc"])?;
        if spec.plan.landlock_abi < SCOPED_ABI {
            report.not_in_force.push("abstract sockets of the host can be reached".to_owned());
        }
    }
    supervisor::supervise(spec, channel, report, Scope::Namespace, &Direct)
}

/// Version 1 forbids to move files between folders, which builds do. Namespaces are better without it.
const MINIMUM_ABI_INSIDE: u32 = 2;

/// The namespaces are what the level promises, so their absence is a failure.
fn demand(report: &Report, names: &[&str]) -> Result<(), Failure> {
    match names.iter().find(|name| !report.namespaces.iter().any(|in_force| in_force == *name)) {
        Some(name) => Err(Failure::new("verify the namespaces", format!("the {name} namespace is the host's"))),
        None => Ok(()),
    }
}

/// The guard without namespaces. It stays as it is, and starts each program from a thread that restricts itself.
fn outside(spec: &Spec, channel: &mut Channel) -> Result<(), Failure> {
    hide_memory().step("hide the launcher's memory")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step("become a sub-reaper")?;
    let (scope, others) = match spec.plan.uid {
        Some(uid) => {
            // A launcher that was killed may have left processes behind.
            kill_all(Scope::Uid(uid));
            (Scope::Uid(uid), 0)
        }
        None => (Scope::Descendants, processes::tasks_of(rustix::process::geteuid().as_raw())),
    };
    privileges::set_limits(&spec.limits, others)?;
    let spawn = Restricted { spec };
    // A thread without a program shows that all restrictions hold.
    let report = spawn.in_thread(|report| report)?;
    supervisor::supervise(spec, channel, report, scope, &spawn)
}

/// For process 1 of the namespaces: it has restricted itself.
struct Direct;

impl Spawn for Direct {
    fn spawn(&self, command: &mut std::process::Command) -> io::Result<Child> {
        command.spawn()
    }
}

/// For the guard without namespaces.
struct Restricted<'a> {
    spec: &'a Spec,
}

impl Restricted<'_> {
    /// Restricts a new thread, which calls `then` and ends. Uid, capabilities, Landlock and seccomp belong to threads.
    fn in_thread<T: Send>(&self, then: impl FnOnce(Report) -> T + Send) -> Result<T, Failure> {
        let guard = rustix::process::getpid();
        thread::scope(|scope| scope.spawn(|| self.restrict(guard).map(then)).join())
            .unwrap_or_else(|_| Err(Failure::new("restrict a thread", "it panicked")))
    }

    fn restrict(&self, guard: Pid) -> Result<Report, Failure> {
        let plan = &self.spec.plan;
        let ruleset = (plan.landlock_abi > 0).then(|| landlock::ruleset(self.spec, false)).transpose()?;
        privileges::drop_all(plan.uid)?;
        let landlock_abi = ruleset.map(landlock::enforce).transpose()?.map(|()| plan.landlock_abi);
        // A uid of its own, or Landlock, keeps signals from the launcher and its parent.
        let shielded = plan.uid.is_some() || plan.landlock_abi >= SCOPED_ABI;
        if plan.seccomp {
            let parent = &self.spec.parent;
            let protected = [guard.as_raw_nonzero().get(), parent.pid, parent.group];
            seccomp::enforce(&seccomp::Options {
                internet: self.spec.network == Network::Open,
                interfaces: false,
                // Landlock does not keep the command from the sockets of services that everybody may write to, for example
                // Postgres and D-Bus.
                unix: false,
                protected: if shielded { Vec::new() } else { protected.to_vec() },
            })?;
        }
        let level = if landlock_abi.is_some() && plan.seccomp { Level::Landlock } else { Level::Limits };
        let mut report = report(self.spec, level, landlock_abi);
        if self.spec.network == Network::None && plan.seccomp {
            report.network = NetworkInForce::None;
        }
        note_gaps(self.spec, &mut report, shielded);
        Ok(report)
    }
}

impl Spawn for Restricted<'_> {
    fn spawn(&self, command: &mut std::process::Command) -> io::Result<Child> {
        self.in_thread(|_| command.spawn()).map_err(|failure| io::Error::other(failure.message))?
    }
}

/// From this version on, Landlock keeps signals and abstract sockets inside.
const SCOPED_ABI: u32 = 6;

/// What is in force at every level. Written by the restricted thread itself.
fn report(spec: &Spec, level: Level, landlock_abi: Option<u32>) -> Report {
    Report {
        level,
        through: None,
        uid: rustix::process::geteuid().as_raw(),
        own_uid: spec.plan.uid.is_some(),
        namespaces: Vec::new(),
        network: NetworkInForce::Open,
        landlock_abi,
        seccomp: spec.plan.seccomp,
        no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
        capabilities_dropped: privileges::has_none(),
        limits: spec.limits.clone(),
        measured_limits: ["memory_bytes", "disk_bytes"].map(str::to_owned).to_vec(),
        killed_at_end: 0,
        not_in_force: Vec::new(),
    }
}

/// Says what a command without namespaces can do that it should not.
fn note_gaps(spec: &Spec, report: &mut Report, shielded: bool) {
    let mut note = |text: &str| report.not_in_force.push(text.to_owned());
    note("the command sees the processes of the host");
    note("the temporary folders of the host are not replaced");
    if report.landlock_abi.is_none() {
        note("files outside of the given paths can be read and changed as their modes allow");
    }
    if spec.read_only.iter().any(|path| spec.writable.iter().any(|writable| path.starts_with(writable))) {
        note("read-only paths inside of writable ones can be changed");
    }
    for path in spec.hidden.iter().filter(|path| std::fs::File::open(path).is_ok()) {
        note(&format!("the command can read {}", path.display()));
    }
    if report.uid == 0 {
        note("the command runs as root");
    }
    if spec.network == Network::None && report.network == NetworkInForce::Open {
        note("the network is open");
    }
    if !spec.plan.seccomp {
        note("no system call is refused");
        if !shielded {
            note("the command can kill its launcher and its parent");
        }
    }
    if spec.plan.seccomp {
        note("sockets of the family AF_UNIX are refused, except socket pairs");
    }
}

/// Tries what the host offers. Threads and a launcher take the restrictions, this process does not.
pub(crate) fn probe() -> Host {
    let mut reasons = Vec::new();
    let mut attempt = |result: Result<(), Failure>| {
        result.map_err(|failure| reasons.push(format!("{}: {}", failure.step, failure.message))).is_ok()
    };
    let candidate = crate::identity::candidate();
    let own_uid = rustix::process::geteuid().is_root()
        && attempt(in_new_thread(move || privileges::change_uid(candidate).step("change the uid")));
    let options = seccomp::Options { internet: false, interfaces: false, unix: true, protected: Vec::new() };
    let seccomp = attempt(in_new_thread(move || seccomp::enforce(&options)));
    let mut landlock_abi = 0;
    attempt(in_new_thread(landlock::probe).map(|abi| landlock_abi = abi));
    let plan = |through| Plan { namespaces: Some(through), landlock_abi, seccomp, uid: own_uid.then_some(candidate) };
    let mut namespaces = None;
    let bubblewrap = bubblewrap::find().map(Through::Bubblewrap);
    for through in [Some(Through::Launcher), bubblewrap].into_iter().flatten() {
        if attempt(run::probe(plan(through.clone()))) {
            namespaces = Some(through);
            break;
        }
    }
    Host { own_uid, namespaces, landlock_abi, seccomp, reasons }
}

fn in_new_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    thread::spawn(work).join().unwrap_or_else(|_| Err(Failure::new("try a restriction", "the thread panicked")))
}

/// The namespaces of this process, to compare with those of the launcher.
pub(crate) fn host_namespaces() -> Vec<(String, String)> {
    namespaces::links()
}
