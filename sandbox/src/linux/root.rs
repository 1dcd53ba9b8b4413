//! The root folder of a sandbox: a read-only tmpfs that holds nothing but the given paths, a new `/proc`, a few devices, and
//! temporary folders in memory.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::landlock::DEVICES;
use super::sys;
use crate::command::Network;
use crate::error::{Failure, Step};
use crate::wire::Spec;

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// No setuid programs and no devices.
const HARMLESS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// What appears at a path of the sandbox.
struct Entry {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Tree { tree: OwnedFd, is_folder: bool },
    Link(PathBuf),
}

/// Replaces the root folder of this process, which must be in its own mount namespace and hold CAP_SYS_ADMIN there.
pub(super) fn enter(spec: &Spec) -> Result<(), Failure> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("detach the mounts from the host's")?;
    // All sources are opened before the new root covers a folder of the old one.
    let devices = DEVICES.iter().map(|path| device(Path::new(path))).collect::<Result<Vec<_>, _>>()?;
    let mut entries = entries(spec)?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let process_files = new_filesystem("proc", &[]).step("make /proc")?;
    let temporary = temporary_folder(spec).step("make /tmp")?;
    let shared_memory = temporary_folder(spec).step("make /dev/shm")?;
    let root = new_filesystem("tmpfs", &[("mode", "0755"), ("size", "4m")]).step("make the root folder")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&root, "", CWD, "/tmp", flags)
        .or_else(|_| rustix::mount::move_mount(&root, "", CWD, "/proc", flags))
        .step("place the root folder")?;

    let tree = Tree { root };
    tree.write_accounts(spec).step("write /etc")?;
    tree.mount(Path::new("/proc"), process_files.as_fd(), true).step("mount /proc")?;
    tree.mount(Path::new("/tmp"), temporary.as_fd(), true).step("mount /tmp")?;
    tree.mount(Path::new("/dev/shm"), shared_memory.as_fd(), true).step("mount /dev/shm")?;
    for device in &devices {
        tree.place(device).step("add devices")?;
    }
    tree.link_standard_streams().step("link the standard streams")?;
    let mut placed: Vec<&Path> = Vec::new();
    for entry in &entries {
        // Inside a mounted tree nothing can be made, because that would change the host.
        let inside = placed.iter().any(|outer| entry.path.starts_with(outer));
        let result = if inside { tree.place_inside(entry) } else { tree.place(entry) };
        result.step(&format!("add {}", entry.path.display()))?;
        if matches!(entry.kind, Kind::Tree { .. }) {
            placed.push(&entry.path);
        }
    }
    tree.become_root()
}

/// The read-only and writable paths. A read-only path that is a link appears as the same link, and its target is added.
fn entries(spec: &Spec) -> Result<Vec<Entry>, Failure> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut add = |path: PathBuf, attributes: u64, required: bool| -> Result<(), Failure> {
        let opened = open_tree(&path, attributes);
        match opened {
            Ok((tree, is_folder)) => entries.push(Entry { path, kind: Kind::Tree { tree, is_folder } }),
            Err(Errno::NOENT | Errno::ACCESS) if !required => {}
            Err(error) => return Err(Failure::new(format!("open {}", path.display()), error.to_string())),
        }
        Ok(())
    };
    let mut links = Vec::new();
    for path in &spec.read_only {
        if let Ok(target) = std::fs::read_link(path) {
            links.push(Entry { path: path.clone(), kind: Kind::Link(target) });
            if let Ok(resolved) = path.canonicalize() {
                let covered = spec.read_only.iter().chain(&spec.writable).any(|other| resolved.starts_with(other));
                if !covered {
                    add(resolved, READ_ONLY | HARMLESS, false)?;
                }
            }
        } else {
            add(path.clone(), READ_ONLY | HARMLESS, false)?;
        }
    }
    for path in &spec.writable {
        add(path.clone(), HARMLESS, true)?;
    }
    for path in spec.hidden.iter().filter_map(|path| path.canonicalize().ok()).filter(|path| path.is_file()) {
        if spec.read_only.iter().any(|outer| path.starts_with(outer))
            && !links.iter().any(|link| path.starts_with(&link.path))
        {
            let empty = open_tree(Path::new("/dev/null"), libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC);
            let (tree, is_folder) = empty.step("open an empty file")?;
            links.push(Entry { path, kind: Kind::Tree { tree, is_folder } });
        }
    }
    if spec.network == Network::Open {
        add("/etc/resolv.conf".into(), READ_ONLY | HARMLESS, false)?;
    }
    entries.extend(links);
    Ok(entries)
}

