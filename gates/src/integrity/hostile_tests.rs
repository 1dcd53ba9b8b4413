//! Changes that hide what they do, or that take as long as they can to be compared.

use std::fs;

use super::*;
use crate::definition::define;

fn found(base: &[(&str, &[u8])], head: &[(&str, &[u8])]) -> Vec<(&'static str, String)> {
    let lay_out = |files: &[(&str, &[u8])]| {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            fs::write(folder.path().join(path), bytes).unwrap();
        }
        let snapshot = Snapshot::take(folder.path()).unwrap();
        (folder, snapshot)
    };
    let ((_one, base), (_other, head)) = (lay_out(base), lay_out(head));
    let integrity = compare(&base, &head, &define(&base).unwrap(), &define(&head).unwrap()).unwrap();
    integrity.findings.into_iter().map(|finding| (finding.kind.name(), finding.path)).collect()
}

/// Bytes that are no UTF-8.
const OLD: &[u8] = b"it('\xe9', () => { expect(f()).toBe(1); });\nit('b', () => { expect(g()).toBe(2); });\n";
const NEW: &[u8] = b"it('\xe9', () => { expect(f()).toBe(1); });\n";

#[test]
fn tests_that_cannot_be_read_at_the_base_are_no_reason_to_look_away() {
    let unreadable = |path: &str| vec![("unreadable", path.to_owned())];
    assert_eq!(found(&[("a.test.js", OLD)], &[("a.test.js", NEW)]), unreadable("a.test.js"));
    assert_eq!(found(&[("a.test.js", OLD)], &[]), unreadable("a.test.js"));
    assert_eq!(found(&[("a.test.js", OLD)], &[("a.test.js", b"it('a', () => {});\n")]), unreadable("a.test.js"));
    assert_eq!(found(&[("a.test.js", OLD)], &[("a.test.js", OLD)]), []);
    // Code that was not UTF-8 before may change.
    assert_eq!(found(&[("a.js", OLD)], &[("a.js", NEW)]), []);
}

#[test]
fn line_ends_that_only_a_language_sees_are_hidden_characters() {
    for hidden in
        ["// why\rprocess.exit()\n", "// why\u{2028}process.exit()\n", "// why\u{2029}f()\n", "f() // \x1b[2K\n"]
    {
        let found = found(&[("a.js", b"f();\n")], &[("a.js", hidden.as_bytes())]);
        assert_eq!(found, [("hidden_characters", "a.js".to_owned())], "{hidden:?}");
    }
    for plain in ["f();\r\ng();\r\n", "f();\r\ng();\r", "f();\tg();\x0c\n"] {
        assert_eq!(found(&[("a.js", b"f();\n")], &[("a.js", plain.as_bytes())]), [], "{plain:?}");
    }
}

/// The first ones take hours if the time grows with the square of their size. Nested ones overflow a stack that grows with
/// them.
#[test]
fn files_that_are_made_to_be_slow_are_compared_in_bounded_time() {
    for (path, unit, count) in [
        ("comment.js", "x\n", 50_000),
        ("blank.js", "      ", 50_000),
        ("regex.js", "=/[", 50_000),
        ("noqa.py", "a # noqa\n", 50_000),
        ("attributes.rs", "#[", 4_000),
        ("same.test.js", "it('a', () => {});\n", 4_000),
        ("suites.test.js", "describe('a', () => {", 4_000),
        ("strings.py", "\"\"\"a'''", 4_000),
        ("classes.py", "class A:\n", 4_000),
    ] {
        let mut text = unit.repeat(count);
        if matches!(path, "comment.js" | "blank.js") {
            text = format!("/*{text}*/");
        }
        found(&[(path, b"old\n")], &[(path, text.as_bytes())]);
        found(&[(path, text.as_bytes())], &[(path, format!("{text}\nnew\n").as_bytes())]);
    }
}
