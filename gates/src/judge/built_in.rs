//! Gates that need no command of the workspace: secrets in changed lines, and mutants.

use super::request::Runner;
use super::{Case, Stop, Work};
use crate::definition::{Definition, GateDefinition};
use crate::finding::Reason;

pub async fn secrets<R: Runner>(_work: &Work<'_, R>, _gate: &GateDefinition, _case: &mut Case) -> Result<Reason, Stop> {
    Err(Reason::new("unfinished", "temporary").into())
}

pub async fn mutants<R: Runner>(
    _work: &Work<'_, R>,
    _definition: &Definition,
    _gate: &GateDefinition,
    _case: &mut Case,
) -> Result<Reason, Stop> {
    Err(Reason::new("unfinished", "temporary").into())
}
