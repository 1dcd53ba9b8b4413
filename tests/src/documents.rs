//! Reads the repository's documents: their fenced blocks, and the commands in their sentences.

use std::fs;
use std::path::{Path, PathBuf};

/// Languages of the blocks that the e2e suite executes, and of those that the repository suite reads (`toml`). Mark any
/// other block as `text`.
pub const EXECUTED: [&str; 4] = ["json", "sh", "sql", "toml"];

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

    /// The fenced blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    open = Some(Block { line: index + 1, language: language.to_owned(), text: String::new() });
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
    fn every_block_is_executed_or_marked_as_text() {
        let documents = Document::all();
        assert!(documents.len() > 30, "pages are missing");
        let mut executed = 0;
        for document in &documents {
            for Block { line, language, .. } in document.blocks() {
                let known = EXECUTED.contains(&language.as_str());
                assert!(known || language == "text", "{}:{line}: nothing executes {language:?}", document.path);
                executed += usize::from(known);
            }
        }
        assert!(executed > 10, "{executed} blocks");
    }

    #[test]
    fn blocks_and_commands_are_parsed() {
        let text = "Run `make demo`, not `make`.\n\n```sh\none\n\ntwo\n```\n\n```\nno language\n```\n".to_owned();
        let document = Document { path: "page.md".into(), text };
        assert_eq!(document.commands("make"), ["make demo"]);
        let blocks: Vec<_> = document.blocks().into_iter().map(|block| (block.line, block.language)).collect();
        assert_eq!(blocks, [(3, "sh".to_owned()), (9, String::new())]);
        assert_eq!(document.blocks()[0].text, "one\n\ntwo\n");
    }
}
