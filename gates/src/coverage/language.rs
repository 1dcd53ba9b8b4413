//! The language of a source, by the extension of its name.

use super::plain::Syntax;
use super::script::Dialect;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Script(Dialect),
    Python,
    Plain(Syntax),
}

/// Extensions of TypeScript and JavaScript.
pub const SCRIPTS: [&str; 8] = ["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs"];
/// Extensions of the other languages whose files are sources without any configuration.
pub const OTHERS: [&str; 3] = ["py", "rs", "go"];

impl Language {
    /// `None` for a language without a lexer. Every line of its files that is not blank counts as code.
    pub fn of(path: &str) -> Option<Self> {
        let (_, extension) = path.rsplit_once('.')?;
        let script = |types, jsx| Some(Self::Script(Dialect { types, jsx }));
        match extension {
            "ts" | "mts" | "cts" => script(true, false),
            "tsx" => script(true, true),
            "js" | "jsx" | "mjs" | "cjs" => script(false, true),
            "py" | "pyi" => Some(Self::Python),
            "rs" => Some(Self::Plain(Syntax::Rust)),
            "go" => Some(Self::Plain(Syntax::Go)),
            "java" => Some(Self::Plain(Syntax::Java)),
            "c" | "h" | "cc" | "cpp" | "cxx" | "hh" | "hpp" => Some(Self::Plain(Syntax::C)),
            _ => None,
        }
    }
}