/// A detached copy of the mounts at a path.
fn open_tree(path: &Path, attributes: u64) -> Result<(OwnedFd, bool), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    sys::add_mount_attributes(&tree, attributes, true)
        .map_err(|error| Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let is_folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode).is_dir();
    Ok((tree, is_folder))
}

fn device(path: &Path) -> Result<Entry, Failure> {
    let (tree, is_folder) = open_tree(path, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC).step("open devices")?;
    Ok(Entry { path: path.to_owned(), kind: Kind::Tree { tree, is_folder } })
}

fn temporary_folder(spec: &Spec) -> io::Result<OwnedFd> {
    let size = spec.limits.disk_bytes.unwrap_or(0).to_string();
    let inodes = 1024 * 1024;
    new_filesystem("tmpfs", &[("mode", "1777"), ("size", &size), ("nr_inodes", &inodes.to_string())])
}

fn new_filesystem(kind: &str, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(&context, *name, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if kind == "proc" {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The new root folder while it is built.
struct Tree {
    root: OwnedFd,
}

impl Tree {
    fn place(&self, entry: &Entry) -> io::Result<()> {
        match &entry.kind {
            Kind::Tree { tree, is_folder } => self.mount(&entry.path, tree.as_fd(), *is_folder),
            Kind::Link(target) => {
                let (folder, name) = self.parent_of(&entry.path)?;
                match rustix::fs::symlinkat(target, &folder, name) {
                    Ok(()) | Err(Errno::EXIST) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Mounts on something that a mounted tree already has.
    fn place_inside(&self, entry: &Entry) -> io::Result<()> {
        match &entry.kind {
            Kind::Tree { tree, .. } => self.cover(&entry.path, tree.as_fd()),
            // The mounted tree has the link itself.
            Kind::Link(_) => Ok(()),
        }
    }

    /// Makes the mount point, then mounts.
    fn mount(&self, path: &Path, tree: impl AsFd, is_folder: bool) -> io::Result<()> {
        if is_folder {
            self.make_folder(path)?;
        } else {
            let (folder, name) = self.parent_of(path)?;
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
        }
        self.cover(path, tree)
    }

    fn cover(&self, path: &Path, tree: impl AsFd) -> io::Result<()> {
        let target = self.open(path, OFlags::PATH)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(rustix::mount::move_mount(tree, "", &target, "", flags)?)
    }

    /// Opens a path below the new root. Links are refused: they would lead to the old root, or away from where a mount is needed.
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.strip_prefix("/").map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut made = PathBuf::from("/");
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let parent = self.open(&made, OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            made.push(name);
        }
        Ok(())
    }

    fn parent_of<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.make_folder(parent)?;
        Ok((self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// Minimal account files, so that tools find the name of their user and nobody else's.
    fn write_accounts(&self, spec: &Spec) -> io::Result<()> {
        let uid = spec.plan.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let gid = spec.plan.uid.unwrap_or_else(|| rustix::process::getegid().as_raw());
        let home = spec.environment.iter().find(|(name, _)| name == "HOME").map_or("/tmp", |(_, value)| value);
        // A home with a colon or a line break would add accounts.
        let home = if home.contains([':', '\n']) { "/tmp" } else { home };
        let user = if uid == 0 { String::new() } else { format!("sandbox:x:{uid}:{gid}::{home}:/bin/sh\n") };
        let group = if gid == 0 { String::new() } else { format!("sandbox:x:{gid}:\n") };
        self.write("/etc/passwd", &format!("root:x:0:0::/root:/bin/false\n{user}"))?;
        self.write("/etc/group", &format!("root:x:0:\n{group}"))?;
        // Its services may have names there. Still the host's file: the root folder changes last.
        let names =
            if spec.network == Network::Open { std::fs::read("/etc/hosts").unwrap_or_default() } else { Vec::new() };
        let names = String::from_utf8_lossy(&names);
        self.write("/etc/hosts", &format!("127.0.0.1 localhost sandbox\n::1 localhost\n{names}"))?;
        self.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let (folder, name) = self.parent_of(Path::new(path))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
        std::fs::File::from(file).write_all(text.as_bytes())
    }

    fn link_standard_streams(&self) -> io::Result<()> {
        let folder = self.open(Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)?;
        for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            rustix::fs::symlinkat(format!("/proc/self/fd{target}"), &folder, name)?;
        }
        Ok(())
    }

    /// Leaves the old root for good.
    fn become_root(self) -> Result<(), Failure> {
        rustix::process::fchdir(&self.root).step("enter the root folder")?;
        rustix::process::pivot_root(".", ".").step("change the root folder")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).step("leave the host's root folder")?;
        rustix::process::chdir("/").step("enter the root folder")?;
        sys::add_mount_attributes(&self.root, READ_ONLY | HARMLESS, false).step("make the root folder read-only")
    }
}
