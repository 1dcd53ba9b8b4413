use proptest::prelude::*;

use super::*;

/// One character per line: `_` blank, `/` comment, `)` bracket, `x` code.
fn kinds(text: &str) -> String {
    kinds_of("a.tsx", text)
}

fn kinds_of(path: &str, text: &str) -> String {
    let letter = |kind: &LineKind| match kind {
        LineKind::Blank => '_',
        LineKind::Comment => '/',
        LineKind::Bracket => ')',
        LineKind::Declaration => 't',
        LineKind::Code => 'x',
    };
    classify(path, text).kinds.iter().map(letter).collect()
}

#[test]
fn blank_comment_and_bracket_lines_are_not_code() {
    assert_eq!(kinds("\n  \t\r\n// a\n/* b\n\n b */\n});\nlet a = 1; // c\n} // d\n/* e */ f()\n"), "__//_/)x)x");
}

#[test]
fn the_last_line_needs_no_line_break() {
    assert_eq!(kinds("a()"), "x");
    assert_eq!(kinds("a()\n"), "x");
    assert_eq!(kinds(""), "");
}

#[test]
fn comment_marks_in_strings_templates_and_regexes_do_not_start_comments() {
    assert_eq!(kinds("const a = '/*';\nb();\nconst c = \"*/\";\n"), "xxx");
    assert_eq!(kinds("const a = `/*\n//\n${b /* c\n */}\n`;\nd();\n"), "xxx)xx".replace(')', "x").as_str());
    assert_eq!(kinds("const a = /[/*]/;\nb();\nc(/\\/*/);\nd();\n// */\n"), "xxxx/");
    assert_eq!(kinds("``(/\\\n/"), "xx");
    assert_eq!(kinds("return /[/*]/\nb()\n// */"), "xx/");
}

#[test]
fn a_division_is_not_a_regular_expression() {
    assert_eq!(kinds("const a = b / c; // d / e\n// f\ng(a) / 2; /* h */\n/* i */\n"), "x/x/");
}

#[test]
fn an_apostrophe_in_markup_affects_only_its_own_line() {
    assert_eq!(kinds("<p>Don't</p>\n// a\nb()\n"), "x/x");
}

#[test]
fn a_file_that_ends_inside_a_comment_is_all_code() {
    assert_eq!(kinds("f(/* x\n// a\nb()\n\n"), "xxx_");
}

#[test]
fn nested_templates_are_tracked() {
    assert_eq!(kinds("const a = `${b({ c: `${d}` })}`;\n// e\n"), "x/");
    assert_eq!(kinds("const a = `x`\n}\n// e\n"), "x)/");
}

#[test]
fn a_string_continues_only_after_an_escaped_line_break() {
    assert_eq!(kinds("const a = 'b \\\n/* c';\nd();\n"), "xxx");
    assert_eq!(kinds("const a = 'b \\\r\n/* c';\nd();\n"), "xxx");
}

#[test]
fn line_breaks_that_a_diff_does_not_count_are_detected() {
    assert!(classify("a.ts", "a\rb\n").unusual_line_breaks);
    assert!(classify("a.ts", "a\u{2028}b\n").unusual_line_breaks);
    assert!(!classify("a.ts", "a\r\nb\n").unusual_line_breaks);
}

#[test]
fn comments_that_turn_coverage_off_are_detected() {
    assert_eq!(classify("a.ts", "a\n/* istanbul ignore next */\nb\n// v8 ignore start\n").ignore_hints, [2, 4]);
}

proptest! {
    #[test]
    fn any_text_gives_one_kind_per_line(text in "\\PC{0,200}", name in "[abc]\\.(ts|tsx|js|py|rs|go|java|c|rb)") {
        let lines = text.split_inclusive('\n').count();
        prop_assert_eq!(classify(&name, &text).kinds.len(), lines);
    }

    #[test]
    fn any_source_like_text_gives_one_kind_per_line(
        text in "[a/*`'\"#r<>=:;@\\\\${}()\\[\\]\n\r ]{0,120}", name in "[abc]\\.(ts|tsx|js|py|rs|go|java|c|rb)",
    ) {
        let lines = text.split_inclusive('\n').count();
        prop_assert_eq!(classify(&name, &text).kinds.len(), lines);
    }

    #[test]
    fn a_comment_appended_to_a_whole_program_is_a_comment(name in "[a-z]{1,8}") {
        let program = format!("const {name} = '{name}';\n// {name}\n/* {name} */\n");
        prop_assert_eq!(kinds(&program), "x//");
    }
}

#[test]
fn the_end_of_a_tag_on_its_own_line_is_code() {
    assert_eq!(kinds("a(\n<ul\n  b=\"c\" // d\n  e={f ? 1 : 2}\n>\n  {g}\n</ul>\n)\n"), "xxxxxxx)");
}
