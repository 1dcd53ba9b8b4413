//! The definition that counts: the base's, in which the change has no say, unless there is no base or a person approved
//! the difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::request::Runner;
use super::{Case, Stop, Work, job, weakening};
use crate::blocking::spawn_blocking;
use crate::definition::{self, Definition, GateDefinition, Origin, Source as DefinitionSource};
use crate::evidence::{self, DoubtCode};
use crate::finding::{InfraError, Reason};
use crate::integrity;

/// The definition that counts, and whose it is.
pub struct Effective {
    pub definition: Definition,
    pub source: evidence::Source,
}

impl<R: Runner> Work<'_, R> {
    /// The base's definition, unless there is no base or a person approved the difference.
    pub(super) async fn definition(&self, case: &mut Case) -> Result<Effective, Stop> {
        let subject = Arc::clone(&self.subject);
        let read = spawn_blocking(move || {
            let head = definition::define(&subject.head).map_err(|problems| invalid_definition("", &problems))?;
            let Some(base) = &subject.base else { return Ok((head, None)) };
            let of_base = definition::define(base).map_err(|problems| invalid_definition(" of the base", &problems))?;
            let found = integrity::compare(base, &subject.head, &of_base, &head).map_err(InfraError::from)?;
            Ok::<_, Stop>((head, Some((of_base, found))))
        });
        let (head, compared) = read.await.map_err(InfraError::task_failed)??;
        let Some((of_base, found)) = compared else {
            return Ok(Effective { definition: head, source: evidence::Source::Candidate });
        };
        // Every gate of a run asks the same question, so that one decision answers all of them.
        let listed: Vec<_> = found.findings.into_iter().map(evidence::Weakening::from).collect();
        if weakening::settle(&listed, self.request, case)? {
            case.doubt(DoubtCode::DefinitionApproved);
            return Ok(Effective { definition: head, source: evidence::Source::Approved });
        }
        Ok(Effective { definition: of_base, source: evidence::Source::Base })
    }

    pub(super) fn record_definition(&self, gate: &GateDefinition, effective: &Effective, case: &mut Case) {
        let definition = &effective.definition;
        let mut thresholds = BTreeMap::new();
        if let Some(coverage) = &gate.coverage {
            thresholds.insert("coverage".to_owned(), serde_json::json!(self.options(gate).threshold));
            thresholds.insert("file_floor".to_owned(), serde_json::json!(coverage.file_floor));
            thresholds.insert("strict".to_owned(), serde_json::json!(coverage.strict));
        }
        case.evidence.definition = Some(evidence::Definition {
            source: effective.source,
            file: match definition.source {
                DefinitionSource::File => definition::FILE.to_owned(),
                DefinitionSource::Presets => "presets".to_owned(),
            },
            digest: definition.digest.clone(),
            command: gate.command.clone(),
            reports: gate
                .reports
                .iter()
                .map(|report| evidence::ExpectedReport {
                    format: report.format.name().to_owned(),
                    path: job::shown_place(report),
                })
                .collect(),
            thresholds,
            severity: match gate.severity {
                definition::Severity::Error => evidence::Severity::Error,
                definition::Severity::Warning => evidence::Severity::Warning,
            },
        });
        if gate.origin == Origin::Preset {
            let limits: Vec<&str> = definition.explanation_of(&gate.name).collect();
            if !limits.is_empty() {
                case.add_doubt(DoubtCode::PresetLimits.with(&limits.join(" ")));
            }
        }
        if gate.severity == definition::Severity::Warning {
            case.doubt(DoubtCode::OnlyWarns);
        }
    }
}

pub fn no_such_gate(error: &definition::NoSuchGate, source: evidence::Source) -> Stop {
    let message = match source {
        evidence::Source::Base => error.of_base().to_string(),
        evidence::Source::Candidate | evidence::Source::Approved => error.to_string(),
    };
    Reason::new("no_command", message).into()
}

fn invalid_definition(of: &str, problems: &[definition::Problem]) -> Stop {
    const NAMED: usize = 5;
    let named: Vec<String> = problems.iter().take(NAMED).map(ToString::to_string).collect();
    let message = format!("{}{of} is not valid: {}", definition::FILE, named.join("; "));
    Reason::new("definition_invalid", message).into()
}
