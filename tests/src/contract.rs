//! The API's document, `openapi.json`, built from the routes of the functions, their descriptions and the types of their
//! responses. Also checks responses against it.

mod answer;
mod document;
mod page;
mod pretty;

use std::fs;
use std::path::{Path, PathBuf};

use shared::domain::digest::sha256_hex;

pub use answer::{dead_ends, examples, problems};
pub use document::{PAGES, operations};

/// A file of the repository.
fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

/// The generated files, each with its text.
pub fn files() -> Vec<(PathBuf, String)> {
    let document = document::document();
    let errors = fs::read_to_string(path("docs/errors.md")).expect("the page of errors");
    // Part of every ETag: see shared/src/http/etag.rs.
    let schemas = sha256_hex(document["components"]["schemas"].to_string().as_bytes());
    vec![
        (path("functions/api/assets/docs.html"), page::reference(&document)),
        (path("functions/api/assets/schemas.html"), page::schemas(&document)),
        (path("functions/api/assets/errors.html"), page::errors(&errors)),
        (path("openapi.json"), format!("{document:#}\n")),
        (path("shared/src/view/digest.txt"), format!("{schemas}\n")),
    ]
}
