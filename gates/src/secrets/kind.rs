//! What kind of file it is: where is random text usual?

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Code,
    /// `.env`, YAML, properties: values stand without quotes.
    Settings,
    /// Tests and documents are full of made-up values.
    Test,
    /// Lockfiles, minified code, pictures, certificates: only known shapes count.
    Data,
}

const LOCKFILES: &[&str] = &[
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "deno.lock",
    "cargo.lock",
    "poetry.lock",
    "uv.lock",
    "pdm.lock",
    "pipfile.lock",
    "go.sum",
    "go.work.sum",
    "composer.lock",
    "gemfile.lock",
    "flake.lock",
    "mix.lock",
    "pubspec.lock",
    "podfile.lock",
    "packages.lock.json",
    "gradle.lockfile",
    "package.resolved",
    ".terraform.lock.hcl",
    "verification-metadata.xml",
    "sha256sums",
    "checksums.txt",
];

const DATA_ENDS: &[&str] = &[
    ".min.js", ".min.css", ".map", ".svg", ".snap", ".ipynb", ".crt", ".cer", ".pub", ".asc", ".sig", ".csv", ".tsv",
    ".css", ".scss", ".less", ".woff", ".po", ".pot", ".patch", ".diff", ".sum", ".wasm", ".pdf", ".png", ".jpg",
    ".lock", ".geojson",
];

const SETTINGS_ENDS: &[&str] = &[
    ".yaml",
    ".yml",
    ".properties",
    ".ini",
    ".cfg",
    ".conf",
    ".tfvars",
    ".envrc",
    ".npmrc",
    ".env",
    ".pypirc",
    ".netrc",
    ".sh",
    ".bash",
    ".toml",
    "dockerfile",
];

const TEST_PARTS: &[&str] = &[
    "test",
    "tests",
    "__tests__",
    "spec",
    "specs",
    "fixtures",
    "__fixtures__",
    "__mocks__",
    "mocks",
    "testdata",
    "e2e",
    "cypress",
    "examples",
    "docs",
];

impl FileKind {
    pub fn of(path: &str, bytes: &[u8]) -> Self {
        let path = path.to_lowercase();
        let name = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ends = |list: &[&str]| list.iter().any(|end| name.ends_with(end));
        let is_binary = bytes.iter().take(8_192).any(|byte| *byte == 0);
        if is_binary || LOCKFILES.contains(&name.as_str()) || ends(DATA_ENDS) {
            return Self::Data;
        }
        // A real .env in a folder of tests is still one, but one that says that it is an example is not.
        let is_test = path.split('/').any(|part| TEST_PARTS.contains(&part))
            || [".test.", ".spec.", "_test.", "_tests.", ".stories.", ".example", ".sample", ".template", ".dist"]
                .iter()
                .any(|part| name.contains(part))
            || name.starts_with("test_")
            || ends(&[".md", ".mdx", ".rst", ".adoc", ".txt"]);
        if is_test {
            Self::Test
        } else if ends(SETTINGS_ENDS) || name.starts_with(".env") {
            Self::Settings
        } else {
            Self::Code
        }
    }

    /// People write its lines, so that a random string in it is unusual.
    pub fn has_prose(self) -> bool {
        self != Self::Data
    }
}

/// UTF-16 with a byte order mark, as Windows writes it.
pub fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let little = bytes.strip_prefix(b"\xff\xfe");
    let big = bytes.strip_prefix(b"\xfe\xff");
    let pairs = little.or(big)?.as_chunks::<2>().0.iter();
    let unit = if little.is_some() { u16::from_le_bytes } else { u16::from_be_bytes };
    let units: Vec<u16> = pairs.map(|pair| unit(*pair)).collect();
    Some(String::from_utf16_lossy(&units).into_bytes())
}
