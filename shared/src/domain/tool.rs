//! The table of handlers: the tools, timeouts and batch size of each. Queues, event sources, error texts of plans and
//! the tests of the template all use it.

/// A family of tools: one Lambda function, one queue and one crate in `functions/`, all with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerSpec {
    pub name: &'static str,
    pub tools: Tools,
    /// What its tools do, for authors of plans.
    pub about: &'static str,
    /// Timeout of the Lambda function in seconds.
    pub function_timeout_s: u32,
    /// Default timeout of a step. `None` if only the invocation limits it.
    pub default_timeout_s: Option<u32>,
    /// Maximum `timeout_s` in a plan.
    pub max_timeout_s: u32,
    /// Maximum number of messages in one invocation.
    pub batch_size: u32,
    /// Whether its steps use a workspace: that of `inputs.workspace`, else the plan's.
    pub takes_workspace: bool,
    /// Whether its steps call models, which cost money.
    pub calls_models: bool,
}

/// The tools of a handler, as plans name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// Exactly these.
    Listed(&'static [&'static str]),
    /// This prefix and a word that the plan's author chooses, such as `manual:deploy`.
    Prefixed(&'static str),
}

/// Every handler. The maximum step timeout leaves the invocation some seconds to record the end.
pub const HANDLERS: &[HandlerSpec] = &[
    HandlerSpec {
        name: "gate",
        tools: Tools::Prefixed("gate:"),
        about: "Judges the workspace: a gate of the same name in nofx.toml, or a preset.",
        function_timeout_s: 600,
        default_timeout_s: Some(300),
        max_timeout_s: 580,
        batch_size: 1,
        takes_workspace: true,
        calls_models: false,
    },
    HandlerSpec {
        name: "workspace",
        tools: Tools::Listed(&["workspace:write", "workspace:git"]),
        about: "Makes a workspace: from files and a patch, or from a Git repository.",
        function_timeout_s: 300,
        default_timeout_s: Some(120),
        max_timeout_s: 280,
        batch_size: 1,
        takes_workspace: true,
        calls_models: false,
    },
    HandlerSpec {
        name: "codegen",
        tools: Tools::Listed(&["codegen"]),
        about: "Asks a model and stores its answer as an artifact.",
        function_timeout_s: 300,
        default_timeout_s: Some(240),
        max_timeout_s: 290,
        batch_size: 1,
        takes_workspace: false,
        calls_models: true,
    },
    HandlerSpec {
        name: "manual",
        tools: Tools::Prefixed("manual:"),
        about: "Waits for a person's decision.",
        function_timeout_s: 30,
        // A manual step's timeout is how long its gate waits: up to a year.
        default_timeout_s: None,
        max_timeout_s: 31_536_000,
        batch_size: 10,
        takes_workspace: false,
        calls_models: false,
    },
    HandlerSpec {
        name: "db_write",
        tools: Tools::Listed(&["db_write"]),
        about: "Writes rows of one table.",
        function_timeout_s: 60,
        default_timeout_s: Some(30),
        max_timeout_s: 50,
        batch_size: 10,
        takes_workspace: false,
        calls_models: false,
    },
    HandlerSpec {
        name: "echo",
        tools: Tools::Listed(&["echo"]),
        about: "Returns its inputs.",
        function_timeout_s: 30,
        default_timeout_s: Some(20),
        max_timeout_s: 25,
        batch_size: 10,
        takes_workspace: false,
        calls_models: false,
    },
];

/// Gates that take longer than Lambda allows: the same program polls this queue on another machine. Deployments without
/// such a machine have no long gates.
pub const LONG_GATES: HandlerSpec = HandlerSpec {
    name: "gate_long",
    tools: Tools::Prefixed("gate:"),
    about: "Judges the workspace on a machine without Lambda's time limit.",
    function_timeout_s: 21_720,
    default_timeout_s: None,
    max_timeout_s: 21_600,
    batch_size: 1,
    takes_workspace: true,
    calls_models: false,
};

/// Maximum visibility timeout of SQS: 12 hours.
const MAX_VISIBILITY_S: u32 = 43_200;
/// Maximum length of the word after a prefix.
const MAX_WORD_BYTES: usize = 64;

/// What a step does beyond its run: what a person wants to know before they let it start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It writes rows of a table.
    Write,
    /// It sends its inputs to a model.
    Model,
    /// It runs commands, or reads a repository.
    Commands,
    /// It asks a person, or only returns its inputs.
    None,
}

/// What a step with this tool does beyond its run.
pub fn effect_of(tool: &str) -> Effect {
    match tool {
        "db_write" => Effect::Write,
        "codegen" => Effect::Model,
        "echo" => Effect::None,
        _ if tool.starts_with("manual:") => Effect::None,
        // A tool that nobody has described here may do anything.
        _ => Effect::Commands,
    }
}

