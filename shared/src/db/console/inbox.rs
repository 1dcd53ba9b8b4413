//! The gates that wait for a person, and the decisions of people.

use std::collections::HashMap;

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::WAITING;
use super::follow;
use super::gate::{GATE, GATE_JOINS, Gate};
use crate::db::gate::STANDING_JOIN;
use crate::db::row;
use crate::db::session::{Arg, Session};
use crate::domain::gate::Decision;
use crate::domain::{GateId, Timestamp};
use crate::error::Error;

/// Gates on a page.
const PAGE: usize = 50;
/// Types of gates with their number.
const TYPES: usize = 10;
/// Pending gates that one page reads to find those that the reader may decide.
const SCANNED: usize = 200;
/// Decisions that are counted.
const COUNTED: usize = 1_000;
/// Pending gates that are counted by type.
pub const COUNTED_GATES: u64 = 10_000;

/// A page of pending gates, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    pub gates: Vec<Asked>,
    /// The most frequent types of pending gates, with their number.
    pub types: Vec<TypeCount>,
    /// All types.
    pub types_total: u64,
    /// Whether only the oldest 10,000 gates were counted by type.
    pub is_cut: bool,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
    pub decided: Decided,
    /// The last gate of this page, if newer ones follow.
    pub newer: Option<GateId>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
}

/// A pending gate, with what a decision can rely on and what it starts.
#[derive(Debug, Clone, Deserialize)]
pub struct Asked {
    #[serde(flatten)]
    pub gate: Gate,
    /// Steps right before the gate that passed on evidence.
    pub passed: u64,
    /// Rows that `db_write` steps insert after an approval, without another question.
    pub rows: u64,
    /// Such steps that change or delete rows, or insert rows that are not known yet.
    pub writes: u64,
    /// Steps after an approval that ask a model, and those that run commands.
    pub models: u64,
    pub commands: u64,
    /// Whether more steps follow than those that were read.
    pub has_more: bool,
    /// Different people who must approve, and how many have.
    pub required: Option<u32>,
    pub approved: Option<u32>,
}

/// How many pending gates have a type.
#[derive(Debug, Clone, Deserialize)]
pub struct TypeCount {
    pub gate_type: String,
    pub count: u64,
}

/// Decisions of the last seven days, and the newest one at all.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Decided {
    /// Counted up to 1,000 together.
    pub counts: HashMap<Decision, u64>,
    pub last: Option<LastDecision>,
}

/// The newest decision of a tenant.
#[derive(Debug, Clone, Deserialize)]
pub struct LastDecision {
    pub actor: String,
    pub created_at: Timestamp,
}

/// A page of decided gates, newest decision first.
#[derive(Debug, Clone, Default)]
pub struct DecidedList {
    pub gates: Vec<Gate>,
    pub waiting: u64,
    pub decided: Decided,
    /// The last gate of this page, if older decisions follow.
    pub older: Option<GateId>,
    pub is_continuation: bool,
}

/// Pending gates after `after`, oldest first, of one type or of all. With `mine` those that the reader may decide.
pub async fn inbox_list(
    session: &Session,
    gate_type: Option<&str>,
    mine: bool,
    after: Option<GateId>,
) -> Result<Inbox, Error> {
    #[derive(Deserialize)]
    struct Found {
        gates: Vec<Asked>,
        /// The last gate that was read, if more follow.
        last_scanned: Option<GateId>,
        types: Vec<TypeCount>,
        types_total: u64,
        is_cut: bool,
        decided: Decided,
        waiting: u64,
    }
    // A cursor is the id of a gate, and its position is looked up. An unknown id gives an empty page.
    let sql = format!(
        "with type as materialized (
             select p.gate_type, count(*) as count
               from (select left(g.gate_type, 100) as gate_type from nofx.gate g
                      where g.tenant_id = $1 and g.status = 'pending'
                      order by g.created_at, g.id limit {COUNTED_GATES} + 1) p
              group by p.gate_type
         ), scanned as materialized (
             select g.*, row_number() over (order by g.created_at, g.id) as place
               from (select g.* from nofx.gate g
                      where g.tenant_id = $1 and g.status = 'pending'
                        and ($2::uuid is null or (g.created_at, g.id) > (
                            select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $2))
                        and ($3::text is null or g.gate_type = $3)
                      order by g.created_at, g.id limit {SCANNED} + 1) g
         )
         select coalesce((select json_agg(gate) from (
                    select {GATE}, {PASSED} as passed, w.*, st.required, st.approved
                      from (select g.* from scanned g
                             where g.place <= {SCANNED} and (not $4::boolean or nofx.gate_is_mine(g.id))
                             order by g.created_at, g.id limit {PAGE} + 1) g
                      {GATE_JOINS} {STANDING_JOIN} cross join lateral ({EFFECTS}) w
                     order by g.created_at, g.id) gate), '[]') as gates,
                (select l.id from scanned l where l.place = {SCANNED} and (select max(m.place) from scanned m) > {SCANNED}) as last_scanned,
                coalesce((select json_agg(type) from (
                    select t.gate_type, t.count from type t order by t.count desc, t.gate_type limit {TYPES}) type), '[]') as types,
                (select count(*) from type) as types_total,
                (select coalesce(sum(t.count), 0) > {COUNTED_GATES} from type t) as is_cut,
                {DECIDED} as decided, {WAITING} as waiting",
        EFFECTS = follow::effects(),
        DECIDED = decided(),
    );
    let after_id = after.map(|id| id.0);
    let params: [Arg<'_>; 3] = [(&after_id, Type::UUID), (&gate_type, Type::TEXT), (&mine, Type::BOOL)];
    let found: Option<Found> = row::fetch(session, &sql, &params).await?;
    let Found { mut gates, last_scanned, types, types_total, is_cut, decided, waiting } =
        found.ok_or_else(|| Error::internal("list gates", "no row"))?;
    let has_more = gates.len() > PAGE;
    gates.truncate(PAGE);
    let newer = gates.last().filter(|_| has_more).map(|asked| asked.gate.id).or(last_scanned);
    Ok(Inbox { gates, types, types_total, is_cut, waiting, decided, newer, is_continuation: after.is_some() })
}

