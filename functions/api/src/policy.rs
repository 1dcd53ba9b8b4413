//! The tenant's policy: read, replace, list its versions. `docs/policy.md` explains it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use shared::context::Ctx;
use shared::db::Session;
use shared::db::policy::{self, NewPolicy, PolicySet};
use shared::domain;
use shared::domain::fields::Names;
use shared::error::{Code, Error, Problem};
use shared::flow::change_storage::check_policy;
use shared::http::{self, ACTOR, Body, Condition, Precondition, Query, REASON, page_of};
use shared::signing::PublicKey;
use shared::view::{EffectivePolicy, Policy, PolicyPage, PolicyVersion};

/// Fields of the body of `PUT /policy`.
pub(crate) const FIELDS: &[Names] = &[&["document"], ACTOR, REASON];

/// `GET /policy` -> `{version, document, effective, changed_by, reason, created_at}`. Version 0 is the policy of a tenant
/// that has set none.
pub async fn fetch(session: Session, condition: Condition) -> Result<Response, Error> {
    let version = policy::policy_version(&session).await?;
    condition.answer(&version.to_string(), async { Ok(Json(current(&session).await?).into_response()) }).await
}

/// `PUT /policy {document, actor, reason}` -> the policy. With `If-Match` only if the current one has that `ETag`.
pub async fn set(
    State(ctx): State<Ctx>,
    session: Session,
    precondition: Precondition,
    body: Body,
) -> Result<Json<Policy>, Error> {
    let (document, actor, reason) = body.read(FIELDS, |fields| {
        fields.require(&["document"]);
        let document = fields.value("document").cloned().unwrap_or_default();
        if !document.is_null() {
            let path = fields.path("document");
            match domain::Policy::parse(&document, &path) {
                Ok(policy) => {
                    fields.problems(check_policy(&policy, ctx.config.artifacts.can_archive(), &path).err());
                    fields.problems(key_problem(&policy, &path));
                }
                Err(problems) => fields.problems(problems),
            }
        }
        Some((document, http::actor(fields), http::reason(fields)))
    })?;
    let mut if_version = None;
    if precondition.is_given() {
        let version = policy::policy_version(&session).await?;
        if !precondition.holds_for(&version.to_string()) {
            return Err(changed(version));
        }
        if_version = Some(version);
    }
    let new = NewPolicy { document: &document, actor: &actor, reason: reason.as_deref(), if_version };
    match policy::policy_set(&session, &new).await? {
        PolicySet::Set { .. } | PolicySet::Unchanged { .. } => current(&session).await.map(Json),
        PolicySet::Conflict { version } => Err(changed(version)),
    }
}

/// Why prompts cannot be encrypted for the key that the policy names.
fn key_problem(policy: &domain::Policy, path: &str) -> Option<Problem> {
    let why = PublicKey::from_pem(policy.models.keep_prompts.as_deref()?).err()?;
    Some(Problem::new(format!("{path}.models.keep_prompts"), format!("is no public key: {why}")))
}

/// `GET /policy/history?after=&limit=` -> `{versions, next}`, newest first.
pub async fn history(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<u32>()?, query.limit()?);
    let page = policy::policy_list(&session, after, limit).await?;
    let next = page.next(|version| version.version);
    Ok(page_of(PolicyPage { versions: page.items, next }, next, &query))
}

async fn current(session: &Session) -> Result<Policy, Error> {
    Ok(match policy::policy_fetch(session).await? {
        Some(PolicyVersion { version, document, changed_by, reason, created_at }) => Policy {
            version,
            effective: effective(&document),
            document,
            changed_by: Some(changed_by),
            reason,
            created_at: Some(created_at),
        },
        None => Policy {
            version: 0,
            document: Map::new(),
            effective: effective(&Map::new()),
            changed_by: None,
            reason: None,
            created_at: None,
        },
    })
}

fn effective(document: &Map<String, Value>) -> Option<EffectivePolicy> {
    let policy = domain::Policy::parse(&Value::Object(document.clone()), "").ok()?;
    Some(EffectivePolicy {
        gates: policy.gates,
        approvals: policy.approvals,
        models: policy.models,
        artifacts: policy.artifacts,
    })
}

fn changed(version: u32) -> Error {
    Error::Conflict(Code::PolicyChanged, format!("the policy has changed since: it is at version {version}"))
}
