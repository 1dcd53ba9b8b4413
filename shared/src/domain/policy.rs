//! The policy of a tenant: what its gates and its approvals demand, whatever a plan says, which models it may call, and how long
//! artifacts are kept. It is read strictly, because a misread policy may allow more than its author meant.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::approval::{self, ApprovalPolicy};
use super::artifact_policy::{self, ArtifactPolicy};
use super::fields::{self, Fields, Names, Null};
use super::model_policy::{self, ModelPolicy};
use super::problem::Problem;

/// A version of a tenant's policy, with a default for every field that its document leaves out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// From 1. 0 if the tenant has no policy.
    pub version: u32,
    pub gates: GatePolicy,
    pub approvals: ApprovalPolicy,
    pub models: ModelPolicy,
    pub artifacts: ArtifactPolicy,
}

/// What a policy demands of gates.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GatePolicy {
    /// What happens when a change weakens its own gates.
    pub on_weakening: OnWeakening,
    /// Whether a gate without a base fails.
    pub require_base: bool,
    /// Which bases may define gates.
    pub trusted_base: TrustedBase,
    /// Whether a gate may use the network while it tests.
    pub network: Network,
    /// The weakest isolation that a gate accepts.
    pub minimum_sandbox: Sandbox,
    /// Whether evidence of the same inputs is used again.
    pub reuse_evidence: bool,
    /// Repositories that `workspace:git` may fetch, as the beginnings of their URLs. With `trusted_base: "git"` a base counts
    /// only if its repository is named with its whole URL.
    pub repositories: Vec<String>,
    /// The lowest coverage that a gate may demand, from 0 to 1.
    pub minimum_threshold: Option<f64>,
    /// The longest time that a gate may take, in seconds.
    pub max_timeout_s: Option<u32>,
}

/// What happens when a change weakens its own gates: deletes tests, changes protected files, ignores findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnWeakening {
    /// The step waits for a person.
    #[default]
    Ask,
    Fail,
}

/// Which bases may define gates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrustedBase {
    #[default]
    Any,
    /// Those that `workspace:git` fetched from the default branch of a repository of the policy, and the base that the
    /// deployment configures.
    Git,
    /// Those with these digests: the sha256 of an archive, or the id of a tree (sha1 or sha256), in lower-case hex.
    #[serde(untagged)]
    Listed(Vec<String>),
}

/// Whether a gate may use the network while it tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Network {
    #[default]
    Never,
    /// If its definition asks for it.
    WhenAsked,
}

/// Isolation of tested code, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Limits on resources, and a user of its own.
    #[default]
    Limits,
    /// Landlock and a filter of system calls too.
    Landlock,
    /// Namespaces of its own too.
    Namespaces,
}

/// Fields of a policy.
pub const FIELDS: &[Names] = &[&["gates"], &["approvals"], &["models"], &["artifacts"]];
/// Fields of `gates`.
pub const GATE_FIELDS: &[Names] = &[
    &["on_weakening"],
    &["require_base"],
    &["trusted_base"],
    &["network"],
    &["minimum_sandbox"],
    &["reuse_evidence"],
    &["repositories"],
    &["minimum_threshold"],
    &["max_timeout_s"],
];
/// Maximum number of trusted bases.
pub const MAX_BASES: usize = 1_000;
/// Maximum number of repositories.
pub const MAX_REPOSITORIES: usize = 100;
/// Maximum length of the beginning of a repository's URL.
pub const MAX_URL_BYTES: usize = 300;
/// Limits of `max_timeout_s`: up to a day.
pub const TIMEOUT_S: RangeInclusive<u64> = 1..=86_400;
/// The beginning of a repository's URL: `https`, a host, and names that need no escapes. So there is one way to write
/// each, and no way out of a prefix.
pub const URL_PATTERN: &str =
    "^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[.]?[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?$";
/// A digest of a base.
pub const BASE_PATTERN: &str = "^([0-9a-f]{40}|[0-9a-f]{64})$";

impl Policy {
    /// Reads a document and reports every problem. Paths start with `name`. Every field is optional, and null counts as
    /// absent.
    pub fn parse(document: &Value, name: &str) -> Result<Self, Vec<Problem>> {
        fields::read(document, name, FIELDS, Null::Absent, |fields| {
            let gates = fields.object("gates", GATE_FIELDS, gates).unwrap_or_default();
            let approvals = fields.object("approvals", approval::POLICY_FIELDS, approval::policy).unwrap_or_default();
            let models = fields.object("models", model_policy::FIELDS, model_policy::models).unwrap_or_default();
            let artifacts = fields.object("artifacts", artifact_policy::FIELDS, artifact_policy::artifacts);
            Some(Self { version: 0, gates, approvals, models, artifacts: artifacts.unwrap_or_default() })
        })
    }
}

