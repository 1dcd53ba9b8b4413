//! Which bases the tenant's policy trusts.

use shared::domain::base_origin::BaseOrigin;
use shared::domain::policy::{GatePolicy, TrustedBase};

use crate::evidence::{Base, GivenBy};

/// Whether a base may define gates. `Err` says why not, and what to do. `origin` is what the database says about the base.
pub fn check(policy: &GatePolicy, base: &Base, origin: Option<&BaseOrigin>) -> Result<(), String> {
    match &policy.trusted_base {
        TrustedBase::Any => Ok(()),
        TrustedBase::Git if base.given_by == GivenBy::Policy => Ok(()),
        TrustedBase::Git => match origin {
            Some(origin) => origin.check(policy).map_err(|why| format!("the policy does not trust this base: {why}")),
            None => {
                Err("the policy trusts only bases that workspace:git fetched, and this one is none; add such a step, \
                         and give its output `base` to the gate"
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
