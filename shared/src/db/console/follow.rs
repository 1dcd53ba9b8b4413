//! What follows a decision: the steps right behind a gate, and those that run after them without another question.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::tool::{Effect, effect_of};
use crate::domain::{StepStatus, Timestamp};

/// Steps of each kind that the page of a gate lists.
const LISTED: usize = 20;
/// Steps after a gate that a list of gates reads. The page of the gate reads all.
pub const FOLLOWED: u64 = 200;
/// Larger inputs are not on the page.
const INPUT_BYTES: usize = 64 << 10;

/// A step that waits for the gate.
#[derive(Debug, Clone, Deserialize)]
pub struct Start {
    pub name: String,
    pub tool: String,
    pub status: StepStatus,
    /// What it waits for, the gate too.
    pub blockers: u64,
    /// Of a `db_write`. None if they are too large.
    pub inputs: Option<Value>,
    /// The outputs that the inputs refer to. None if they are too large.
    pub refs: Option<Vec<NamedOutputs>>,
    /// `schema.table`, of a `db_write`.
    pub table: Option<String>,
    /// The table's rule, as a rule is posted.
    pub rule: Option<Value>,
    /// Who set the rule last, and when.
    pub rule_actor: Option<String>,
    pub rule_at: Option<Timestamp>,
}

/// Outputs of a step by its name.
#[derive(Debug, Clone, Deserialize)]
pub struct NamedOutputs {
    pub step: String,
    pub outputs: Value,
}

/// How many steps do what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Effects {
    pub writes: u64,
    pub models: u64,
    pub commands: u64,
    /// Steps without effects beyond the run.
    pub others: u64,
}

impl Effects {
    pub fn of<'a>(tools: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts = Self::default();
        for tool in tools {
            *counts.count(effect_of(tool)) += 1;
        }
        counts
    }

    fn count(&mut self, effect: Effect) -> &mut u64 {
        match effect {
            Effect::Write => &mut self.writes,
            Effect::Model => &mut self.models,
            Effect::Commands => &mut self.commands,
            Effect::None => &mut self.others,
        }
    }

    pub fn total(&self) -> u64 {
        self.writes + self.models + self.commands + self.others
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            writes: self.writes + other.writes,
            models: self.models + other.models,
            commands: self.commands + other.commands,
            others: self.others + other.others,
        }
    }

    /// Those that are not among `some`.
    #[must_use]
    pub fn without(self, some: Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(some.writes),
            models: self.models.saturating_sub(some.models),
            commands: self.commands.saturating_sub(some.commands),
            others: self.others.saturating_sub(some.others),
        }
    }
}

/// Expressions for tables of step ids, of a gate `g`. `first_id`: the steps that follow its step, or that step itself if it
/// has not done its work. `reached_id`: these, and all that follow them without a decision about another gate. What follows
/// that other gate is on its own page, whatever else it waits for.
const REACHED: &str = "recursive first_id(id) as (
             select e.child_id from nofx.step_edge e where e.parent_id = g.step_id and g.on_pass = 'finish'
             union all
             select g.step_id where g.step_id is not null and g.on_pass <> 'finish'
         ), reached_id(id) as (
             select f.id from first_id f
             union
             select e.child_id
               from reached_id r
               join nofx.step p on p.id = r.id
               join nofx.step_edge e on e.parent_id = r.id
              where p.tool not like 'manual:%'
                and not exists (
                    select from nofx.gate o
                     where o.tenant_id = $1 and o.step_id = r.id and o.status = 'pending' and o.step_id <> g.step_id)
         )";

/// What a step `s` does, as a number: writes come first. The same as [`effect_of`].
const EFFECT: &str = "case when s.tool = 'db_write' then 0 when s.tool = 'codegen' then 1
                  when s.tool = 'echo' or s.tool like 'manual:%' then 3 else 2 end";

/// Selects [`Effects`] of steps `s` with their `effect`.
const EFFECTS: &str = "json_build_object(
            'writes', count(*) filter (where s.effect = 0), 'models', count(*) filter (where s.effect = 1),
            'commands', count(*) filter (where s.effect = 2), 'others', count(*) filter (where s.effect = 3))";

