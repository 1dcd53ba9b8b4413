//! New files that a tool reads instead of the ones that it should: modules with the names of those that it imports, and
//! declarations that hide the code beside them.

use super::super::change::{Change, Side};
use crate::definition::Definition;
use crate::snapshot::Snapshot;

/// The standard library of Python. `python -m TOOL` looks for modules in the current folder first.
const STANDARD: &str = "abc aifc annotationlib antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb \
    binascii bisect builtins bz2 cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop collections \
    colorsys compileall compression concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes \
    curses dataclasses datetime dbm decimal difflib dis distutils doctest email encodings ensurepip enum errno \
    faulthandler fcntl filecmp fileinput fnmatch fractions ftplib functools gc genericpath getopt getpass gettext \
    glob graphlib grp gzip hashlib heapq hmac html http idlelib imaplib imghdr imp importlib inspect io ipaddress \
    itertools json keyword lib2to3 linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap \
    modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode operator \
    optparse os ossaudiodev pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath \
    pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline \
    reprlib resource rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtpd \
    smtplib sndhdr socket socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string \
    stringprep struct subprocess sunau symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios \
    textwrap this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty turtle \
    turtledemo types typing unicodedata unittest urllib uu uuid venv warnings wave weakref webbrowser winreg \
    winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo";

/// What mypy, pytest, ruff and coverage import besides.
const OF_TOOLS: [&str; 18] = [
    "_pytest",
    "attr",
    "colorama",
    "coverage",
    "exceptiongroup",
    "iniconfig",
    "mypy",
    "mypy_extensions",
    "mypyc",
    "packaging",
    "pathspec",
    "pluggy",
    "pygments",
    "pytest",
    "pytest_cov",
    "ruff",
    "tomli",
    "typing_extensions",
];

/// Why a new file counts, in a sentence without a full stop.
pub fn reason(change: &Change, base: &Snapshot, head: &Snapshot, definition: &Definition) -> Option<String> {
    if change.base != Side::None {
        return None;
    }
    module(&change.path, definition).or_else(|| declaration(&change.path, base, head))
}

/// A module at a place where Python looks before it looks among its own.
fn module(path: &str, definition: &Definition) -> Option<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let (stem, endings) = file.split_once('.')?;
    if !matches!(endings.rsplit('.').next(), Some("py" | "pyc" | "so" | "pyd")) {
        return None;
    }
    let (folder, name) =
        if stem == "__init__" { folder.rsplit_once('/').unwrap_or(("", folder)) } else { (folder, stem) };
    if !OF_TOOLS.contains(&name) && !STANDARD.split(' ').any(|known| known == name) {
        return None;
    }
    let is_first = |root: &str| {
        folder == root || folder.strip_prefix(root).is_some_and(|rest| rest.trim_start_matches('/') == "src")
    };
    let is_searched = is_first("") || definition.gates.values().any(|gate| is_first(&gate.directory));
    is_searched.then(|| format!("a tool that imports {name} gets this file instead"))
}

/// A declaration beside code. A type checker then reads the declaration alone.
fn declaration(path: &str, base: &Snapshot, head: &Snapshot) -> Option<String> {
    let is_in = |tree: &Snapshot, path: String| tree.files().contains_key(&path).then_some(path);
    if let Some(stem) = path.strip_suffix(".pyi") {
        let hidden = is_in(head, format!("{stem}.py"))?;
        return Some(format!("a type checker reads this stub instead of {hidden}"));
    }
    // Bundlers and runners look for JavaScript first.
    let code = [("js", ["ts", "tsx"]), ("jsx", ["tsx", "ts"]), ("mjs", ["mts", "ts"])];
    for (ending, hidden) in code {
        let stem = path.strip_suffix(ending).filter(|stem| stem.ends_with('.') && !stem.ends_with(".config."));
        let hidden = stem.and_then(|stem| hidden.iter().find_map(|ending| is_in(head, format!("{stem}{ending}"))));
        if let Some(hidden) = hidden {
            return Some(format!("a runner of tests may load this file instead of {hidden}"));
        }
    }
    let (stem, kind) = [(".d.ts", ""), (".d.mts", "m"), (".d.cts", "c")]
        .iter()
        .find_map(|(ending, kind)| Some((path.strip_suffix(ending)?, *kind)))?;
    let replaced =
        [format!("{stem}.{kind}ts"), format!("{stem}.tsx")].into_iter().find_map(|path| is_in(base, path))?;
    let hidden = [format!("{stem}.{kind}js"), format!("{stem}.jsx")].into_iter().find_map(|path| is_in(head, path))?;
    (!head.files().contains_key(&replaced))
        .then(|| format!("the compiler checked {replaced}, and reads this declaration instead of {hidden}"))
}
