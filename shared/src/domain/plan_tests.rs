use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn problems(plan: &Value) -> Vec<(String, String)> {
    match parse(plan, &Limits::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| (problem.path, problem.message)).collect(),
    }
}

fn one_problem(plan: &Value, path: &str, words: &str) {
    let problems = problems(plan);
    assert!(
        problems.iter().any(|(at, message)| at == path && message.contains(words)),
        "no problem at {path} with \"{words}\" in {problems:?}"
    );
}

fn plan(steps: impl Into<Value>) -> Value {
    json!({"goal": "g", "steps": steps.into()})
}

#[test]
fn without_depends_on_steps_run_in_the_order_listed() {
    let steps =
        json!([{"name": "a", "tool": "echo"}, {"name": "b", "tool": "gate:lint"}, {"name": "c", "tool": "manual:x"}]);
    let plan = parse(&plan(steps), &Limits::default()).unwrap();
    let parents: Vec<_> = plan.steps.iter().map(|step| step.parents.clone()).collect();
    assert_eq!(parents, [vec![], vec![0], vec![1]]);
    assert_eq!(plan.steps[1].handler, "gate");
}

#[test]
fn one_empty_depends_on_makes_the_plan_a_dag() {
    let steps = json!([{"name": "a", "tool": "echo"}, {"name": "b", "tool": "echo", "depends_on": []}]);
    let plan = parse(&plan(steps), &Limits::default()).unwrap();
    assert!(plan.steps.iter().all(|step| step.parents.is_empty()));
}

#[test]
fn every_rejection_names_its_place() {
    let step = |name: &str| json!({"name": name, "tool": "echo"});
    one_problem(&json!([]), "plan", "object");
    one_problem(&json!({"goal": "g"}), "plan.steps", "missing");
    one_problem(&json!({"goal": "g", "steps": {}}), "plan.steps", "list");
    one_problem(&plan(json!([])), "plan.steps", "empty");
    one_problem(&json!({"steps": [step("a")]}), "plan.goal", "missing");
    one_problem(&plan(json!([step(" ")])), "plan.steps[0].name", "empty");
    one_problem(&plan(json!([step("a"), step("a")])), "plan.steps[1].name", "plan.steps[0]");
    one_problem(&plan(json!([{"name": "a", "tool": "bash"}])), "plan.steps[0].tool", "unknown tool \"bash\"");
    one_problem(&plan(json!([{"name": "a", "tool": "gate:"}])), "plan.steps[0].tool", "unknown tool");
    one_problem(&plan(json!([{"name": "a", "tool": "manual:"}])), "plan.steps[0].tool", "unknown tool");
    one_problem(
        &plan(json!([{"name": "a", "tool": "echo", "depends_on": ["b"]}])),
        "plan.steps[0].depends_on[0]",
        "no step has the name \"b\"",
    );
    one_problem(
        &plan(json!([{"name": "a", "tool": "echo", "depends_on": ["a"]}])),
        "plan.steps[0].depends_on[0]",
        "itself",
    );
    one_problem(
        &plan(json!([
            {"name": "a", "tool": "echo", "depends_on": ["c"]},
            {"name": "b", "tool": "echo", "depends_on": ["a"]},
            {"name": "c", "tool": "echo", "depends_on": ["b"]}
        ])),
        "plan.steps[0].depends_on",
        "cycle",
    );
    one_problem(
        &plan(json!([{"name": "a", "tool": "echo", "timeout_s": 4000}])),
        "plan.steps[0].timeout_s",
        "the most that echo can give",
    );
    one_problem(
        &plan(json!([{"name": "a", "tool": "echo", "retry": {"max_attempts": 0}}])),
        "plan.steps[0].retry.max_attempts",
        "1 to 20",
    );
    one_problem(
        &plan(json!([{"name": "a", "tool": "echo", "dependsOn": []}])),
        "plan.steps[0].dependsOn",
        "not a known field",
    );
    one_problem(&json!({"goal": "g", "steps": [step("a")], "workspace": {}}), "plan.workspace.archive", "missing");
}