impl GatePolicy {
    /// Whether `workspace:git` may fetch the URL: it is one of the repositories, or lies below one.
    pub fn allows_repository(&self, url: &str) -> bool {
        is_repository(url)
            && self.repositories.iter().any(|prefix| {
                let below = url.strip_prefix(prefix.trim_end_matches('/'));
                // Of `https://host/acme`, `https://host/acme/x` is below and `https://host/acme-evil` is not.
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".git")
            })
    }

    /// Whether the policy names this repository itself, with its whole URL. Only then it vouches for its commits: below a
    /// prefix others may have repositories too.
    pub fn names_repository(&self, url: &str) -> bool {
        let name = |url: &str| {
            let url = url.trim_end_matches('/');
            url.strip_suffix(".git").unwrap_or(url).to_owned()
        };
        is_repository(url) && self.repositories.iter().any(|named| name(named) == name(url))
    }
}

fn gates(fields: &mut Fields<'_, '_>) -> GatePolicy {
    GatePolicy {
        on_weakening: word(fields, "on_weakening", "ask or fail"),
        require_base: flag(fields, "require_base"),
        trusted_base: trusted_base(fields),
        network: word(fields, "network", "never or when_asked"),
        minimum_sandbox: word(fields, "minimum_sandbox", "limits, landlock or namespaces"),
        reuse_evidence: flag(fields, "reuse_evidence"),
        repositories: fields.list("repositories", MAX_REPOSITORIES, |value| {
            let url = value.as_str().filter(|text| is_repository(text)).map(str::to_owned);
            url.ok_or_else(|| {
                let most = MAX_URL_BYTES;
                format!("must be the beginning of a URL like https://github.com/acme, of at most {most} bytes")
            })
        }),
        minimum_threshold: fields.read("minimum_threshold", |value| {
            let ratio = value.as_f64().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
        }),
        max_timeout_s: fields.whole("max_timeout_s", TIMEOUT_S),
    }
}

fn word<T: for<'de> Deserialize<'de> + Default>(fields: &mut Fields<'_, '_>, name: &str, known: &str) -> T {
    // Serde also reads `{"ask": null}` as `ask`.
    let read = |value: &Value| value.is_string().then(|| T::deserialize(value).ok()).flatten();
    fields.read(name, |value| read(value).ok_or_else(|| format!("must be {known}"))).unwrap_or_default()
}

fn flag(fields: &mut Fields<'_, '_>, name: &str) -> bool {
    fields.read(name, |value| value.as_bool().ok_or_else(|| "must be true or false".to_owned())).unwrap_or_default()
}

fn trusted_base(fields: &mut Fields<'_, '_>) -> TrustedBase {
    if fields.value("trusted_base").is_some_and(Value::is_array) {
        let bases = fields.list("trusted_base", MAX_BASES, |value| {
            let digest = value.as_str().filter(|text| is_digest(text)).map(str::to_owned);
            digest.ok_or_else(|| "must be a sha256 or the id of a tree (64 or 40 lower-case hex digits)".to_owned())
        });
        return TrustedBase::Listed(bases);
    }
    let read = fields.read("trusted_base", |value| match value.as_str() {
        Some("any") => Ok(TrustedBase::Any),
        Some("git") => Ok(TrustedBase::Git),
        _ => Err("must be any, git, or a list of digests".to_owned()),
    });
    read.unwrap_or_default()
}

fn is_digest(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
}

