//! The repository that stands for the reader's in blocks marked `repository`: a clone of a `main` with one commit, and a
//! staged change with its test.

use std::fs;
use std::path::Path;
use std::process::Command;

const COMMITTED: [(&str, &str); 3] = [
    (
        "package.json",
        r#"{ "name": "shop", "private": true, "type": "module", "scripts": {
  "typecheck": "node --check src/price.js", "lint": "node --check test/price.test.js", "test": "node --test" } }
"#,
    ),
    ("src/price.js", "export const price = (items) => items.reduce((sum, item) => sum + item.cents, 0);\n"),
    (
        "test/price.test.js",
        r#"import assert from "node:assert/strict";
import test from "node:test";
import { price } from "../src/price.js";

test("adds the items", () => assert.equal(price([{ cents: 250 }, { cents: 100 }]), 350));
"#,
    ),
];

const STAGED: [(&str, &str); 2] = [
    ("src/tax.js", "export const tax = (cents) => Math.round(cents * 0.19);\n"),
    (
        "test/tax.test.js",
        r#"import assert from "node:assert/strict";
import test from "node:test";
import { tax } from "../src/tax.js";

test("rounds to cents", () => assert.equal(tax(350), 67));
"#,
    ),
];

/// Makes the repository in a new folder.
pub fn create(folder: &Path, git_config: &Path) {
    let origin = folder.with_extension("origin");
    let git = |at: &Path, arguments: &[&str]| {
        let ran = Command::new("git").args(arguments).current_dir(at).env("GIT_CONFIG_GLOBAL", git_config).output();
        let ran = ran.expect("run git");
        assert!(ran.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let write = |at: &Path, (name, text): (&str, &str)| {
        let path = at.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("write it");
    };
    for file in COMMITTED {
        write(&origin, file);
    }
    git(&origin, &["init", "--quiet"]);
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "--quiet", "--message", "Sum prices"]);
    let (from, to) = (origin.to_string_lossy(), folder.to_string_lossy());
    git(&origin, &["clone", "--quiet", &from, &to]);
    for file in STAGED {
        write(folder, file);
    }
    git(folder, &["add", "."]);
}