#[test]
fn a_plan_cannot_use_the_gate_that_only_the_system_creates() {
    for tool in ["manual:gate-change", "manual:Gate-Change"] {
        let only = plan(json!([{"name": "a", "tool": tool}]));
        one_problem(&only, "plan.steps[0].tool", "only the system creates it");
    }
    assert!(
        problems(&plan(json!([{"name": "a", "tool": "manual:gate-change-2"}, {"name": "b", "tool": "gate:unit"}])))
            .is_empty()
    );
}

#[test]
fn texts_that_people_read_before_they_decide_have_no_hidden_characters() {
    let step = |name: &str| json!([{"name": name, "tool": "echo"}]);
    let goal = |goal: &str| json!({"goal": goal, "steps": step("a")});
    let asks = |tool: &str, reason: &str| plan(json!([{"name": "a", "tool": tool, "inputs": {"reason": reason}}]));
    for (hidden, number) in [("\u{202e}", "U+202E"), ("\u{200b}", "U+200B"), ("\u{1b}[2J", "U+001B"), ("\r", "U+000D")]
    {
        let text = format!("pay{hidden}3");
        one_problem(&goal(&text), "plan.goal", &format!("contains {number} as its character 4"));
        one_problem(&plan(step(&text)), "plan.steps[0].name", number);
        one_problem(&asks("manual:pay", &text), "plan.steps[0].inputs.reason", number);
        assert!(problems(&asks("echo", &text)).is_empty(), "data, which pages show with its hidden characters");
    }
    let lines = "first\r\nsecond\n\tthird";
    assert!(problems(&goal(lines)).is_empty() && problems(&asks("manual:pay", lines)).is_empty());
    one_problem(&plan(step("a\nb")), "plan.steps[0].name", "U+000A");
}

#[test]
fn a_gate_that_takes_longer_than_lambda_allows_needs_a_deployment_with_long_gates() {
    let gate = |timeout_s: u32| plan(json!([{"name": "a", "tool": "gate:e2e", "timeout_s": timeout_s}]));
    let with = Limits { long_gates: true, ..Limits::default() };
    let read = |timeout_s: u32, limits: &Limits| {
        let body = gate(timeout_s);
        parse(&body, limits).map(|plan| (plan.steps[0].handler, plan.steps[0].timeout_s))
    };
    for limits in [Limits::default(), with] {
        assert_eq!(read(580, &limits), Ok(("gate", Some(580))));
    }
    for timeout_s in [581, 21_600] {
        assert_eq!(read(timeout_s, &with), Ok(("gate_long", Some(timeout_s))));
        let found = read(timeout_s, &Limits::default()).unwrap_err();
        assert_eq!((found.len(), found[0].path.as_str()), (1, "plan.steps[0].timeout_s"));
        let message = &found[0].message;
        assert!(message.contains("from 1 to 580") && message.contains("LONG_GATES=true"), "{message}");
    }
    let most = |limits: &Limits| read(21_601, limits).unwrap_err()[0].message.clone();
    assert!(most(&with).contains("from 1 to 21600, the most"), "{}", most(&with));
    assert!(!most(&Limits::default()).contains("LONG_GATES"), "{}", most(&Limits::default()));
    // Only gates have a long variant.
    one_problem(
        &plan(json!([{"name": "a", "tool": "codegen", "timeout_s": 3600}])),
        "plan.steps[0].timeout_s",
        "from 1 to 290, the most that codegen can give",
    );
}

#[test]
fn a_reference_must_lead_upstream() {
    let steps = json!([
        {"name": "a", "tool": "echo", "depends_on": []},
        {"name": "b", "tool": "echo", "depends_on": []},
        {"name": "c", "tool": "echo", "depends_on": ["b"], "inputs": {"x": "${{ steps.a.outputs.y }}"}}
    ]);
    one_problem(&plan(steps), "plan.steps[2].inputs", "not upstream");
    let steps = json!([{"name": "a", "tool": "echo", "inputs": {"x": "${{ steps.zzz.outputs.y }}"}}]);
    one_problem(&plan(steps), "plan.steps[0].inputs", "no step has that name");
    let steps = json!([{"name": "a", "tool": "echo"}, {"name": "b", "tool": "echo"},
        {"name": "c", "tool": "echo", "inputs": {"x": "${{ steps.a.outputs.y }}"}}]);
    assert_eq!(problems(&plan(steps)), []);
}

