use proptest::prelude::*;

use super::*;

/// One character per line: `_` blank, `/` comment, `)` bracket, `x` code.
fn kinds(text: &str) -> String {
    let letter = |kind: &LineKind| match kind {
        LineKind::Blank => '_',
        LineKind::Comment => '/',
        LineKind::Bracket => ')',
        LineKind::Code => 'x',
    };
    classify(text.as_bytes()).kinds.iter().map(letter).collect()
}

#[test]
fn blank_comment_and_bracket_lines_are_told_from_code() {
    assert_eq!(kinds("\n  \t\r\n// a\n/* b\n\n b */\n});\nlet a = 1; // c\n} // d\n/* e */ f()\n"), "__//_/)x)x");
}

#[test]
fn a_file_without_a_last_line_break_has_a_last_line() {
    assert_eq!(kinds("a()"), "x");
    assert_eq!(kinds("a()\n"), "x");
    assert_eq!(kinds(""), "");
}

#[test]
fn comment_marks_inside_strings_templates_and_regexes_open_no_comment() {
    assert_eq!(kinds("const a = '/*';\nb();\nconst c = \"*/\";\n"), "xxx");
    assert_eq!(kinds("const a = `/*\n//\n${b /* c\n */}\n`;\nd();\n"), "xxx)xx".replace(')', "x").as_str());
    assert_eq!(kinds("const a = /[/*]/;\nb();\nc(/\\/*/);\nd();\n// */\n"), "xxxx/");
    assert_eq!(kinds("``(/\\\n/"), "xx");
    assert_eq!(kinds("return /[/*]/\nb()\n// */"), "xx/");
}

#[test]
fn a_division_is_no_regular_expression() {
    assert_eq!(kinds("const a = b / c; // d / e\n// f\ng(a) / 2; /* h */\n/* i */\n"), "x/x/");
}

#[test]
fn an_apostrophe_in_markup_swallows_its_own_line_only() {
    assert_eq!(kinds("<p>Don't</p>\n// a\nb()\n"), "x/x");
}

#[test]
fn a_file_that_ends_inside_a_comment_is_all_code() {
    assert_eq!(kinds("<p>/* x</p>\n// a\nb()\n\n"), "xxx_");
}

#[test]
fn nested_templates_end_where_they_end() {
    assert_eq!(kinds("const a = `${b({ c: `${d}` })}`;\n// e\n"), "x/");
    assert_eq!(kinds("const a = `x`\n}\n// e\n"), "x)/");
}

#[test]
fn a_string_goes_on_over_an_escaped_line_break_only() {
    assert_eq!(kinds("const a = 'b \\\n/* c';\nd();\n"), "xxx");
    assert_eq!(kinds("const a = 'b \\\r\n/* c';\nd();\n"), "xxx");
}

#[test]
fn breaks_that_a_diff_does_not_count_are_noticed() {
    assert!(classify(b"a\rb\n").odd_breaks);
    assert!(classify("a\u{2028}b\n".as_bytes()).odd_breaks);
    assert!(!classify(b"a\r\nb\n").odd_breaks);
}

#[test]
fn comments_that_turn_coverage_off_are_noticed() {
    assert_eq!(classify(b"a\n/* istanbul ignore next */\nb\n// v8 ignore start\n").hints, [2, 4]);
}

proptest! {
    #[test]
    fn any_bytes_give_one_kind_a_line(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let lines = text.split_inclusive(|byte| *byte == b'\n').count();
        prop_assert_eq!(classify(&text).kinds.len(), lines);
    }

    #[test]
    fn any_source_like_text_gives_one_kind_a_line(text in "[a/*`'\"\\\\${}()\\[\\]\n\r ]{0,120}") {
        let lines = text.split_inclusive('\n').count();
        prop_assert_eq!(classify(text.as_bytes()).kinds.len(), lines);
    }

    #[test]
    fn a_comment_appended_to_a_whole_program_is_a_comment(name in "[a-z]{1,8}") {
        let program = format!("const {name} = '{name}';\n// {name}\n/* {name} */\n");
        prop_assert_eq!(kinds(&program), "x//");
    }
}