impl HandlerSpec {
    /// Whether a claim of its steps also reads what binds them: the policy, decisions, and what binds model calls.
    pub fn needs_terms(&self) -> bool {
        self.takes_workspace || self.calls_models
    }

    /// Name of the queue that feeds the function.
    pub fn queue(&self, prefix: &str) -> String {
        queue_name(prefix, self.name)
    }

    /// Name of the queue for messages that could not be handled.
    pub fn dead_letter_queue(&self, prefix: &str) -> String {
        dead_letter_queue_name(prefix, self.name)
    }

    /// Visibility timeout of the queue in seconds. AWS advises six times the function's timeout, which leaves time for
    /// retries of the event source.
    pub fn visibility_s(&self) -> u32 {
        (self.function_timeout_s * 6).min(MAX_VISIBILITY_S)
    }

    fn serves(&self, tool: &str) -> bool {
        match self.tools {
            Tools::Listed(tools) => tools.contains(&tool),
            Tools::Prefixed(prefix) => tool.strip_prefix(prefix).is_some_and(is_word),
        }
    }
}

/// Name of a handler's queue.
pub fn queue_name(prefix: &str, handler: &str) -> String {
    format!("{prefix}step-ready-{handler}")
}

/// Name of a handler's queue for dead letters.
pub fn dead_letter_queue_name(prefix: &str, handler: &str) -> String {
    format!("{}-dlq", queue_name(prefix, handler))
}

/// The handler with this name.
pub fn handler(name: &str) -> Option<&'static HandlerSpec> {
    HANDLERS.iter().chain([&LONG_GATES]).find(|handler| handler.name == name)
}

/// The handler for steps of this one that take longer than it can give.
pub fn long_variant(handler: &HandlerSpec) -> Option<&'static HandlerSpec> {
    (handler.name == "gate").then_some(&LONG_GATES)
}

/// The handler that serves a tool. The error is for the plan's author.
pub fn handler_for(tool: &str) -> Result<&'static HandlerSpec, String> {
    let unknown = || format!("unknown tool \"{tool}\"; there are {}", names().join(", "));
    HANDLERS.iter().find(|handler| handler.serves(tool)).ok_or_else(unknown)
}

/// Every tool, such as `codegen` and `manual:<what>`, for error texts.
pub fn names() -> Vec<String> {
    let of = |handler: &HandlerSpec| match handler.tools {
        Tools::Listed(tools) => tools.iter().map(|&tool| tool.to_owned()).collect(),
        Tools::Prefixed(prefix) => vec![format!("{prefix}<what>")],
    };
    HANDLERS.iter().flat_map(of).collect()
}

/// A regular expression for the tools with a prefix.
pub(super) fn prefixed_pattern(prefix: &str) -> String {
    format!("^{prefix}[A-Za-z0-9_.-]{{1,{MAX_WORD_BYTES}}}$")
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_WORD_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_has_one_handler_and_an_unknown_one_gets_the_list() {
        for (tool, name) in
            [("gate:lint", "gate"), ("gate:my-own_2.x", "gate"), ("manual:a.b_c-1", "manual"), ("codegen", "codegen")]
        {
            assert_eq!(handler_for(tool).map(|handler| handler.name), Ok(name));
        }
        for bad in ["gate:", "gate:a b", "gates:lint", "manual:", "manual:a b", "manual", "Echo", "echo:x", ""] {
            let message = handler_for(bad).unwrap_err();
            assert!(message.starts_with(&format!("unknown tool \"{bad}\"; there are gate:<what>, ")), "{message}");
            assert!(names().iter().all(|name| message.contains(name)), "{message}");
        }
        assert!(handler_for(&format!("manual:{}", "x".repeat(65))).is_err());
    }

    #[test]
    fn only_tools_without_effects_are_called_so() {
        use Effect::{Commands, Model, None, Write};
        let effects = ["db_write", "codegen", "gate:unit", "workspace:git", "echo", "manual:x", "later"].map(effect_of);
        assert_eq!(effects, [Write, Model, Commands, Commands, None, None, Commands]);
    }

    #[test]
    fn every_tool_has_one_handler_and_times_out_before_its_function() {
        for handler in HANDLERS {
            let tools = match handler.tools {
                Tools::Listed(tools) => tools.iter().map(|&tool| tool.to_owned()).collect(),
                Tools::Prefixed(prefix) => vec![format!("{prefix}x")],
            };
            for tool in tools {
                let serving: Vec<_> = HANDLERS.iter().filter(|other| other.serves(&tool)).collect();
                assert_eq!(serving, [handler], "{tool}");
            }
            if let Some(default_s) = handler.default_timeout_s {
                assert!(default_s <= handler.max_timeout_s, "{}", handler.name);
                assert!(handler.max_timeout_s < handler.function_timeout_s, "{}", handler.name);
            }
        }
    }
}
