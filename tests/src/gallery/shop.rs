//! The plans of the gallery: a change to a shop, its checks, and its delivery.

use serde_json::{Value, json};

const DEFINITION: &str = r#"presets = false
tests = ["test/**"]
sources = ["src/**"]

[gates.typecheck]
command = "tsc --noEmit"
reports = [{ format = "tsc", path = "stdout" }]

[gates.lint]
command = "eslint --format json src test"
reports = [{ format = "eslint", path = "stdout" }]

[gates.unit]
command = "vitest run --coverage"
reports = [
  { format = "junit", path = "$NOFX_REPORTS/junit.xml" },
  { format = "lcov", path = "$NOFX_REPORTS/lcov.info" },
]
coverage = { threshold = 0.9 }
"#;

const MONEY: &str = "export interface Money {\n  readonly cents: number;\n  readonly currency: string;\n}\n\n\
export function money(cents: number, currency = \"EUR\"): Money {\n  return { cents, currency };\n}\n";

const MONEY_TEST: &str = "import { expect, it } from \"vitest\";\n\nimport { money } from \"../src/money.js\";\n\n\
it(\"adds cents\", () => {\n  expect(money(2 + 3)).toEqual(money(5));\n});\n\n\
it(\"keeps the currency\", () => {\n  expect(money(1, \"CHF\").currency).toBe(\"CHF\");\n});\n";

const SHIPPING: &str = "import { money, type Money } from \"./money.js\";\n\n\
/** The cost of a delivery: nothing from 50 euros on. */\n\
export function shipping(subtotal: Money): Money {\n  if (subtotal.cents >= 5_000) {\n\
\u{20}   return money(0, subtotal.currency);\n  }\n  return money(495, subtotal.currency);\n}\n";

const SHIPPING_TEST: &str = "import { expect, it } from \"vitest\";\n\nimport { money } from \"../src/money.js\";\n\
import { shipping } from \"../src/shipping.js\";\n\nit(\"delivers large orders for nothing\", () => {\n\
\u{20} expect(shipping(money(5_000))).toEqual(money(0));\n});\n";

/// A step with parents.
pub fn step(name: &str, tool: &str, parents: &[&str], inputs: Value) -> Value {
    json!({ "name": name, "tool": tool, "depends_on": parents, "inputs": inputs })
}

/// A step that is not repeated after a failure.
pub fn once(mut step: Value) -> Value {
    step["retry"] = json!({ "max_attempts": 1 });
    step
}

fn codegen(name: &str, parents: &[&str], prompt: &str, file: &str) -> Value {
    step(name, "codegen", parents, json!({ "prompt": prompt, "name": file }))
}

/// A gate of what the step `write` made.
fn gate(name: &str, parent: &str) -> Value {
    let inputs = json!({ "workspace": "${{ steps.write.outputs.workspace }}", "base": "${{ steps.checkout.outputs.workspace }}" });
    step(name, &format!("gate:{name}"), &[parent], inputs)
}

fn checkout() -> Value {
    let files = json!({ "nofx.toml": DEFINITION, "src/money.ts": MONEY, "test/money.test.ts": MONEY_TEST });
    step("checkout", "workspace:write", &[], json!({ "files": files }))
}

fn write(files: Value) -> Value {
    let inputs = json!({ "workspace": "${{ steps.checkout.outputs.workspace }}", "files": files });
    step("write", "workspace:write", &["checkout"], inputs)
}

fn write_shipping() -> Value {
    write(json!({ "src/shipping.ts": SHIPPING, "test/shipping.test.ts": SHIPPING_TEST }))
}

/// Checks side by side, then notes, a decision, and what it starts.
pub fn delivery() -> Vec<Value> {
    let reason = "Can the notes be sent, and the rates be written?";
    let rates = json!({ "table": "public.rates", "op": "insert", "values": [
        { "zone": "DE", "cents": 495, "free_from_cents": 5_000 }, { "zone": "AT", "cents": 690, "free_from_cents": 8_000 }] });
    vec![
        checkout(),
        write_shipping(),
        gate("typecheck", "write"),
        gate("lint", "write"),
        gate("unit", "write"),
        gate("secrets", "write"),
        codegen("review", &["write"], "Be a second pair of eyes on the new delivery costs.", "review.md"),
        codegen("notes", &["typecheck", "lint", "unit"], "Release notes for the new delivery costs.", "notes.md"),
        step("release", "manual:release", &["notes", "review", "secrets"], json!({ "reason": reason })),
        step("rates", "db_write", &["release"], rates),
        codegen("announce", &["release"], "Announce the new delivery costs.", "announcement.md"),
    ]
}

