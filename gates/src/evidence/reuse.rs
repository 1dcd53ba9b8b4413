//! When a verdict may be repeated without running the gate again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::domain::digest::canonical_sha256;

use crate::snapshot::TreeDigest;

/// The evidence whose verdict is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Reused {
    pub run_id: String,
    pub step_id: String,
    /// sha256 of that evidence.
    pub evidence: String,
}

/// Everything that a verdict depends on. Two gates with the same key get the same verdict, as far as their command is
/// deterministic.
#[derive(Debug, Clone, Serialize)]
pub struct ReuseKey<'a> {
    pub gate: &'a str,
    pub tree: &'a TreeDigest,
    /// The base decides which lines changed and whose definition counts.
    pub base: Option<&'a TreeDigest>,
    /// See [`super::Definition::digest`].
    pub definition: &'a str,
    /// See [`super::Evidence::locks`].
    pub locks: &'a BTreeMap<String, String>,
    /// See [`super::Evidence::toolchain`].
    pub toolchain: &'a BTreeMap<String, String>,
    pub sandbox_level: &'a str,
    /// The settings of the tenant's policy that change a verdict.
    pub settings: &'a Value,
    /// The digest of the program that judges.
    pub engine: &'a str,
}

impl ReuseKey<'_> {
    /// The key, in lower-case hex. `None` if something is unknown: then the gate runs again.
    pub fn digest(&self) -> Option<String> {
        #[derive(Serialize)]
        struct Versioned<'a> {
            schema: &'static str,
            #[serde(flatten)]
            key: &'a ReuseKey<'a>,
        }
        let texts = [self.gate, self.definition, self.sandbox_level, self.engine, &self.tree.sha256];
        let mut texts = texts.into_iter().chain(self.base.map(|base| base.sha256.as_str()));
        let digests = self.locks.values().chain(self.toolchain.values());
        if texts.any(str::is_empty) || digests.clone().any(String::is_empty) || self.toolchain.is_empty() {
            return None;
        }
        canonical_sha256(&Versioned { schema: "nofx.gate_reuse.v1", key: self }).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(name: &str) -> TreeDigest {
        TreeDigest { sha1: format!("1{name}"), sha256: format!("2{name}") }
    }

    #[test]
    fn every_part_changes_the_key() {
        let (a, b) = (tree("a"), tree("b"));
        let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let (locks, other_locks) = (map("package-lock.json", "d"), map("package-lock.json", "e"));
        let (tools, other_tools) = (map("node", "22.1.0"), map("node", "22.2.0"));
        let (settings, other_settings) = (json!({"fail_on": "error"}), json!({"fail_on": "warning"}));
        let key = ReuseKey {
            gate: "unit",
            tree: &a,
            base: Some(&b),
            definition: "d",
            locks: &locks,
            toolchain: &tools,
            sandbox_level: "namespaces",
            settings: &settings,
            engine: "1",
        };
        let others = [
            ReuseKey { gate: "lint", ..key.clone() },
            ReuseKey { tree: &b, ..key.clone() },
            ReuseKey { base: None, ..key.clone() },
            ReuseKey { base: Some(&a), ..key.clone() },
            ReuseKey { definition: "e", ..key.clone() },
            ReuseKey { locks: &other_locks, ..key.clone() },
            ReuseKey { toolchain: &other_tools, ..key.clone() },
            ReuseKey { sandbox_level: "limits", ..key.clone() },
            ReuseKey { settings: &other_settings, ..key.clone() },
            ReuseKey { engine: "2", ..key.clone() },
        ];
        let mut digests: Vec<_> = others.iter().map(|other| other.digest().unwrap()).collect();
        digests.push(key.digest().unwrap());
        assert_eq!(key.digest(), key.clone().digest());
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
    }

    #[test]
    fn with_something_unknown_there_is_no_key() {
        let (a, none) = (tree("a"), BTreeMap::new());
        let tools = BTreeMap::from([("node".to_owned(), "22".to_owned())]);
        let unknown = BTreeMap::from([("node".to_owned(), String::new())]);
        let key = ReuseKey {
            gate: "unit",
            tree: &a,
            base: None,
            definition: "d",
            locks: &none,
            toolchain: &tools,
            sandbox_level: "limits",
            settings: &Value::Null,
            engine: "1",
        };
        assert!(key.digest().is_some());
        for doubtful in [
            ReuseKey { toolchain: &none, ..key.clone() },
            ReuseKey { toolchain: &unknown, ..key.clone() },
            ReuseKey { definition: "", ..key.clone() },
            ReuseKey { sandbox_level: "", ..key.clone() },
            ReuseKey { engine: "", ..key.clone() },
        ] {
            assert_eq!(doubtful.digest(), None);
        }
    }
}
