//! What is judged, what it is compared with, and whether the policy trusts that.

use shared::domain::base_origin::BaseOrigin;
use shared::domain::policy::{GatePolicy, TrustedBase};

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
        let origin = self.request.base_origin.clone().map(Into::into);
        case.evidence.base = evidence::Base { tree: Some(base.digest()), archive, given_by, origin };
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
        check_trust(policy, &case.evidence.base, self.request.base_origin.as_ref())
            .map_err(|why| Reason::new("base_not_trusted", why).into())
    }
}

/// Whether the policy lets a base define gates. `Err` says why not, and what to do. `origin` is what the database says about
/// the base.
fn check_trust(policy: &GatePolicy, base: &evidence::Base, origin: Option<&BaseOrigin>) -> Result<(), String> {
    match &policy.trusted_base {
        TrustedBase::Any => Ok(()),
        TrustedBase::Git if base.given_by == GivenBy::Policy => Ok(()),
        TrustedBase::Git => match origin {
            Some(origin) => origin.check(policy).map_err(|why| format!("the policy does not trust this base: {why}")),
            None => {
                Err("the policy trusts only bases that workspace:git fetched, and this is none; add such a step, and \
                         give its output `base` to the gate"
                    .to_owned())
            }
        },
        TrustedBase::Listed(listed) => {
            let tree = base.tree.iter().flat_map(|tree| [&tree.sha1, &tree.sha256]);
            if tree.chain(&base.archive).any(|digest| listed.contains(digest)) {
                Ok(())
            } else {
                Err("the policy does not trust this base; name one that it lists".to_owned())
            }
        }
    }
}