/// The checks, one after another.
pub fn checks() -> Vec<Value> {
    vec![
        checkout(),
        write_shipping(),
        gate("typecheck", "write"),
        gate("lint", "typecheck"),
        gate("unit", "lint"),
        codegen("announce", &["unit"], "Announce the new delivery costs.", "announcement.md"),
    ]
}

/// A change that makes tests faster by deleting one and asking for less.
pub fn weaker_checks() -> Vec<Value> {
    let definition = DEFINITION.replace("0.9", "0.5");
    let test = MONEY_TEST.split("\n\nit(\"keeps").next().unwrap_or_default();
    let files = json!({ "nofx.toml": definition, "test/money.test.ts": format!("{test}\n") });
    vec![
        checkout(),
        write(files),
        gate("typecheck", "write"),
        gate("unit", "write"),
        codegen("notes", &["typecheck", "unit"], "Release notes for the faster tests.", "notes.md"),
    ]
}

/// A change of rows that a person approves.
pub fn price_change() -> Vec<Value> {
    let update = |name: &str, zone: &str, cents: u32| {
        let inputs = json!({ "table": "public.rates", "op": "update", "where": { "zone": zone },
                             "set": { "cents": cents }, "expected_rows": 1 });
        step(name, "db_write", &["approve"], inputs)
    };
    let reason = "Deliveries to France get cheaper, and those to Italy dearer. Is that what we want?";
    vec![
        step("read the contract", "echo", &[], json!({ "carrier": "Fast & Sons", "valid_from": "2026-12-01" })),
        step("approve", "manual:prices", &["read the contract"], json!({ "reason": reason })),
        update("France", "FR", 790),
        update("Italy", "IT", 990),
        step("done", "echo", &["France", "Italy"], json!({ "rows": "${{ steps.France.outputs.rows }}" })),
    ]
}

/// A decision about a text, with a write further down.
pub fn later_write() -> Vec<Value> {
    let inputs = json!({ "table": "public.rates", "op": "update", "where": { "zone": "CH" }, "set": { "cents": 990 } });
    vec![
        step("ask", "manual:text", &[], json!({ "reason": "Is this text about the summer prices good?" })),
        step("keep the text", "echo", &["ask"], json!({})),
        step("Switzerland", "db_write", &["keep the text"], inputs),
        codegen("announce", &["Switzerland"], "Announce the summer prices.", "announcement.md"),
    ]
}

/// Texts of each kind, and a picture.
pub fn documents() -> Vec<Value> {
    vec![
        checkout(),
        codegen("notes", &[], "Release notes for the new delivery costs.", "notes.md"),
        codegen("summary", &[], "Sum the orders of this week up as JSON.", "summary.json"),
        codegen("express", &["checkout"], "Write express delivery in TypeScript.", "express.ts"),
        step("chart", "echo", &["summary"], json!({})),
        step(
            "all",
            "echo",
            &["notes", "summary", "express", "chart"],
            json!({
            "notes": "${{ steps.notes.outputs.sha256 }}", "list": [1, 2.5, null, true, { "deep": ["a", "b"] }] }),
        ),
    ]
}

/// Steps side by side between two others.
pub fn fan(width: usize) -> Vec<Value> {
    let name = |index: usize| format!("package {:02}", index + 1);
    let mut steps = vec![step("list", "echo", &[], json!({ "packages": width }))];
    steps.extend((0..width).map(|index| step(&name(index), "echo", &["list"], json!({ "index": index }))));
    let names: Vec<String> = (0..width).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    steps.push(step("sum up", "echo", &names, json!({})));
    steps
}
