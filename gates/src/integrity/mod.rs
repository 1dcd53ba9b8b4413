//! TEMPORARY until merged.
use crate::definition::Definition;
use crate::finding::ExamineError;
use crate::snapshot::Snapshot;
#[derive(Debug, Clone)]
pub struct Weakening;
impl Weakening {
    pub fn concerns(&self, _gate: &str) -> bool {
        true
    }
}
impl From<Weakening> for crate::evidence::Weakening {
    fn from(_: Weakening) -> Self {
        unreachable!()
    }
}
pub fn compare(_: &Snapshot, _: &Snapshot, _: &Definition, _: &Definition) -> Result<Vec<Weakening>, ExamineError> {
    Ok(vec![])
}
pub fn compare_reports(
    _: &Snapshot,
    _: &Snapshot,
    _: &crate::report::Tests,
    _: &crate::report::Tests,
) -> Result<Vec<Weakening>, ExamineError> {
    Ok(vec![])
}
