//! Tools and the handlers that serve them.

/// A family of tools: one Lambda function and one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerSpec {
    /// Name of the function, of its crate and, after `step-ready-`, of its queue.
    pub name: &'static str,
    /// Timeout of the Lambda function in seconds.
    pub function_timeout_s: u32,
    /// Timeout of a step that names none; `None` when only the invocation limits it.
    pub default_timeout_s: Option<u32>,
    /// Most that a plan may ask for in `timeout_s`.
    pub max_timeout_s: u32,
    /// Most messages in one invocation.
    pub batch_size: u32,
}

/// Every handler. A step's timeout leaves the invocation some seconds to record the end.
pub const HANDLERS: [HandlerSpec; 5] = [
    HandlerSpec {
        name: "gate",
        function_timeout_s: 600,
        default_timeout_s: Some(300),
        max_timeout_s: 580,
        batch_size: 1,
    },
    HandlerSpec {
        name: "codegen",
        function_timeout_s: 300,
        default_timeout_s: Some(240),
        max_timeout_s: 290,
        batch_size: 1,
    },
    // A manual step's timeout is how long its gate waits: up to a year.
    HandlerSpec {
        name: "manual",
        function_timeout_s: 30,
        default_timeout_s: None,
        max_timeout_s: 31_536_000,
        batch_size: 10,
    },
    HandlerSpec {
        name: "db_write",
        function_timeout_s: 60,
        default_timeout_s: Some(30),
        max_timeout_s: 50,
        batch_size: 10,
    },
    HandlerSpec {
        name: "echo",
        function_timeout_s: 30,
        default_timeout_s: Some(20),
        max_timeout_s: 25,
        batch_size: 10,
    },
];

/// The gates that exist.
pub const GATES: [&str; 3] = ["gate:typecheck", "gate:lint", "gate:unit"];

/// The handler with this name.
pub fn handler(name: &str) -> Option<&'static HandlerSpec> {
    HANDLERS.iter().find(|handler| handler.name == name)
}

/// The handler that serves a tool; the error is a sentence for the plan's author.
pub fn handler_for(tool: &str) -> Result<&'static HandlerSpec, String> {
    let name = match tool.split_once(':') {
        Some(("gate", _)) if GATES.contains(&tool) => "gate",
        Some(("gate", _)) => return Err(format!("unknown gate \"{tool}\"; there are {}", GATES.join(", "))),
        Some(("manual", what)) if is_word(what) => "manual",
        None if matches!(tool, "codegen" | "db_write" | "echo") => tool,
        _ => {
            return Err(format!(
                "unknown tool \"{tool}\"; there are {}, manual:<what>, codegen, db_write, echo",
                GATES.join(", ")
            ));
        }
    };
    handler(name).ok_or_else(|| format!("no handler serves \"{tool}\""))
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}