/// Whether the text matches [`URL_PATTERN`].
fn is_repository(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").filter(|_| text.len() <= MAX_URL_BYTES) else { return false };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|byte| is_host(*byte));
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'-');
    let path = path.strip_suffix('/').unwrap_or(path);
    ends_well(host.as_bytes().first())
        && ends_well(host.as_bytes().last())
        && host.bytes().all(|byte| is_host(byte) || matches!(byte, b'.' | b'-'))
        && port.is_none_or(|port| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()))
        && (path.is_empty()
            || path.split('/').all(|name| {
                let name = name.strip_prefix('.').unwrap_or(name);
                name.bytes().next().is_some_and(is_named) && name.bytes().all(|byte| is_named(byte) || byte == b'.')
            }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(gates: &Value) -> Vec<String> {
        let found = Policy::parse(&json!({ "gates": gates }), "document").err().unwrap_or_default();
        found.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn an_empty_document_and_one_of_nulls_mean_the_defaults() {
        for document in [
            json!({}),
            json!({"gates": null}),
            json!({"gates": {}}),
            json!({"gates": {"minimum_threshold": null, "network": null, "trusted_base": null}}),
        ] {
            assert_eq!(Policy::parse(&document, ""), Ok(Policy::default()), "{document}");
        }
        let GatePolicy { on_weakening, trusted_base, network, minimum_sandbox, .. } = GatePolicy::default();
        assert_eq!(
            (on_weakening, trusted_base, network, minimum_sandbox),
            (OnWeakening::Ask, TrustedBase::Any, Network::Never, Sandbox::Limits)
        );
    }

    #[test]
    fn a_written_policy_reads_back_the_same() {
        for trusted_base in [json!("any"), json!("git"), json!([]), json!(["a".repeat(40), "0".repeat(64)])] {
            let document = json!({"gates": {
                "on_weakening": "fail", "require_base": true, "trusted_base": trusted_base, "network": "when_asked",
                "minimum_sandbox": "namespaces", "reuse_evidence": true, "repositories": ["https://github.com/acme/"],
                "minimum_threshold": 0.75, "max_timeout_s": 60,
            }});
            let policy = Policy::parse(&document, "").unwrap();
            assert_eq!(serde_json::to_value(&policy.gates).unwrap(), document["gates"]);
            assert_ne!(policy, Policy::default());
        }
    }

    #[test]
    fn every_wrong_field_is_reported_with_its_path() {
        let wrong = [
            (json!({"on_weakening": "warn"}), "on_weakening"),
            (json!({"on_weakening": {"ask": null}}), "on_weakening"),
            (json!({"require_base": "yes"}), "require_base"),
            (json!({"trusted_base": "git2"}), "trusted_base"),
            (json!({"trusted_base": {"git": true}}), "trusted_base"),
            (json!({"trusted_base": ["A".repeat(40)]}), "trusted_base[0]"),
            (json!({"trusted_base": ["a".repeat(40), "a".repeat(41)]}), "trusted_base[1]"),
            (json!({"network": "always"}), "network"),
            (json!({"minimum_sandbox": 1}), "minimum_sandbox"),
            (json!({"reuse_evidence": 1}), "reuse_evidence"),
            (json!({"repositories": "https://github.com"}), "repositories"),
            (json!({"minimum_threshold": 1.01}), "minimum_threshold"),
            (json!({"minimum_threshold": -0.1}), "minimum_threshold"),
            (json!({"minimum_threshold": "0.9"}), "minimum_threshold"),
            (json!({"max_timeout_s": 0}), "max_timeout_s"),
            (json!({"max_timeout_s": 1.5}), "max_timeout_s"),
            (json!({"minimum_treshold": 1}), "minimum_treshold"),
        ];
        for (gates, path) in wrong {
            assert_eq!(problems(&gates), [format!("document.gates.{path}")], "{gates}");
        }
        assert_eq!(problems(&json!([])), ["document.gates"]);
        assert!(Policy::parse(&json!({"gate": {}}), "").is_err());
        let many = json!({"network": "x", "require_base": 1, "repositories": ["http://x", "https://y"]});
        assert_eq!(
            problems(&many),
            ["require_base", "network", "repositories[0]"].map(|path| format!("document.gates.{path}"))
        );
    }

    #[test]
    fn a_repository_is_allowed_by_whole_names_of_its_url() {
        let policy = |prefixes: &[&str]| GatePolicy {
            repositories: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            ..GatePolicy::default()
        };
        let acme = policy(&["https://github.com/acme", "https://git.test:8443/one/repository"]);
        for good in [
            "https://github.com/acme",
            "https://github.com/acme/site",
            "https://github.com/acme/site.git",
            "https://github.com/acme/deep/er/",
            "https://github.com/acme/.github",
            "https://git.test:8443/one/repository",
            "https://git.test:8443/one/repository.git",
        ] {
            assert!(acme.allows_repository(good), "{good}");
        }
        for bad in [
            "https://github.com/acme-evil/site",
            "https://github.com/acme.evil",
            "https://github.com/acme/../evil",
            "https://github.com/acme/..",
            "https://github.com/acme/.",
            "https://github.com/acme/...",
            "https://github.com/acme/%2e%2e/evil",
            "https://github.com/acme//site",
            "https://github.com/acme/site?x=1",
            "https://github.com/acme\\..\\evil",
            "https://user@github.com/acme/site",
            "https://github.com:443/acme/site",
            "https://GitHub.com/acme/site",
            "https://github.com/Acme/site",
            "http://github.com/acme/site",
            "https://github.com.evil.test/acme/site",
            "https://github.com",
            "https://git.test/one/repository",
            "ext::sh -c id",
            "",
        ] {
            assert!(!acme.allows_repository(bad), "{bad}");
        }
        assert!(policy(&["https://github.com"]).allows_repository("https://github.com/acme/site"));
        assert!(policy(&["https://github.com/"]).allows_repository("https://github.com/acme/site"));
        assert!(!policy(&["https://github.com"]).allows_repository("https://github.com.evil.test/acme"));
        assert!(!policy(&[]).allows_repository("https://github.com/acme/site"), "none by default");
    }

    #[test]
    fn sandboxes_are_ordered_by_strength() {
        assert!(Sandbox::Limits < Sandbox::Landlock && Sandbox::Landlock < Sandbox::Namespaces);
    }
}
