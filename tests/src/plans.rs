//! Plans for tests.

use serde_json::{Value, json};

/// `count` echo steps in a chain. Each repeats the output of the previous one.
pub fn chain(count: usize) -> Value {
    let steps: Vec<Value> = (0..count)
        .map(|index| {
            let said = match index {
                0 => json!("hello"),
                _ => json!(format!("${{{{ steps.s{}.outputs.said }}}}", index - 1)),
            };
            step(&format!("s{index}"), "echo", json!({ "said": said, "index": index }))
        })
        .collect();
    json!({ "goal": "a chain", "steps": steps })
}

/// A root, `width` steps side by side, and a step that joins them.
pub fn diamond(width: usize) -> Value {
    let middle: Vec<String> = (0..width).map(|index| format!("m{index}")).collect();
    let mut steps = vec![after("root", &[], json!({ "n": 1 }))];
    for name in &middle {
        steps.push(after(name, &["root"], json!({ "n": "${{ steps.root.outputs.n }}", "me": name })));
    }
    let parents: Vec<&str> = middle.iter().map(String::as_str).collect();
    let last = format!("${{{{ steps.{}.outputs.me }}}}", middle[width - 1]);
    steps.push(after("join", &parents, json!({ "last": last })));
    json!({ "goal": "a diamond", "steps": steps })
}

/// `count` steps side by side.
pub fn wide(count: usize) -> Value {
    let steps: Vec<Value> = (0..count).map(|index| after(&format!("s{index}"), &[], json!({ "i": index }))).collect();
    json!({ "goal": "side by side", "steps": steps })
}

/// An echo step, a manual gate, and another echo step.
pub fn approval(expires_after_s: u32) -> Value {
    let mut gate = step("ask", "manual:deploy", json!({ "reason": "may it be deployed?" }));
    gate["timeout_s"] = json!(expires_after_s);
    json!({ "goal": "an approval", "steps": [
        step("build", "echo", json!({ "v": 1 })),
        gate,
        step("deploy", "echo", json!({ "decision": "${{ steps.ask.outputs.decision }}" })),
    ] })
}

/// A step of a plan without `depends_on`.
pub fn step(name: &str, tool: &str, inputs: Value) -> Value {
    json!({ "name": name, "tool": tool, "inputs": inputs })
}

/// An echo step with parents.
pub fn after(name: &str, parents: &[&str], inputs: Value) -> Value {
    json!({ "name": name, "tool": "echo", "inputs": inputs, "depends_on": parents })
}
