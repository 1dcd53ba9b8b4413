//! in-toto statements: a predicate about subjects, which are named by their digests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use shared::signing::dsse::padded;

use super::{AttestationError, json};
use crate::snapshot::TreeDigest;

/// The type of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// in-toto's name for the id of a Git tree, in either object format.
const GIT_TREE: &str = "gitTree";

/// A statement. The field names are those of in-toto.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// What the statement is about. Names are only for people: subjects are matched by their digests.
    #[serde(deserialize_with = "json::objects")]
    pub subject: Vec<Descriptor>,
    pub predicate_type: String,
    pub predicate: Value,
}

/// A thing and its digests: in-toto's ResourceDescriptor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Descriptor {
    /// A file.
    pub fn file(name: &str, sha256: &str) -> Self {
        Self::with_digest(name, "sha256", sha256)
    }

    /// A Git tree has one id for each object format, and a set of digests has one for each algorithm. So a tree is two
    /// descriptors.
    pub fn tree(name: &str, tree: &TreeDigest) -> [Self; 2] {
        [
            Self::with_digest(name, GIT_TREE, &tree.sha1),
            Self::with_digest(&format!("{name} (sha256)"), GIT_TREE, &tree.sha256),
        ]
    }

    /// A Git commit.
    pub fn commit(name: &str, id: &str) -> Self {
        Self::with_digest(name, "gitCommit", id)
    }

    fn with_digest(name: &str, algorithm: &str, digest: &str) -> Self {
        let digest = BTreeMap::from([(algorithm.to_owned(), digest.to_owned())]);
        Self { name: name.to_owned(), digest, ..Self::default() }
    }
}

impl Statement {
    /// The bytes to sign: JSON, and blanks up to a multiple of three bytes. So its base64 has no padding, and no bits that
    /// lenient decoders ignore.
    pub fn payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self).map(padded)
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, AttestationError> {
        let statement: Self = json::read(bytes).map_err(AttestationError::Statement)?;
        if statement.statement_type != STATEMENT_TYPE {
            let found = &statement.statement_type;
            return Err(AttestationError::Statement(format!("its type is {found:?}, not {STATEMENT_TYPE}")));
        }
        if statement.subject.is_empty() || statement.subject.iter().any(|subject| subject.digest.is_empty()) {
            return Err(AttestationError::Statement("it must have subjects, and each must have a digest".to_owned()));
        }
        Ok(statement)
    }

    /// Whether the statement is about this tree. Only the sha256 counts: other trees with the same sha1 can be made.
    pub fn names_tree(&self, tree: &TreeDigest) -> bool {
        self.names(GIT_TREE, &tree.sha256)
    }

    /// Whether the statement is about the file with this sha256.
    pub fn names_archive(&self, sha256: &str) -> bool {
        self.names("sha256", sha256)
    }

    fn names(&self, algorithm: &str, digest: &str) -> bool {
        let named = self.subject.iter().filter_map(|subject| subject.digest.get(algorithm));
        !digest.is_empty() && named.into_iter().any(|found| found == digest)
    }
}
