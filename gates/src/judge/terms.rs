//! What the tenant's policy and the plan allow a gate's command.

use std::time::{Duration, Instant};

use nofx_sandbox::Level;
use shared::domain::policy::{Network, Sandbox};

use super::request::Runner;
use super::{Stop, Work};
use crate::definition::{GateDefinition, Kind};
use crate::finding::Reason;

/// The part of a gate's time that is reserved for judging and storing.
const MARGIN: Duration = Duration::from_secs(15);

/// What the tenant's policy and the step add to a definition.
#[derive(Debug, Clone)]
pub struct Terms {
    pub tenant: String,
    pub network: bool,
    pub minimum_sandbox: Level,
    /// For the whole job.
    pub timeout: Duration,
}

impl<R: Runner> Work<'_, R> {
    /// Whether the plan and the policy allow what a gate's command asks for. A gate that runs the command of another one
    /// checks that one too.
    pub(super) fn check_terms(&self, gate: &GateDefinition) -> Result<(), Stop> {
        if gate.needs_risky() && !self.request.risky {
            let message = format!("{} starts the workspace's own program: the plan needs \"risky\": true", gate.name);
            return Err(Reason::new("risky_required", message).into());
        }
        // An audit runs no code of the workspace.
        if gate.network && gate.kind != Kind::Audit && self.request.policy.network == Network::Never {
            let message = format!("{} asks for the network, and the policy never allows it", gate.name);
            return Err(Reason::new("network_denied", message).into());
        }
        Ok(())
    }

    pub(super) fn terms(&self, gate: &GateDefinition) -> Terms {
        let policy = match self.request.policy.minimum_sandbox {
            Sandbox::Limits => Level::Limits,
            Sandbox::Landlock => Level::Landlock,
            Sandbox::Namespaces => Level::Namespaces,
        };
        Terms {
            tenant: self.request.tenant.clone(),
            network: gate.network && self.request.policy.network != Network::Never,
            minimum_sandbox: gate.sandbox.map_or(policy, |own| own.max(policy)),
            timeout: self.deadline.saturating_duration_since(Instant::now()),
        }
    }
}

/// The time of a gate: that of its step without the margin, and no more than the policy gives it.
pub fn time_to_judge(timeout: Duration, max_timeout_s: Option<u32>) -> Duration {
    // A short step reserves at most a quarter of its time.
    let of_step = timeout.saturating_sub(MARGIN.min(timeout / 4));
    max_timeout_s.map_or(of_step, |most| of_step.min(Duration::from_secs(most.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_takes_no_longer_than_its_step_and_the_policy_allow() {
        let s = Duration::from_secs;
        assert_eq!(time_to_judge(s(300), None), s(285));
        assert_eq!(time_to_judge(s(20), None), s(15));
        assert_eq!(time_to_judge(s(300), Some(60)), s(60));
        assert_eq!(time_to_judge(s(60), Some(3_600)), s(45));
    }
}