/// Columns of a step `s` and of what it writes, if it is a `db_write`. The query adds [`start_joins`].
pub(super) const START: &str = "s.name, s.tool, s.status, s.blockers, write.table, write.inputs, write.refs, rule.rule,
        rule.rule_actor, rule.rule_at";

pub(super) fn start_joins() -> String {
    format!(
        "left join lateral (
             select s.inputs ->> 'table' as table,
                    case when octet_length(s.inputs::text) <= {INPUT_BYTES} then s.inputs end as inputs,
                    (select case when sum(octet_length(u.outputs::text)) <= {INPUT_BYTES}
                                 then json_agg(json_build_object('step', u.name, 'outputs', u.outputs)) end
                       from nofx.step u
                      where u.tenant_id = $1 and u.run_id = s.run_id and u.name = any (s.refs)
                        and u.outputs is not null) as refs
              where s.tool = 'db_write') write on true
         left join lateral (
             select r.constraints || jsonb_build_object('allowed_ops', r.allowed_ops) as rule,
                    v.actor as rule_actor, v.timestamp as rule_at
               from nofx.db_write_rule r
               left join lateral (
                   select e.actor, e.timestamp from nofx.tenant_event e
                    where e.tenant_id = $1 and e.subject = r.table_name and e.type = 'rule.set'
                    order by e.id desc limit 1) v on true
              where r.tenant_id = $1 and r.table_name = write.table) rule on true"
    )
}

/// Selects `starts`, `starts_counts`, `later` and `later_counts` of a gate `g`.
pub(super) fn starts_and_later() -> String {
    let joins = start_joins();
    // Few steps are listed, so their inputs are read after the limit. Each table with each operation comes before repeats, and
    // what changes or deletes rows before inserts, so that many writes cannot push another one off the page.
    let listed = |which: &str, order: &str| {
        format!(
            "coalesce((select json_agg(start) from (
                    select {START} from (select s.* from step s where {which} order by {order} limit {LISTED}) l
                      join nofx.step s on s.id = l.id {joins}
                     order by {}) start), '[]')",
            order.replace("s.", "l.")
        )
    };
    let counts = |which: &str| format!("(select {EFFECTS} from step s where {which})");
    format!(
        "with {REACHED}, step as materialized (
             select s.id, s.ordinal, s.blockers, {EFFECT} as effect, f.id is not null as is_first,
                    s.inputs ->> 'op' is not distinct from 'insert' as is_insert,
                    case when s.tool = 'db_write'
                         then row_number() over (partition by s.tool, s.inputs ->> 'table', s.inputs ->> 'op', f.id is null
                                                 order by s.ordinal) end as of_kind
               from reached_id r
               join nofx.step s on s.id = r.id
               left join first_id f on f.id = r.id
         )
         select {} as starts, {} as starts_counts, {} as later, {} as later_counts",
        listed("s.is_first", "s.effect > 0, s.of_kind, s.is_insert, s.blockers, s.ordinal"),
        counts("s.is_first"),
        listed("not s.is_first and s.effect < 3", "s.effect, s.of_kind, s.is_insert, s.ordinal"),
        counts("not s.is_first"),
    )
}

/// Selects what the first steps after an approval of a gate `g` do: `rows` that they insert, other `writes`, and what else.
pub(super) fn effects() -> String {
    format!(
        "with {REACHED}, part as materialized (select r.id from reached_id r limit {FOLLOWED} + 1)
         select count(*) > {FOLLOWED} as has_more,
                count(*) filter (where s.effect = 0 and not s.is_known) as writes,
                coalesce(sum(case when s.is_known then jsonb_array_length(s.rows) end), 0) as rows,
                count(*) filter (where s.effect = 1) as models, count(*) filter (where s.effect = 2) as commands
           from (select {EFFECT} as effect, w.rows, coalesce(w.is_known, false) as is_known
                   from part r
                   join nofx.step s on s.id = r.id
                   left join lateral (
                       select s.inputs -> 'values' as rows,
                              s.inputs ->> 'op' = 'insert' and jsonb_typeof(s.inputs -> 'values') = 'array' as is_known
                        where s.tool = 'db_write') w on true) s"
    )
}
