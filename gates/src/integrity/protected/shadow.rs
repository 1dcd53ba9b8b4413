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
    module(&change.path, definition)
        .or_else(|| python(&change.path, head, definition))
        .or_else(|| script(&change.path, head))
        .or_else(|| declaration(&change.path, base, head))
}

/// Folder and name of the module of Python that a file is.
fn module_name(path: &str) -> Option<(&str, &str)> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let (stem, endings) = file.split_once('.')?;
    if !matches!(endings.rsplit('.').next(), Some("py" | "pyc" | "so" | "pyd")) {
        return None;
    }
    Some(if stem == "__init__" { folder.rsplit_once('/').unwrap_or(("", folder)) } else { (folder, stem) })
}

fn is_known(module: &str) -> bool {
    OF_TOOLS.contains(&module) || STANDARD.split(' ').any(|known| known == module)
}

/// A module at a place where Python looks before it looks among its own.
fn module(path: &str, definition: &Definition) -> Option<String> {
    let (folder, name) = module_name(path).filter(|(_, name)| is_known(name))?;
    let is_first = |root: &str| {
        folder == root || folder.strip_prefix(root).is_some_and(|rest| rest.trim_start_matches('/') == "src")
    };
    let is_searched = is_first("") || definition.gates.values().any(|gate| is_first(&gate.directory));
    is_searched.then(|| format!("a tool that imports {name} gets this file instead"))
}

/// A package or a compiled module beside the module that it replaces, and a module in a folder of tests: pytest looks
/// there first.
fn python(path: &str, head: &Snapshot, definition: &Definition) -> Option<String> {
    let (folder, name) = module_name(path)?;
    let at = |folder: &str, name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let has = |path: &str| head.files().contains_key(path);
    let beside = format!("{}.py", at(folder, name));
    if path != beside && has(&beside) {
        return Some(format!("Python loads this file instead of {beside}"));
    }
    let prefix = format!("{folder}/");
    let is_test = |path: &str| {
        let name = path.strip_prefix(&prefix).unwrap_or_default();
        name == "conftest.py"
            || name.ends_with("_test.py")
            || name.starts_with("test_") && name.strip_suffix(".py").is_some()
    };
    let mut below =
        head.files().range(prefix.clone()..).map(|(path, _)| path).take_while(|path| path.starts_with(&prefix));
    // The folder of a package is no place where Python looks for modules.
    if folder.is_empty() || has(&at(folder, "__init__.py")) || is_test(path) || !below.any(|path| is_test(path)) {
        return None;
    }
    let roots = ["", "src"].into_iter().chain(definition.gates.values().map(|gate| gate.directory.as_str()));
    let hidden = roots
        .filter(|root| *root != folder)
        .flat_map(|root| [at(root, &format!("{name}.py")), at(root, &format!("{name}/__init__.py"))])
        .find(|path| has(path));
    let hidden = hidden.or_else(|| is_known(name).then(|| format!("the module {name}")))?;
    Some(format!("a test beside it may load this file instead of {hidden}"))
}

/// Code beside code with another ending. Bundlers and runners look for the endings in an order.
fn script(path: &str, head: &Snapshot) -> Option<String> {
    const HIDES: [(&str, &[&str]); 6] = [
        ("js", &["ts", "tsx", "jsx"]),
        ("jsx", &["tsx", "ts"]),
        ("mjs", &["mts", "ts", "tsx", "js"]),
        ("cjs", &["cts", "ts", "tsx"]),
        ("mts", &["ts", "tsx"]),
        ("ts", &["tsx"]),
    ];
    let (stem, ending) =
        path.rsplit_once('.').filter(|(stem, _)| ![".config", ".d"].iter().any(|end| stem.ends_with(end)))?;
    let (_, hides) = HIDES.iter().find(|(own, _)| *own == ending)?;
    let beside = hides.iter().map(|ending| format!("{stem}.{ending}"));
    // A file goes before the folder with its name.
    let below = HIDES.iter().map(|(ending, _)| ending).chain(&["tsx"]).map(|ending| format!("{stem}/index.{ending}"));
    let hidden = beside.chain(below).find(|path| head.files().contains_key(path))?;
    Some(format!("a runner of tests may load this file instead of {hidden}"))
}

/// A declaration beside code. A type checker then reads the declaration alone.
fn declaration(path: &str, base: &Snapshot, head: &Snapshot) -> Option<String> {
    let is_in = |tree: &Snapshot, path: String| tree.files().contains_key(&path).then_some(path);
    if let Some(stem) = path.strip_suffix(".pyi") {
        let hidden = is_in(head, format!("{stem}.py"))?;
        return Some(format!("a type checker reads this stub instead of {hidden}"));
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
