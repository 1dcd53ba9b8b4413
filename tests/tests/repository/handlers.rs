//! A handler is one row of `HANDLERS` in `shared/src/domain/tool.rs`. These tests, and those of the template, name everything
//! else that a new row needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shared::domain::tool::{self, HANDLERS};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_handler_has_a_crate_and_every_crate_with_a_queue_is_a_handler() {
    let mut crates = BTreeSet::new();
    for entry in fs::read_dir(root().join("functions")).expect("the functions") {
        let folder = entry.expect("a readable folder").path();
        let main = read(&folder.join("src/main.rs"));
        if main.contains("worker::run") {
            // The crate's name selects its row, so no crate can serve another handler's queue.
            assert!(main.contains("worker::run(env!(\"CARGO_PKG_NAME\")"), "{} names a handler", folder.display());
            crates.insert(folder.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    let handlers: BTreeSet<String> = HANDLERS.iter().map(|handler| handler.name.to_owned()).collect();
    let without_crate: Vec<_> = handlers.difference(&crates).collect();
    assert!(without_crate.is_empty(), "no crate functions/<name> whose main.rs calls worker::run: {without_crate:?}");
    let without_row: Vec<_> = crates.difference(&handlers).collect();
    assert!(without_row.is_empty(), "no row of HANDLERS for the crates {without_row:?}");
}

#[test]
fn the_documents_describe_every_handler_and_every_tool() {
    let architecture = read(&root().join("ARCHITECTURE.md"));
    for handler in HANDLERS {
        let row = format!("`functions/{}`", handler.name);
        assert!(architecture.contains(&row), "the codemap of ARCHITECTURE.md has no {row}");
    }
    let mut documents = read(&root().join("README.md"));
    for entry in fs::read_dir(root().join("docs")).expect("the docs") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push_str(&read(&path));
        }
    }
    for name in tool::names() {
        let fixed = name.split('<').next().unwrap_or_default();
        assert!(documents.contains(fixed), "neither README.md nor docs/*.md says what {name} does");
    }
}
