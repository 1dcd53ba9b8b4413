//! The table of handlers: which tools each serves, and with which numbers. Queues, event sources, the plan's error texts and
//! the checks of the template all follow from it.

/// A family of tools: one Lambda function, one queue and one crate in `functions/`, all with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerSpec {
    pub name: &'static str,
    pub tools: Tools,
    /// Timeout of the Lambda function in seconds.
    pub function_timeout_s: u32,
    /// Timeout of a step that names none; `None` when only the invocation limits it.
    pub default_timeout_s: Option<u32>,
    /// Most that a plan may ask for in `timeout_s`.
    pub max_timeout_s: u32,
    /// Most messages in one invocation.
    pub batch_size: u32,
    /// Whether its steps judge a workspace: the one of their `inputs.workspace`, else the plan's.
    pub takes_workspace: bool,
}

/// The tools of a handler, as plans name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// These and no others.
    Listed(&'static [&'static str]),
    /// This prefix and a word of the plan's author, such as `manual:deploy`.
    Prefixed(&'static str),
}

/// Every handler. A step's timeout leaves the invocation some seconds to record the end.
pub const HANDLERS: &[HandlerSpec] = &[
    HandlerSpec {
        name: "gate",
        tools: Tools::Listed(&["gate:typecheck", "gate:lint", "gate:unit"]),
        function_timeout_s: 600,
        default_timeout_s: Some(300),
        max_timeout_s: 580,
        batch_size: 1,
        takes_workspace: true,
    },
    HandlerSpec {
        name: "codegen",
        tools: Tools::Listed(&["codegen"]),
        function_timeout_s: 300,
        default_timeout_s: Some(240),
        max_timeout_s: 290,
        batch_size: 1,
        takes_workspace: false,
    },
    HandlerSpec {
        name: "manual",
        tools: Tools::Prefixed("manual:"),
        function_timeout_s: 30,
        // A manual step's timeout is how long its gate waits: up to a year.
        default_timeout_s: None,
        max_timeout_s: 31_536_000,
        batch_size: 10,
        takes_workspace: false,
    },
    HandlerSpec {
        name: "db_write",
        tools: Tools::Listed(&["db_write"]),
        function_timeout_s: 60,
        default_timeout_s: Some(30),
        max_timeout_s: 50,
        batch_size: 10,
        takes_workspace: false,
    },
    HandlerSpec {
        name: "echo",
        tools: Tools::Listed(&["echo"]),
        function_timeout_s: 30,
        default_timeout_s: Some(20),
        max_timeout_s: 25,
        batch_size: 10,
        takes_workspace: false,
    },
];

/// SQS keeps a message invisible for twelve hours at most.
const MAX_VISIBILITY_S: u32 = 43_200;
/// Longest word behind a prefix, in bytes.
const MAX_WORD_BYTES: usize = 64;

impl HandlerSpec {
    /// Name of the queue that feeds the function.
    pub fn queue(&self, prefix: &str) -> String {
        queue_name(prefix, self.name)
    }

    /// Name of the queue for messages that could not be handled.
    pub fn dead_letter_queue(&self, prefix: &str) -> String {
        format!("{}-dlq", self.queue(prefix))
    }

    /// Visibility timeout of the queue in seconds. AWS advises six times the function's timeout, which leaves room for
    /// retries inside the event source.
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

/// The handler with this name.
pub fn handler(name: &str) -> Option<&'static HandlerSpec> {
    HANDLERS.iter().find(|handler| handler.name == name)
}

/// The handler that serves a tool; the error is a sentence for the plan's author.
pub fn handler_for(tool: &str) -> Result<&'static HandlerSpec, String> {
    let unknown = || format!("unknown tool \"{tool}\"; there are {}", names().join(", "));
    HANDLERS.iter().find(|handler| handler.serves(tool)).ok_or_else(unknown)
}

/// Every tool as a plan's author reads it: `codegen`, `manual:<what>`.
pub fn names() -> Vec<String> {
    let of = |handler: &HandlerSpec| match handler.tools {
        Tools::Listed(tools) => tools.iter().map(|&tool| tool.to_owned()).collect(),
        Tools::Prefixed(prefix) => vec![format!("{prefix}<what>")],
    };
    HANDLERS.iter().flat_map(of).collect()
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
        for (tool, name) in [("gate:lint", "gate"), ("manual:a.b_c-1", "manual"), ("codegen", "codegen")] {
            assert_eq!(handler_for(tool).map(|handler| handler.name), Ok(name));
        }
        for bad in ["gate:magic", "gate:", "manual:", "manual:a b", "manual", "Echo", "echo:x", ""] {
            let message = handler_for(bad).unwrap_err();
            assert!(message.starts_with(&format!("unknown tool \"{bad}\"; there are gate:typecheck, ")), "{message}");
            assert!(names().iter().all(|name| message.contains(name)), "{message}");
        }
        assert!(handler_for(&format!("manual:{}", "x".repeat(65))).is_err());
    }

    #[test]
    fn every_tool_is_served_once_and_ends_before_its_function() {
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
