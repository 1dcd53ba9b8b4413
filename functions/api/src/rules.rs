//! Rules of `db_write`: list, read, set, delete. `docs/db_write.md` explains them.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::db::Session;
use shared::db::rule::{self, RuleSet};
use shared::domain::rule::{Rule, is_table_name};
use shared::error::Error;
use shared::http::{Body, Query, not_given_out, page_of, shown};
use shared::view::{RuleDeleted, RuleDetail, RulePage};
use uuid::Uuid;

/// `GET /rules?after=&limit=` -> `{rules, next}`, ordered by table name.
pub async fn list(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<Uuid>()?, query.limit()?);
    if let Some(after) = after
        && !rule::rule_exists(&session, after).await?
    {
        return Err(not_given_out());
    }
    let page = rule::rule_list(&session, after, limit).await?;
    let next = page.next(|rule| rule.id);
    Ok(page_of(RulePage { rules: page.items, next }, next, &query))
}

/// `GET /rules/{table}` -> the rule, `target` (the table's definition: triggers with their digests, foreign keys; null
/// if there is no such table) and `changes`, newest first.
pub async fn fetch(session: Session, Path(table): Path<String>) -> Result<Json<RuleDetail>, Error> {
    let found = rule::rule_fetch(&session, &table).await?;
    found.map(Json).ok_or_else(|| no_rule(&table))
}

/// `PUT /rules/{table} {allowed_ops, columns, key, max_rows, role, triggers, dependants, allow, actor}` -> 201 with the
/// rule, or 200 if it replaced one.
pub async fn set(session: Session, Path(table): Path<String>, body: Body) -> Result<Response, Error> {
    if !is_table_name(&table) {
        return Err(Error::invalid("table", "must be a name like public.products"));
    }
    let (actor, rule) = body.without_actor()?;
    let rule = Rule::parse(&rule).map_err(Error::Invalid)?;
    let result = rule::rule_set(&session, &table, &actor, &rule).await?;
    if result == RuleSet::Closed {
        return Err(Error::invalid("table", "is in a schema that plans may not write"));
    }
    let stored = rule::rule_fetch(&session, &table).await?.ok_or_else(|| no_rule(&table))?;
    let status = if result == RuleSet::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(stored)).into_response())
}

/// `DELETE /rules/{table} {actor}` -> what was deleted.
pub async fn delete(session: Session, Path(table): Path<String>, body: Body) -> Result<Json<RuleDeleted>, Error> {
    let actor = body.only_actor()?;
    match rule::rule_delete(&session, &table, &actor).await? {
        rule::RuleDeleted::NotFound => Err(no_rule(&table)),
        rule::RuleDeleted::Deleted => Ok(Json(RuleDeleted { table, result: "deleted".to_owned() })),
    }
}

fn no_rule(table: &str) -> Error {
    Error::NotFound(format!("a rule for {}", shown(table, 150)))
}
