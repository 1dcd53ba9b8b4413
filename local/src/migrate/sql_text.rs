//! Splits a migration into statements as the Supabase CLI records them: at semicolons outside quotes, dollar quotes,
//! comments and `BEGIN ATOMIC` bodies. A statement keeps the comments before it, without its semicolon.

/// The statements of `sql`, trimmed, in order.
pub fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut scanner = Scanner { sql, at: 0 };
    let mut body = Body::default();
    while let Some(token) = scanner.next_token() {
        match token {
            Token::Word(word) => body.see_word(word),
            Token::Semicolon if body.depth == 0 => {
                push(&mut statements, &sql[start..scanner.at - 1]);
                start = scanner.at;
                body = Body::default();
            }
            Token::Semicolon | Token::Other => {}
        }
    }
    push(&mut statements, &sql[start..]);
    statements
}

/// The first word of a statement in upper case, without comments. Empty if there is none.
pub fn first_word(statement: &str) -> String {
    let mut scanner = Scanner { sql: statement, at: 0 };
    while let Some(token) = scanner.next_token() {
        if let Token::Word(word) = token {
            return word.to_ascii_uppercase();
        }
    }
    String::new()
}

/// `sql` in a normal form, so that different splitting, trimming or line breaks compare equal.
pub fn normalise(sql: &str) -> String {
    let statements: Vec<String> =
        split(sql).iter().map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    statements.join(";")
}

fn push(statements: &mut Vec<String>, statement: &str) {
    let statement = statement.trim();
    if !statement.is_empty() {
        statements.push(statement.to_owned());
    }
}

/// Nesting inside the body of a SQL-standard function (`BEGIN ATOMIC ... END`).
#[derive(Default)]
struct Body {
    depth: u32,
    after_begin: bool,
}

impl Body {
    fn see_word(&mut self, word: &str) {
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        if self.depth > 0 && is("case") {
            self.depth += 1;
        } else if self.depth > 0 && is("end") {
            self.depth -= 1;
        } else if self.after_begin && is("atomic") {
            self.depth = 1;
        }
        self.after_begin = is("begin");
    }
}

enum Token<'a> {
    Word(&'a str),
    Semicolon,
    /// Any other character, quoted text or comment.
    Other,
}

struct Scanner<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The next token. Quoted text, dollar-quoted text and comments are one `Other` each.
    fn next_token(&mut self) -> Option<Token<'a>> {
        let rest = &self.sql[self.at..];
        let first = rest.chars().next()?;
        let (length, token) = match first {
            ';' => (1, Token::Semicolon),
            '\'' => (quoted(rest, '\'', false), Token::Other),
            '"' => (quoted(rest, '"', false), Token::Other),
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), Token::Other),
            '/' if rest.starts_with("/*") => (block_comment(rest), Token::Other),
            '$' => (dollar_quoted(rest).unwrap_or(1), Token::Other),
            _ if is_word_start(first) => {
                let length = rest.find(|c| !is_word_part(c)).unwrap_or(rest.len());
                let word = &rest[..length];
                if word.eq_ignore_ascii_case("e") && rest[length..].starts_with('\'') {
                    (length + quoted(&rest[length..], '\'', true), Token::Other)
                } else {
                    (length, Token::Word(word))
                }
            }
            other => (other.len_utf8(), Token::Other),
        };
        self.at += length;
        Some(token)
    }
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// A dollar sign inside a name does not start a quote.
fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Length of the quoted text at the start of `rest`. A doubled quote is part of it. With `escapes`, so is any character
/// after a backslash. Unclosed text extends to the end.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    rest.len()
}

/// Block comments nest in Postgres.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0u32;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Length of `$tag$ ... $tag$`. `None` if `rest` does not start with a dollar quote, such as `$1`.
fn dollar_quoted(rest: &str) -> Option<usize> {
    let tag_end = rest[1..].find('$')? + 2;
    let tag = &rest[..tag_end];
    let name = &tag[1..tag_end - 1];
    let is_name =
        name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name {
        return None;
    }
    Some(rest[tag_end..].find(tag).map_or(rest.len(), |at| tag_end + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_bodies_quotes_and_comments_do_not_split() {
        let function = "create function f() returns text language plpgsql as $body$\nbegin\n  perform 1; -- $$ ;\n  return $$a;b$$;\nend;\n$body$";
        let sql = format!(
            "-- first; comment\n{function};\ninsert into t values ('a;''b', E'it\\'s;', \"c;d\", $1);\n/* one; /* two; */ three; */ select 1;;\nselect 2\n"
        );
        let statements = split(&sql);
        assert_eq!(statements.len(), 4, "{statements:#?}");
        assert_eq!(statements[0], format!("-- first; comment\n{function}"));
        assert_eq!(statements[1], "insert into t values ('a;''b', E'it\\'s;', \"c;d\", $1)");
        assert_eq!(statements[2], "/* one; /* two; */ three; */ select 1");
        assert_eq!(statements[3], "select 2");
    }

    #[test]
    fn a_backslash_escapes_nothing_in_a_plain_string() {
        assert_eq!(split(r"select '\'; select 2"), [r"select '\'", "select 2"]);
    }

    #[test]
    fn sql_standard_bodies_stay_whole() {
        let sql = "create function f(a int) returns int begin atomic select 1; select case a when 1 then 2 end; end; select 3;";
        assert_eq!(split(sql).len(), 2);
        assert_eq!(split("begin; select 1; end; select 2").len(), 4);
    }

    #[test]
    fn dollars_in_names_and_parameters_do_not_quote() {
        assert_eq!(split("select a$b; select $1; select c$b").len(), 3);
    }

    #[test]
    fn unclosed_text_extends_to_the_end() {
        for sql in ["select 'a; b", "select $x$ a; b", "/* a; b", "select \"a; b"] {
            assert_eq!(split(sql), [sql]);
        }
    }

    #[test]
    fn normalising_removes_only_layout() {
        let file = "create table a (\n  b int\n);\n\n-- why\nselect 1;\n";
        assert_eq!(normalise(file), normalise("create table a ( b int );\n-- why\nselect 1"));
        assert_ne!(normalise(file), normalise("create table a ( b text ); -- why\nselect 1"));
    }

    #[test]
    fn the_first_word_skips_comments() {
        assert_eq!(first_word("-- begin\n/* commit */ Create table x"), "CREATE");
        assert_eq!(first_word("-- nothing"), "");
    }
}
