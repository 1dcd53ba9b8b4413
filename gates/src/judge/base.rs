//! What is judged, what it is compared with, and whether the policy trusts that.

use shared::domain::policy::TrustedBase;

use super::request::{BaseInput, Runner};
use super::{Case, Stop, Work};
use crate::evidence::{self, GivenBy};
use crate::finding::Reason;

impl<R: Runner> Work<'_, R> {
    pub(super) fn record_subject(&self, case: &mut Case) {
        let archive = Some(self.request.workspace.sha256.clone());
        case.evidence.subject = Some(evidence::Subject { tree: self.subject.head.digest(), archive });
        let Some(base) = &self.subject.base else { return };
        let archive = match &self.request.base {
            Some(BaseInput::Archive(archive) | BaseInput::Diff(archive)) => Some(archive.sha256.clone()),
            None => None,
        };
        let given_by = self.request.base_given_by;
        case.evidence.base = evidence::Base { tree: Some(base.digest()), archive, given_by };
    }

    /// What the policy demands of a base.
    pub(super) fn check_base(&self, case: &mut Case) -> Result<(), Stop> {
        let policy = &self.request.policy;
        if self.subject.base.is_none() {
            if policy.require_base {
                let message = "the policy requires a base, and neither the plan nor the step names one";
                return Err(Reason::new("base_required", message).into());
            }
            case.doubt("definition_candidate", "There was no base, so the change under test defined its own gate.");
            return Ok(());
        }
        let base = &case.evidence.base;
        let is_trusted = match &policy.trusted_base {
            TrustedBase::Any => true,
            TrustedBase::Git => base.given_by == GivenBy::Policy,
            TrustedBase::Listed(listed) => {
                let tree = base.tree.iter().flat_map(|tree| [&tree.sha1, &tree.sha256]);
                tree.chain(&base.archive).any(|digest| listed.contains(digest))
            }
        };
        if is_trusted {
            return Ok(());
        }
        Err(Reason::new("base_not_trusted", "the policy does not trust this base; name one that it lists").into())
    }
}
