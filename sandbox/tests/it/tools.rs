//! Honest tools must work at every level.

use std::path::Path;

use crate::{Workspace, levels, run_blocking, text};

/// A tool, a script that needs it, and a part of what it prints.
const CASES: [(&str, &str, &str); 11] = [
    ("node", "node -e 'console.log(1 + 1)'", "2"),
    ("node", r#"node -e 'new (require("worker_threads").Worker)("console.log(\"worker\")", {eval: true})'"#, "worker"),
    (
        "node",
        r#"echo 'process.send("child")' > c.js; node -e 'require("child_process").fork("./c.js").on("message", console.log)'"#,
        "child",
    ),
    ("npm", "npm --version", "."),
    ("python3", "python3 -c 'import ssl, ctypes, sqlite3; print(ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 42)())'", "42"),
    ("python3", "python3 -c 'import subprocess as s; print(s.check_output([\"echo\", \"pipe\"]))'", "pipe"),
    ("python3", "python3 -m venv --without-pip env && env/bin/python -c 'print(7 * 6)'", "42"),
    (
        "git",
        "git init -q r && cd r && echo a > f && git add f && git write-tree",
        "3be22be77da4887e869c981806d8452f034dd014",
    ),
    ("gcc", "printf '#include <stdio.h>\\nint main(){puts(\"compiled\");}' > a.c && gcc a.c -o a && ./a", "compiled"),
    ("perl", "perl -e 'print fork() ? (wait(), \"forked\")[1] : \"\"'", "forked"),
    ("sh", "seq 1 1000 | sort -rn | head -1", "1000"),
];

#[test]
fn honest_tools_work() {
    for level in levels() {
        for (tool, script, expected) in CASES {
            let is_here =
                ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|folder| Path::new(folder).join(tool).exists());
            if !is_here {
                continue;
            }
            let workspace = Workspace::new();
            let finished = run_blocking(&workspace.shell(level, script)).unwrap();
            assert!(
                text(&finished).contains(expected),
                "{level:?}: {script}: {:?}\n{}",
                finished.exit,
                text(&finished)
            );
        }
    }
}

#[test]
fn node_serves_itself_and_lists_interfaces_in_namespaces() {
    if !levels().contains(&nofx_sandbox::Level::Namespaces) || !Path::new("/usr/bin/node").exists() {
        return;
    }
    let workspace = Workspace::new();
    let script = r#"
const server = require("http").createServer((_, answer) => answer.end("served")).listen(0, "127.0.0.1", async () => {
  console.log(await (await fetch(`http://127.0.0.1:${server.address().port}`)).text(), Object.keys(require("os").networkInterfaces()));
  server.close();
});"#;
    let finished = run_blocking(&workspace.command(nofx_sandbox::Level::Namespaces, &["node", "-e", script])).unwrap();
    assert_eq!(text(&finished), "served [ 'lo' ]\n");
}
