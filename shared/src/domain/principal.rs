//! Who sends a request, and what a route requires: kinds, roles, permissions, and the caller.
//!
//! A [`Caller`] is what the request itself proves. It says nothing about rights: only the database knows whether a token is
//! revoked, whether a person is a member, and which role they have. `nofx.caller_admit` checks that, in the statement that the
//! request sends anyway. `migrations/functions/permissions.sql` says which role and kind a permission needs.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::digest::hex;
use super::{TenantId, Timestamp, TokenId};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        pub enum $name {
            $(
                $(#[$variant_doc])*
                #[cfg_attr(feature = "openapi", schemars(rename = $word))]
                $variant
            ),+
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in documents, in tokens and in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Self::parse(&word).ok_or_else(|| serde::de::Error::custom(format!("unknown word {word:?}")))
            }
        }
    };
}

words!(
    /// The kinds of principals. An agent never decides gates, and never changes policy, rules, members or tokens, whatever
    /// its role is.
    Kind {
        Person = "person",
        Agent = "agent",
        Service = "service",
    }
);

words!(
    /// The roles in a tenant. Each includes the ones before it.
    Role {
        Viewer = "viewer",
        Operator = "operator",
        Approver = "approver",
        Admin = "admin",
    }
);

words!(
    /// What a route requires of its caller. `docs/security.md` lists the least role and the kinds of each.
    Permission {
        /// Nothing: anybody may send the request.
        Public = "public",
        AccountRead = "account.read",
        SessionsCreate = "sessions.create",
        RunsRead = "runs.read",
        ArtifactsRead = "artifacts.read",
        ArtifactsRestore = "artifacts.restore",
        ArtifactsDelete = "artifacts.delete",
        PlansCheck = "plans.check",
        RunsCreate = "runs.create",
        RunsControl = "runs.control",
        WorkspacesCreate = "workspaces.create",
        GatesCreate = "gates.create",
        GatesDecide = "gates.decide",
        GatesWaive = "gates.waive",
        GatesLink = "gates.link",
        PolicyRead = "policy.read",
        RulesRead = "rules.read",
        UsageRead = "usage.read",
        PolicyWrite = "policy.write",
        RulesWrite = "rules.write",
        MembersRead = "members.read",
        TokensRead = "tokens.read",
        AuditRead = "audit.read",
        MembersWrite = "members.write",
        TokensWrite = "tokens.write",
        QueuesRead = "queues.read",
        QueuesRedrive = "queues.redrive",
    }
);

/// What the database stores of a token's secret: its sha256. The secret is a random key, so it needs no slow hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// In lower-case hex.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// How a caller proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A token of the issuer for a person.
    Jwt(Login),
    /// An API token, or a session: its kind is then `person`.
    Token { id: TokenId, kind: Kind, hash: TokenHash },
    /// No proof: the local mode, which has one person.
    Local,
}

/// What the issuer says about a person's login.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    pub email: Option<String>,
    /// The authenticator assurance level, such as `aal2`.
    pub aal: Option<String>,
    /// When the person last authenticated. None if the token does not say it. Then it does not count as recent.
    pub at: Option<Timestamp>,
}

/// Who sends a request, as far as the request itself proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What the credential claims. The database confirms it.
    pub tenant: TenantId,
    /// The `sub` of a JWT, the id of a token, or `local`.
    pub subject: String,
    pub via: Via,
    pub ip: Option<IpAddr>,
    pub request_id: String,
}

impl Caller {
    /// The subject of the local mode.
    pub const LOCAL: &'static str = "local";

    /// The one person of a local tenant.
    pub fn local(tenant: TenantId) -> Self {
        let subject = Self::LOCAL.to_owned();
        Self { tenant, subject, via: Via::Local, ip: None, request_id: String::new() }
    }
}

/// Who sends a request, as the database confirmed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub tenant: TenantId,
    /// The member's `sub`, `agent:NAME` or `service:NAME`.
    pub subject: String,
    /// For people to read.
    pub name: String,
    pub kind: Kind,
    pub role: Role,
    pub token_id: Option<TokenId>,
    /// The member who owns a token; for a person, that person.
    pub owner: String,
    /// Whether the tenant is that of one person on a laptop.
    pub solo: bool,
}

/// The form that `nofx.caller_admit` reads. It refuses a caller with a missing key.
#[derive(Serialize)]
struct Wire<'a> {
    tenant: &'a TenantId,
    via: &'static str,
    subject: &'a str,
    token_id: Option<TokenId>,
    kind: Kind,
    secret_sha256: Option<String>,
    email: Option<&'a str>,
    aal: Option<&'a str>,
    login_at: Option<&'a Timestamp>,
    ip: Option<IpAddr>,
    request_id: &'a str,
}

impl Serialize for Caller {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut wire = Wire {
            tenant: &self.tenant,
            via: "local",
            subject: &self.subject,
            token_id: None,
            kind: Kind::Person,
            secret_sha256: None,
            email: None,
            aal: None,
            login_at: None,
            ip: self.ip,
            request_id: &self.request_id,
        };
        match &self.via {
            Via::Local => {}
            Via::Jwt(login) => {
                wire.via = "jwt";
                (wire.email, wire.aal) = (login.email.as_deref(), login.aal.as_deref());
                wire.login_at = login.at.as_ref();
            }
            Via::Token { id, kind, hash } => {
                wire.via = "token";
                (wire.token_id, wire.kind, wire.secret_sha256) = (Some(*id), *kind, Some(hash.to_hex()));
            }
        }
        wire.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn caller(via: Via) -> Caller {
        let ip = Some("203.0.113.7".parse().unwrap());
        Caller { tenant: TenantId("acme".into()), subject: "ann".into(), via, ip, request_id: "r-1".into() }
    }

    #[test]
    fn every_word_is_read_back_and_roles_are_in_order() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(*permission));
        }
        assert_eq!(Permission::ALL.len(), 27);
        assert_eq!((Kind::parse("agent"), Kind::parse("Agent"), Kind::parse("")), (Some(Kind::Agent), None, None));
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Approver && Role::Approver < Role::Admin);
    }

    #[test]
    fn the_database_gets_every_key_of_every_caller() {
        let login = Login { email: None, aal: Some("aal2".into()), at: Some(Timestamp("2026-11-29T10:00:00Z".into())) };
        assert_eq!(
            serde_json::to_value(caller(Via::Jwt(login))).unwrap(),
            json!({
                "tenant": "acme", "via": "jwt", "subject": "ann", "token_id": null, "kind": "person", "secret_sha256": null,
                "email": null, "aal": "aal2", "login_at": "2026-11-29T10:00:00Z", "ip": "203.0.113.7", "request_id": "r-1",
            })
        );
        let token = Via::Token { id: TokenId(Uuid::nil()), kind: Kind::Agent, hash: TokenHash::of(b"abc") };
        let value = serde_json::to_value(caller(token)).unwrap();
        assert_eq!(
            (&value["via"], &value["kind"], &value["secret_sha256"]),
            (
                &json!("token"),
                &json!("agent"),
                &json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
            )
        );
        assert_eq!(serde_json::to_value(caller(Via::Local)).unwrap()["via"], "local");
    }

    #[test]
    fn a_caller_in_a_log_shows_no_hash() {
        let token = Via::Token { id: TokenId(Uuid::nil()), kind: Kind::Agent, hash: TokenHash::of(b"abc") };
        assert!(!format!("{:?}", caller(token)).contains("ba78"));
    }
}
