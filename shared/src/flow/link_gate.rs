//! Makes one-time links to gates.

use std::ops::RangeInclusive;

use super::decide_gate::conflict;
use crate::db::Session;
use crate::db::link::{LinkFault, LinkMade, NewLink, link_create};
use crate::domain::{GateId, LinkId, Timestamp};
use crate::error::{Code, Error};
use crate::view::WhyNot;

/// How long a link may last: a minute to 30 days. A day by default.
pub const LINK_S: RangeInclusive<u64> = 60..=2_592_000;
pub const DEFAULT_LINK_S: u32 = 86_400;

/// A link that was made, without its secret.
#[derive(Debug)]
pub struct Link {
    pub id: LinkId,
    pub gate_id: GateId,
    /// Name and subject of the member that it is for.
    pub name: String,
    pub subject: String,
    pub digest: String,
    pub expires_at: Timestamp,
}

/// Makes a link. It is invalid for somebody who may not approve the gate, and a conflict for a gate that does not wait.
pub async fn link_gate(session: &Session, new: &NewLink<'_>) -> Result<Link, Error> {
    match link_create(session, new).await? {
        LinkMade::Created { name, subject, digest, expires_at } => {
            Ok(Link { id: new.id, gate_id: new.gate_id, name, subject, digest, expires_at })
        }
        LinkMade::NotFound => Err(Error::NotFound(format!("gate {}", new.gate_id))),
        LinkMade::Conflict { gate } => Err(conflict(&gate)),
        LinkMade::Nobody { several: false } => {
            Err(Error::invalid("for", "names no member; give the subject or the e-mail address of one"))
        }
        LinkMade::Nobody { several: true } => {
            Err(Error::invalid("for", "is the e-mail address of several members; give the subject of one"))
        }
        LinkMade::Excluded { why } => {
            Err(Error::invalid("for", format!("names somebody who may not approve this gate: {}", of_another(why))))
        }
        LinkMade::Unbound => {
            Err(Error::invalid("", "the gate is of an earlier release and has no digest; decide it on its page"))
        }
        LinkMade::TooMany { most } => {
            let many =
                format!("the gate has {most} open links, and may not have more; wait until some are used or expire");
            Err(Error::invalid("", many))
        }
    }
}

/// Why a decision with a link was not recorded.
pub(super) fn unusable(fault: LinkFault) -> Error {
    let used = |why: &str| Error::Conflict(Code::LinkUsed, why.to_owned());
    match fault {
        LinkFault::Unknown => Error::NotFound("this link".to_owned()),
        LinkFault::Other => Error::Forbidden("this link is for somebody else".to_owned()),
        LinkFault::Used => used("the link has been used"),
        LinkFault::Expired => used("the link has expired"),
        LinkFault::Changed => used("the gate has changed since the link was made"),
    }
}

/// What to tell who makes a link about why its person may not decide.
fn of_another(why: WhyNot) -> &'static str {
    match why {
        WhyNot::Decided | WhyNot::Expired => "it does not wait for a decision any more",
        WhyNot::Kind => "only people decide gates",
        WhyNot::Role => "their role may not",
        WhyNot::InFlight => "its step goes on by itself when requests in flight end",
        WhyNot::Budget => "a budget is raised by an approval",
        WhyNot::TenantBudget => "it waits for a budget of the tenant, which the policy sets",
        WhyNot::NotNamed => "its rule names others",
        WhyNot::Waive => "the policy lets nobody waive gates",
        WhyNot::Session => "they logged in too long ago",
        WhyNot::OwnWork => "it is their own work",
        WhyNot::Done => "they have approved it already",
    }
}
