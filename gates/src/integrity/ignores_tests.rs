use super::*;

fn names(path: &str, text: &str) -> Vec<&'static str> {
    in_text(path, text).iter().map(|found| found.name).collect()
}

#[test]
fn every_directive_of_the_tables_is_found_in_any_spelling() {
    for (path, open, table) in
        [("a.ts", "/*", &SCRIPT[..]), ("a.py", "#", &PYTHON[..]), ("a.go", "//", &GO[..]), ("a.rs", "//", &ANY[..])]
    {
        let close = if open == "/*" { "*/" } else { "" };
        for (pattern, _) in table {
            let tail = match *pattern {
                "pyright: report" => "Any=false",
                "jshint -W" => "034",
                _ => "",
            };
            for text in [
                format!("{open}{pattern}{tail}{close}"),
                format!("{open} \u{a0} {}{tail} why {close}", pattern.replace(' ', " \u{a0}\t ")),
                format!("x() {open} {}{tail}{close}", pattern.to_uppercase()),
            ] {
                assert!(!names(path, &text).is_empty(), "{text}");
            }
        }
    }
}

#[test]
fn prose_strings_and_other_words_are_not_directives() {
    for (path, text) in [
        ("a.ts", "// Do not use eslint-disable here."),
        ("a.ts", "// eslint-disable is not for line comments"),
        ("a.ts", "const a = '/* istanbul ignore next */';"),
        ("a.ts", "const a = `\n// @ts-ignore\n`;"),
        ("a.ts", "/**\n * The option @ts-ignore is banned.\n * eslint-disable too.\n */"),
        ("a.ts", "/* eslint no-console: \"error\" */"),
        ("a.ts", "// istanbul ignores this"),
        ("a.py", "a = '# noqa'"),
        ("a.py", "# The types: ignored values stay."),
        ("a.py", "# type: ignored"),
        ("a.py", "# pyright: strict, reportUnusedImport=error"),
        ("a.rs", "/// `#[allow(dead_code)]` is banned\nfn a() { let b = \"#[allow(x)]\"; }"),
        ("a.rs", "//! Comments such as `gitleaks:allow` change nothing."),
        ("a.go", "// The linter nolint is not used."),
        ("README.md", "Use # gitleaks:allow"),
    ] {
        assert!(names(path, text).is_empty(), "{text}: {:?}", names(path, text));
    }
}

#[test]
fn attributes_of_rust_are_directives() {
    for text in [
        "#[allow(dead_code)] fn a() {}",
        "#![allow( clippy :: all )]",
        "#[cfg_attr(not(test), allow(x))]",
        "#[expect(unused)]",
        "#[coverage(off)]",
        "#[cfg(not(tarpaulin_include))]",
        "# /* x */ [ allow (a) ]",
    ] {
        assert_eq!(names("a.rs", text).len(), 1, "{text}");
    }
    assert!(names("a.rs", "#[test] fn a() { b.expect(\"c\"); }").is_empty());
}

#[test]
fn a_comment_that_a_lexer_may_take_for_a_part_of_another_is_found() {
    let text = "const a = <p>/* text</p>;\n// @ts-ignore\nb();\nconst c = <p>*/</p>;";
    assert_eq!(names("a.tsx", text), ["@ts-ignore"]);
    assert_eq!(names("a.ts", "const a = `${/* istanbul ignore next */ b}`"), ["istanbul ignore"]);
    assert_eq!(names("a.ts", "/* why\n * @ts-ignore */\nb()"), ["@ts-ignore"]);
}
