//! Describes the routes of callers, sessions, tokens and members.

use axum::http::Method;
use serde_json::{Value, json};
use shared::domain::access::{
    DEFAULT_SESSION_S, DEFAULT_TOKEN_S, MAX_EMAIL_BYTES, MAX_NAME_CHARS, MAX_SUBJECT_BYTES, MEMBER_FIELDS,
    REMOVAL_FIELDS, SESSION_FIELDS, SESSION_S, TOKEN_FIELDS, TOKEN_NAME, TOKEN_S,
};
use shared::domain::{Permission, Role};
use shared::error::Code;
use shared::http::contract::{Operation, Schemas, line, object, readable_line};
use shared::view::{
    AuthSettings, Limits, Member, MemberPage, MemberRemoved, TokenCreated, TokenEnded, TokenPage, Whoami,
};

use super::get;

const ACCOUNT: &str = "Account";
const TOKENS: &str = "Tokens";
const MEMBERS: &str = "Members";

pub(super) fn access(schemas: &mut Schemas) -> Vec<Operation> {
    [account(schemas), tokens(schemas), members(schemas)].concat()
}

fn account(schemas: &mut Schemas) -> Vec<Operation> {
    let session = object(SESSION_FIELDS, &[], |field| match field {
        "name" => name("Name of the session in lists."),
        "expires_in_s" => seconds(SESSION_S, DEFAULT_SESSION_S),
        other => unreachable!("the field {other} has no schema"),
    });
    vec![
        get("/whoami", "whoami", ACCOUNT, "Read who the caller is, and what it may do.")
            .answers(200, "The caller.", schemas.of::<Whoami>())
            .example("access", "GET /whoami"),
        get("/limits", "fetchLimits", ACCOUNT, "Read the limits of the tenant, and how much of each it has used.")
            .answers(200, "The limits.", schemas.of::<Limits>()),
        get("/auth/config", "authConfig", ACCOUNT, "Read how people log in.")
            .answers(200, "The mode, and where people log in.", schemas.of::<AuthSettings>())
            .example("access", "GET /auth/config"),
        Operation::new(
            Method::POST,
            "/sessions",
            "createSession",
            ACCOUNT,
            "Start a session, with the JSON web token of a login.",
        )
        .may_take(session, json!({"name": "nofx on laptop", "expires_in_s": 2_592_000}))
        .answers(201, "The session. Its token cannot be read again.", schemas.of::<TokenCreated>()),
        Operation::new(Method::DELETE, "/sessions/current", "endSession", ACCOUNT, "End the session of the request.")
            .may_take(nothing(), json!({}))
            .answers(200, "Whether it ended.", schemas.of::<TokenEnded>()),
    ]
}

fn tokens(schemas: &mut Schemas) -> Vec<Operation> {
    let token = object(TOKEN_FIELDS, &["kind", "name", "role"], |field| match field {
        "kind" => json!({"description": "Who sends it.", "enum": ["agent", "service"]}),
        "name" => {
            json!({"description": "Its name in records, after its kind.", "type": "string", "pattern": TOKEN_NAME})
        }
        "role" => role(),
        "owner" => json!({
            "description": "Subject or e-mail address of the member who owns it: whoever uses it. By default the caller.",
            "type": ["string", "null"], "maxLength": MAX_EMAIL_BYTES,
        }),
        "scopes" => json!({
            "description": "The permissions that limit it. By default all of its role and kind.",
            "type": ["array", "null"], "minItems": 1, "maxItems": Permission::ALL.len(), "items": {"enum": permissions()},
        }),
        "expires_in_s" => seconds(TOKEN_S, DEFAULT_TOKEN_S),
        other => unreachable!("the field {other} has no schema"),
    });
    let sessions = json!({
        "description": "Whether to list the sessions of people instead of the tokens of agents and services.",
        "type": "boolean", "default": false,
    });
    vec![
        get("/tokens", "listTokens", TOKENS, "List API tokens, newest first.")
            .parameter("sessions", sessions)
            .answers(200, "A page.", schemas.of::<TokenPage>())
            .with("Link")
            .example("access", "GET /tokens"),
        Operation::new(Method::POST, "/tokens", "createToken", TOKENS, "Create an API token of an agent or a service.")
            .takes(token, json!({"kind": "agent", "name": "planner", "role": "operator"}))
            .answers(201, "The token. It cannot be read again.", schemas.of::<TokenCreated>()),
        Operation::new(Method::DELETE, "/tokens/{id}", "revokeToken", TOKENS, "Revoke an API token, or end a session.")
            .may_take(nothing(), json!({}))
            .answers(200, "Whether it was valid until now.", schemas.of::<TokenEnded>()),
    ]
}

fn members(schemas: &mut Schemas) -> Vec<Operation> {
    let member = object(MEMBER_FIELDS, &["role"], |field| match field {
        "role" => role(),
        "name" => name("What people read. The e-mail address by default, else the subject."),
        "email" => json!({"type": ["string", "null"], "maxLength": MAX_EMAIL_BYTES, "pattern": r"^[^@\s]+@[^\s]+$"}),
        other => unreachable!("the field {other} has no schema"),
    });
    let removal = object(REMOVAL_FIELDS, &[], |_| {
        let mut heir = subject();
        heir["type"] = json!(["string", "null"]);
        heir["description"] = json!("The member who owns the tokens from now on. By default they are revoked.");
        heir
    });
    let after =
        json!({"description": "Cursor: `next` of the page before, which is the last subject seen.", "type": "string"});
    vec![
        get("/members", "listMembers", MEMBERS, "List the people of the tenant, ordered by subject.")
            .parameter("after", after)
            .answers(200, "A page.", schemas.of::<MemberPage>())
            .with("Link")
            .example("access", "GET /members"),
        Operation::new(
            Method::PUT,
            "/members/{subject}",
            "setMember",
            MEMBERS,
            "Make somebody a member, or change a member.",
        )
        .parameter("subject", subject())
        .takes(member, json!({"role": "approver", "name": "Ann", "email": "ann@example.com"}))
        .answers(201, "The member is new.", schemas.of::<Member>())
        .answers(200, "The member was changed.", schemas.of::<Member>())
        .refuses(&[Code::LastAdmin]),
        Operation::new(
            Method::DELETE,
            "/members/{subject}",
            "removeMember",
            MEMBERS,
            "Remove a member, end their sessions, and revoke their tokens.",
        )
        .parameter("subject", subject())
        .may_take(removal, json!({}))
        .answers(200, "What ended.", schemas.of::<MemberRemoved>())
        .refuses(&[Code::LastAdmin]),
    ]
}

/// A body without fields.
fn nothing() -> Value {
    object(&[], &[], |field| unreachable!("the field {field} has no schema"))
}

fn role() -> Value {
    json!({"enum": Role::ALL})
}

fn permissions() -> Vec<&'static str> {
    let named = Permission::ALL.iter().filter(|permission| **permission != Permission::Public);
    named.map(|permission| permission.as_str()).collect()
}

fn name(about: &str) -> Value {
    json!({"description": about, "type": ["string", "null"], "minLength": 1, "maxLength": MAX_NAME_CHARS, "pattern": readable_line()})
}

fn subject() -> Value {
    json!({"description": "`sub` of the person's login.", "type": "string", "minLength": 1, "maxLength": MAX_SUBJECT_BYTES, "pattern": line()})
}

fn seconds(range: std::ops::RangeInclusive<u64>, default: u32) -> Value {
    json!({
        "description": "How long it lasts, in seconds.", "type": ["integer", "null"],
        "minimum": range.start(), "maximum": range.end(), "default": default,
    })
}
