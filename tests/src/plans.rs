//! Plans to post.

use serde_json::{Value, json};

/// `count` echo steps, each after the one before and repeating its output.
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

/// One root, `width` steps beside each other, and one step that joins them.
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

/// `count` roots that nothing joins.
pub fn wide(count: usize) -> Value {
    let steps: Vec<Value> = (0..count).map(|index| after(&format!("s{index}"), &[], json!({ "i": index }))).collect();
    json!({ "goal": "beside each other", "steps": steps })
}

/// An echo step, a person's decision, and an echo step behind it.
pub fn approval(expires_after_s: u32) -> Value {
    let mut gate = step("ask", "manual:deploy", json!({ "reason": "may it be deployed?" }));
    gate["timeout_s"] = json!(expires_after_s);
    json!({ "goal": "an approval", "steps": [
        step("build", "echo", json!({ "v": 1 })),
        gate,
        step("deploy", "echo", json!({ "decision": "${{ steps.ask.outputs.decision }}" })),
    ] })
}

/// A step of a plan that is ordered by its list.
pub fn step(name: &str, tool: &str, inputs: Value) -> Value {
    json!({ "name": name, "tool": tool, "inputs": inputs })
}

/// An echo step of a DAG.
pub fn after(name: &str, parents: &[&str], inputs: Value) -> Value {
    json!({ "name": name, "tool": "echo", "inputs": inputs, "depends_on": parents })
}
