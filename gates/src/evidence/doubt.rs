//! Everything that a verdict may leave unproved.

use serde::{Deserialize, Serialize};

/// Something that the verdict does not prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Doubt {
    /// snake_case, for programs.
    pub code: String,
    /// One sentence, for people.
    pub message: String,
}

macro_rules! doubts {
    ($($name:ident = $code:literal, $message:literal;)+) => {
        /// A doubt by its cause. The table in `docs/evidence.md` has the same codes and sentences.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum DoubtCode {
            $($name),+
        }

        impl DoubtCode {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code in snake_case, as in the document.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code),+
                }
            }

            /// The sentence for people.
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message),+
                }
            }
        }
    };
}

doubts! {
    DefinitionCandidate = "definition_candidate",
        "The change under test defined the gate itself, because there was no base.";
    DefinitionApproved = "definition_approved",
        "A person approved or waived a change of the checks themselves.";
    ChangeWaived = "change_waived",
        "A person waived the question about the weakened checks: nobody approved them.";
    PresetLimits = "preset_limits",
        "The gate is a preset, which leaves something out.";
    OnlyWarns = "only_warns",
        "The definition says that findings of this gate are warnings: they do not fail it.";
    NoReport = "no_report",
        "The gate has no report: the exit code of its command is all that counts.";
    ReportForgeable = "report_forgeable",
        "The tested code can forge the report that its own process writes. The gate `mutants` answers that.";
    BaseTestsUnknown = "base_tests_unknown",
        "The tests of the base could not run or wrote no report, so nobody knows whether some are gone.";
    MutantsCut = "mutants_cut",
        "Time ran out before every chosen mutant was tried.";
    SecretsAllowed = "secrets_allowed",
        "The definition says that some files may hold secrets, so their lines were not judged.";
    NetworkOpen = "network_open",
        "The command could reach the network.";
    SandboxLandlock = "sandbox_landlock",
        "The command ran without namespaces of its own.";
    SandboxWeak = "sandbox_weak",
        "The command was not isolated from the files of its host.";
    Reused = "reused",
        "The gate did not run again: the run that `reused` names judged the same inputs.";
}

impl DoubtCode {
    /// The doubt with more sentences.
    pub fn with(self, details: &str) -> Doubt {
        Doubt { code: self.as_str().to_owned(), message: format!("{} {details}", self.message()) }
    }
}

impl From<DoubtCode> for Doubt {
    fn from(code: DoubtCode) -> Self {
        Self { code: code.as_str().to_owned(), message: code.message().to_owned() }
    }
}
