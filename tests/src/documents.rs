//! Reads the repository's documents: their fenced blocks, and the commands in their sentences.

pub mod output;

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown page.
pub struct Document {
    /// The path in the repository.
    pub path: String,
    text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the opening fence, from 1.
    pub line: usize,
    pub language: String,
    /// The words after the language.
    pub attributes: Vec<String>,
    pub text: String,
}

impl Document {
    /// The README, ARCHITECTURE, CONTRIBUTING and everything in `docs`, ordered by path.
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut paths = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"].map(PathBuf::from).to_vec();
        paths.extend(pages_below(&root, Path::new("docs")));
        paths.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(root.join(&path)).expect("a readable page");
            Self { path: path.to_string_lossy().into_owned(), text }
        };
        paths.into_iter().map(read).collect()
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fenced blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let language = words.next().unwrap_or_default();
                    open = Some(Block { line: index + 1, language, attributes: words.collect(), text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert_eq!(open, None, "{} has a block without an end", self.path);
        blocks
    }

    /// The commands of this program in sentences, such as `` `make demo` ``.
    pub fn commands(&self, program: &str) -> Vec<&str> {
        let start = format!("`{program} ");
        let spans = self.text.match_indices(&start).map(|(at, _)| &self.text[at + 1..]);
        spans.filter_map(|rest| Some(rest.split_once('`')?.0)).collect()
    }
}

impl Block {
    /// The value of an attribute `key=value`.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| attribute.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|other| other == attribute)
    }
}

fn pages_below(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(folder)).expect("a readable folder");
    let found = entries.flat_map(|entry| {
        let path = folder.join(entry.expect("an entry").file_name());
        if root.join(&path).is_dir() { pages_below(root, &path) } else { vec![path] }
    });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_commands_are_parsed() {
        let text = "Run `make demo`, not `make`.\n\n```sh exit=1 checkout\none\n\ntwo\n```\n\n```\nno language\n```\n";
        let document = Document { path: "page.md".into(), text: text.to_owned() };
        assert_eq!(document.commands("make"), ["make demo"]);
        let blocks = document.blocks();
        let found: Vec<_> = blocks.iter().map(|block| (block.line, block.language.as_str())).collect();
        assert_eq!(found, [(3, "sh"), (9, "")]);
        assert_eq!(blocks[0].text, "one\n\ntwo\n");
        assert_eq!((blocks[0].attribute("exit"), blocks[0].has("checkout")), (Some("1"), true));
        assert_eq!((blocks[1].attribute("exit"), blocks[1].has("checkout")), (None, false));
    }
}