/// Decided gates, newest decision first, after the one of the gate `after`.
pub async fn decided_list(session: &Session, after: Option<GateId>) -> Result<DecidedList, Error> {
    #[derive(Deserialize)]
    struct Found {
        gates: Vec<Gate>,
        decided: Decided,
        waiting: u64,
    }
    // Postgres would not use the index for an optional bound.
    let older = match after {
        Some(_) => {
            "(l.created_at, l.gate_id) < (
                 select c.created_at, c.gate_id from nofx.approval c where c.tenant_id = $1 and c.gate_id = $2 and c.decides)"
        }
        None => "$2::uuid is null",
    };
    let sql = format!(
        "select coalesce((select json_agg(gate) from (
                    select {GATE}
                      from (select l.gate_id, l.created_at from nofx.approval l
                             where l.tenant_id = $1 and l.decides and {older}
                             order by l.created_at desc, l.gate_id desc limit {PAGE} + 1) l
                      join nofx.gate g on g.id = l.gate_id {GATE_JOINS}
                     order by l.created_at desc, l.gate_id desc) gate), '[]') as gates,
                {} as decided, {WAITING} as waiting",
        decided()
    );
    let after_id = after.map(|id| id.0);
    let found: Option<Found> = row::fetch(session, &sql, &[(&after_id, Type::UUID)]).await?;
    let Found { mut gates, decided, waiting } = found.ok_or_else(|| Error::internal("list decisions", "no row"))?;
    let has_more = gates.len() > PAGE;
    gates.truncate(PAGE);
    let older = gates.last().filter(|_| has_more).map(|gate| gate.id);
    Ok(DecidedList { gates, waiting, decided, older, is_continuation: after.is_some() })
}

/// The pending gate that follows this one in the inbox of the reader.
pub async fn inbox_next(session: &Session, gate: GateId) -> Result<Option<GateId>, Error> {
    let sql = format!(
        "select n.id
           from (select g.id, g.created_at from nofx.gate g
                  where g.tenant_id = $1 and g.status = 'pending'
                    and (g.created_at, g.id) > (
                        select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $2)
                  order by g.created_at, g.id limit {SCANNED}) n
          where nofx.gate_is_mine(n.id) order by n.created_at, n.id limit 1"
    );
    let id = session.value(&sql, &[(&gate.0, Type::UUID)]).await?;
    Ok(id.map(GateId))
}

/// Steps right before a gate `g` that passed on evidence.
const PASSED: &str = "(select count(*)
           from nofx.step_edge e
           join nofx.step p on p.id = e.parent_id
          where e.child_id = g.step_id and p.tool like 'gate:%' and p.status = 'succeeded')";

/// Selects a [`Decided`].
fn decided() -> String {
    format!(
        "(select json_build_object(
              'counts', coalesce((
                  select json_object_agg(l.decision, l.count) from (
                      select l.decision, count(*) as count
                        from (select l.decision from nofx.approval l
                               where l.tenant_id = $1 and l.decides and l.created_at > now() - interval '7 days'
                               order by l.created_at desc, l.gate_id desc limit {COUNTED}) l
                       group by l.decision) l), '{{}}'),
              'last', (select json_build_object('actor', l.actor, 'created_at', l.created_at)
                         from nofx.approval l
                        where l.tenant_id = $1 and l.decides
                        order by l.created_at desc, l.gate_id desc limit 1)))"
    )
}

/// Pending gates of the tenant, counted up to 100, for pages that read nothing else.
pub async fn waiting(session: &Session) -> Result<u64, Error> {
    let count: Option<i64> = session.value(&format!("select {WAITING}"), &[]).await?;
    Ok(count.unwrap_or_default().unsigned_abs())
}