#[test]
fn a_plan_over_its_limits_is_refused() {
    let many: Vec<_> = (0..1001).map(|i| json!({"name": format!("s{i}"), "tool": "echo"})).collect();
    one_problem(&plan(json!(many)), "plan.steps", "1001 steps");
    let inputs = json!({"x": "y".repeat(300 << 10)});
    one_problem(&plan(json!([{"name": "a", "tool": "echo", "inputs": inputs}])), "plan.steps[0].inputs", "bytes");
}

proptest! {
    /// An accepted plan can run: names are unique, parents exist, and an order of execution exists.
    #[test]
    fn an_accepted_plan_has_an_order_of_execution(
        edges in prop::collection::vec((0usize..8, 0usize..8), 0..16), size in 1usize..8,
    ) {
        let steps: Vec<_> = (0..size).map(|child| {
            let parents: Vec<_> = edges.iter().filter(|(_, to)| *to == child)
                .map(|(from, _)| format!("s{from}")).collect();
            json!({"name": format!("s{child}"), "tool": "echo", "depends_on": parents})
        }).collect();
        match parse(&plan(json!(steps)), &Limits::default()) {
            Ok(plan) => {
                let mut done = HashSet::new();
                for _ in 0..size {
                    for (index, step) in plan.steps.iter().enumerate() {
                        if step.parents.iter().all(|parent| done.contains(parent)) {
                            done.insert(index);
                        }
                    }
                }
                prop_assert_eq!(done.len(), size);
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }

    /// No input makes the reader panic.
    #[test]
    fn any_json_is_read_without_a_panic(text in "[\\[\\]{}\":,a-z0-9. $]{0,80}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = parse(&value, &Limits::default());
            let _ = parse(&plan(json!([value])), &Limits::default());
        }
    }
}

/// 1,000 steps, `edges_each` dependencies for each, and references.
fn at_the_limits(edges_each: usize) -> Value {
    let steps: Vec<_> = (0..1_000_usize)
        .map(|index| {
            let parents: Vec<_> = (index.saturating_sub(edges_each)..index).map(|at| format!("s{at}")).collect();
            let refs: Vec<_> = (0..index.min(10)).map(|at| format!("${{{{ steps.s{at}.outputs.x }}}}")).collect();
            json!({"name": format!("s{index}"), "tool": "echo", "inputs": {"refs": refs}, "depends_on": parents})
        })
        .collect();
    plan(steps)
}

#[test]
fn too_many_dependencies_are_refused_before_each_is_checked() {
    let many = at_the_limits(200);
    let start = std::time::Instant::now();
    one_problem(&many, "plan.steps", "has 179900 dependencies; at most 10000 are accepted");
    let largest = at_the_limits(10);
    assert_eq!(problems(&largest), []);
    // Linear time takes some hundredths of this without optimization. Checking each dependency took 12 to 21 s.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn a_name_that_a_url_cannot_contain_is_refused() {
    for name in [".", ".."] {
        one_problem(&plan(json!([{"name": name, "tool": "echo"}])), "plan.steps[0].name", "a URL cannot");
    }
}

#[test]
fn nul_in_inputs_is_refused_with_its_path() {
    let steps = json!([{"name": "a", "tool": "echo", "inputs": {"list": [{"k": "x\0"}]}}]);
    one_problem(&plan(steps), "plan.steps[0].inputs.list[0].k", "NUL");
    let steps = json!([{"name": "a", "tool": "echo", "inputs": {"k\0": 1}}]);
    one_problem(&plan(steps), "plan.steps[0].inputs.k\0", "NUL");
}

#[test]
fn malformed_references_under_long_keys_stay_small() {
    let texts = vec!["${{"; 20_000];
    let steps = json!([{"name": "a", "tool": "echo", "inputs": {"k".repeat(100_000): texts}}]);
    let problems = problems(&plan(steps));
    let bytes: usize = problems.iter().map(|(path, message)| path.len() + message.len()).sum();
    assert!(!problems.is_empty() && bytes < 1 << 20, "{bytes} bytes");
}
