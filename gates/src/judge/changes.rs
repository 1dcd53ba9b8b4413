//! The changed lines whose coverage a gate measures, and how many of them tests must run.

use std::sync::Arc;

use super::request::Runner;
use super::{Stop, Work};
use crate::blocking::spawn_blocking;
use crate::coverage::{self, Base, ChangeSet, CoverageError, SourceRules, Threshold, Wanted, read_folder};
use crate::definition::{Definition, Format, GateDefinition};
use crate::finding::{InfraError, Reason};

impl<R: Runner> Work<'_, R> {
    /// The changed lines, from the trees as they were before any command ran.
    pub(super) async fn changes(
        &self,
        definition: &Definition,
        gate: &GateDefinition,
    ) -> Result<Result<ChangeSet, CoverageError>, Stop> {
        let rules = source_rules(definition, gate)?;
        let subject = Arc::clone(&self.subject);
        let changes = spawn_blocking(move || {
            let wanted = |path: &str| if rules.may_be_source(path) { Wanted::Text } else { Wanted::Hash };
            let head = read_folder(subject.head.root(), wanted)?;
            let base = subject.base.as_ref().map(|base| read_folder(base.root(), wanted)).transpose()?;
            let base = base.as_ref().map_or(Base::None, Base::Tree);
            Ok::<_, std::io::Error>(ChangeSet::between(base, &head, &rules))
        });
        Ok(changes.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?)
    }

    pub(super) fn options(&self, gate: &GateDefinition) -> coverage::Options {
        let rules = gate.coverage;
        let own = rules.and_then(|rules| rules.threshold).and_then(threshold).unwrap_or(Threshold::DEFAULT);
        let least = self.request.policy.minimum_threshold;
        let own = match (own.ratio(), least) {
            (ratio, Some(least)) if least > ratio => threshold(least).unwrap_or(own),
            _ => own,
        };
        coverage::Options {
            threshold: own,
            file_floor: rules.and_then(|rules| rules.file_floor).and_then(threshold),
            strict_arms: rules.is_some_and(|rules| rules.strict),
            roots: Vec::new(),
        }
    }
}

/// The sources that the definition names, else those of the languages that the gate's reports can measure.
fn source_rules(definition: &Definition, gate: &GateDefinition) -> Result<SourceRules, Stop> {
    let only_scripts =
        gate.reports.iter().all(|report| report.format == Format::Istanbul || !report.format.is_coverage());
    let rules = if only_scripts { SourceRules::default() } else { SourceRules::of_every_language() };
    let sources = definition.sources.as_ref().map(|globs| globs.patterns().to_vec()).unwrap_or_default();
    let rules = rules.with_sources(&sources).and_then(|rules| rules.with_ignores(definition.ignore.patterns()));
    rules.map_err(|message| Reason::new("definition_invalid", message).into())
}

/// The exact fraction that a person wrote.
fn threshold(ratio: f64) -> Option<Threshold> {
    ratio.to_string().parse().ok()
}
