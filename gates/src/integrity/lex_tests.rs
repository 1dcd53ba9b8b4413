use super::*;

fn comments(language: Language, text: &str) -> Vec<&str> {
    tokens(language, text).iter().filter(|token| token.is_comment()).map(|token| token.text).collect()
}

fn words(language: Language, text: &str) -> Vec<&str> {
    code(language, text).iter().filter(|token| token.kind == TokenKind::Word).map(|token| token.text).collect()
}

#[test]
fn comments_in_strings_templates_and_regexes_are_none() {
    let text = "const a = '// x', b = `/* ${c /* in */} // */`, d = /[/*]\\/*/; // out\nif (a) /'/.test(b); e / 2 // f";
    assert_eq!(comments(Language::Script, text), ["/* in */", "// out", "// f"]);
    assert_eq!(
        comments(Language::Python, "a = '#x' # y\nb = \"\"\"# z\n\"\"\"\nc = r'\\' # w\nd = f\"{a}#\" # v"),
        ["# y", "# v"]
    );
    assert_eq!(
        comments(Language::Rust, "/* a /* b */ c */ let d: &'a str = r#\"// \"# ; let e = '\"'; // f"),
        ["/* a /* b */ c */", "// f"]
    );
    assert_eq!(comments(Language::Go, "a := `// x\n/*`; b := '\\'' // y"), ["// y"]);
}

#[test]
fn words_and_positions_are_found() {
    assert_eq!(words(Language::Script, "it.skip(`a ${b.c} d`, () => größe)"), ["it", "skip", "b", "c", "größe"]);
    assert_eq!(words(Language::Rust, "fn a<'b>(c: &'b u8) { d('x') }"), ["fn", "a", "b", "c", "b", "u8", "d"]);
    let found = code(Language::Python, "def a():\n    '''x\n'''\n    b");
    let last = found.last().unwrap();
    assert_eq!((last.text, last.line, last.column), ("b", 4, 4));
}

#[test]
fn unended_things_do_not_loop() {
    for language in [Language::Script, Language::Python, Language::Rust, Language::Go] {
        for text in ["'", "\"", "`", "`${", "/*", "r#\"", "'''", "'''\\", "/a", "é'é", "\\", "b'", "'\u{1F600}"] {
            let total: usize = tokens(language, text).iter().map(|token| token.text.len()).sum();
            assert!(total <= text.len(), "{language:?} {text}");
        }
    }
}
