//! Which mutants there are, that each is sane, and what their results mean.

use std::collections::BTreeSet;

use super::MutantResult::{BuildFailed, Killed, Survived, TimedOut};
use super::*;

fn all_lines(source: &str) -> Vec<u32> {
    (1..=u32::try_from(source.lines().count()).unwrap()).collect()
}

fn every(file: &str, source: &str) -> Vec<Mutant> {
    let language = Language::of(file).unwrap();
    let mut mutants = mutate(file, source, language, &all_lines(source), usize::MAX, 1);
    mutants.sort_by_key(|mutant| (mutant.start, mutant.end));
    mutants
}

/// `original -> replacement` of every mutant.
fn of(file: &str, source: &str) -> Vec<String> {
    every(file, source).iter().map(|mutant| format!("{} -> {}", mutant.original, mutant.replacement)).collect()
}

fn has(file: &str, source: &str, expected: &[&str]) {
    let found = of(file, source);
    for change in expected {
        assert!(found.iter().any(|one| one == change), "{source}: no {change} in {found:#?}");
    }
}

#[test]
fn operators_of_javascript_are_changed() {
    has("a.ts", "const x = a === b;", &["=== -> !=="]);
    has("a.ts", "while (a < b) {}", &["< -> <=", "< -> >="]);
    has("a.ts", "const x = a >= b && c || !d;", &[">= -> >", "&& -> ||", "|| -> &&", "! -> "]);
    has("a.ts", "const x = a + b - c * d / e % f;", &["+ -> -", "- -> +", "* -> /", "/ -> *", "% -> *"]);
    has("a.ts", "i++; n += 2;", &["++ -> --", "+= -> -=", "2 -> 3"]);
    has("a.ts", "const x = a?.b?.(c)?.[0];", &["?. -> .", "?. -> "]);
    has("a.ts", "if (a.ok) { go(); }", &["(a.ok) -> (!(a.ok))"]);
    has("a.ts", "const on = true; const n = 1; const r = 0.5;", &["true -> false", "1 -> 0", "0.5 -> 1.5"]);
}

#[test]
fn returns_get_an_empty_value_of_their_kind() {
    has("a.ts", "function f() {\n  return a.b(c);\n}", &["a.b(c) -> undefined"]);
    has("a.ts", "function f() {\n  return \"x\";\n}", &["\"x\" -> \"\""]);
    has("a.ts", "function f() {\n  return [1, 2];\n}", &["[1, 2] -> []"]);
    has("a.ts", "function f() {\n  return { a: b };\n}", &["{ a: b } -> {}"]);
    has("a.js", "function f() {\n  return a\n    .b()\n  go()\n}", &["a\n    .b() -> undefined"]);
    has("a.py", "def f():\n    return a.b(\n        c,\n    )\n", &["a.b(\n        c,\n    ) -> None"]);
    assert!(of("a.ts", "function f() {\n  return;\n}").is_empty());
    assert!(of("a.ts", "function f() { return undefined; }").is_empty());
    assert!(of("a.py", "def f():\n    return None\n").is_empty());
}

#[test]
fn calls_whose_value_nobody_uses_are_removed() {
    has("a.ts", "function f() {\n  await db.save(x, { a: 1 });\n  return;\n}", &["await db.save(x, { a: 1 }) -> "]);
    has(
        "a.py",
        "def f():\n    items.append(\n        x\n    )\n    return\n",
        &["items.append(\n        x\n    ) -> pass"],
    );
    for source in ["const x = f();", "console.log(a);", "if (a) {\n}", "f(a)\n  .b();"] {
        assert!(of("a.ts", source).iter().all(|change| !change.ends_with("-> ")), "{source}: {:?}", of("a.ts", source));
    }
}

#[test]
fn operators_of_python_are_changed() {
    has("a.py", "x = a == b and not c or d is e\n", &["== -> !=", "and -> or", "not -> ", "or -> and", "is -> is not"]);
    has(
        "a.py",
        "if a < 3:\n    pass\nelif b:\n    pass\n",
        &["a < 3 -> not (a < 3)", "b -> not (b)", "< -> <=", "3 -> 4"],
    );
    has("a.py", "x = a // b ** c\ny = True\nz = k in d\n", &["// -> *", "** -> *", "True -> False", "in -> not in"]);
    assert!(of("a.py", "y = [\n    x\n    for x in xs\n    if x\n]\nz: T\n").is_empty());
    assert!(of("a.py", "for x in xs:\n    pass\n").is_empty());
    assert!(of("a.py", "y = [x for x in xs]\n").is_empty());
    assert!(
        of("a.py", "f(*args, **kwargs)\nx = \"%s\" % y\n")
            .iter()
            .all(|change| !change.contains('%') && !change.contains("* -> "))
    );
}

#[test]
fn operators_of_rust_are_changed() {
    has("a.rs", "fn f() -> bool { a == b && c < d || !e }", &["== -> !=", "&& -> ||", "< -> <=", "! -> "]);
    assert!(of("a.rs", "use a::b;\n#[cfg(feature = \"x\")]\nfn f<'a>(x: &'a Vec<u8>, y: [u8; 4]) {}\n").is_empty());
    assert!(of("a.rs", "fn f() { println!(\"a == b {}\", 'x', r#\"a < b\"#); /* a == /* b */ c == d */ }").is_empty());
}

#[test]
fn strings_comments_types_and_imports_are_not_changed() {
    for (file, source) in [
        (
            "a.ts",
            "import a, { b } from \"x\";\nimport type { C } from './c';\nexport { d } from \"d\";\nexport * from \"e\";\n",
        ),
        ("a.ts", "const s = \"a === b\" + 'c && d' + `e || f`;\n// a === b\n/* c < d\n e === f */\n"),
        (
            "a.ts",
            "type A = 1 | 2 | true;\ninterface B {\n  a: true;\n  b: 3;\n}\nexport type C<T> = T extends true ? 1 : 0;\n",
        ),
        (
            "a.ts",
            "const x = /a===b&&c/.test;\nconst m: Map<string, Array<number>> = y;\nfunction f(a?: true): a is C { }\n",
        ),
        ("a.ts", "const x = y!;\nconst z = y as unknown as B<true>;\n"),
        (
            "a.py",
            "\"\"\"a == b\n1 < 2\"\"\"\nimport a\nfrom b import (\n    c,\n)\n# x == y\n@decorated(1)\ndef f(): ...\n",
        ),
        ("a.py", "if __name__ == \"__main__\":\n    pass\nx = f\"{a == 1}\"\n"),
        ("a.tsx", "const x = <p className=\"a\">1 === 2 && don't</p>;\n"),
    ] {
        let found = of(file, source);
        let found: Vec<_> = found.iter().filter(|change| !change.starts_with("+ ->")).collect();
        assert!(found.is_empty(), "{source}: {found:?}");
    }
}

#[test]
fn code_in_templates_and_jsx_is_changed() {
    has("a.ts", "const s = `x ${a === b ? `y ${c && d}` : \"\"} z`;", &["=== -> !==", "&& -> ||"]);
    let jsx = "const x = (\n  <ul title=\"it's\">\n    it's {items.length > 0 && <li key={i + 1}>a && b</li>}\n    <br />\n    <></>\n  </ul>\n);\nconst y = a === b;\n";
    has("a.tsx", jsx, &["> -> >=", "&& -> ||", "+ -> -", "=== -> !=="]);
    assert_eq!(of("a.tsx", jsx).iter().filter(|change| change.starts_with("&&")).count(), 1);
    has(
        "a.tsx",
        "const f = <T,>(x: T) => x === y;\nconst g = <T extends A>(x: T) => x < 3;\n",
        &["=== -> !==", "< -> <="],
    );
}

#[test]
fn every_mutant_differs_applies_and_has_its_place() {
    for (file, source) in [("a.ts", TYPESCRIPT), ("a.py", PYTHON)] {
        let mutants = every(file, source);
        assert!(mutants.len() > 15, "{file}: {}", mutants.len());
        for mutant in &mutants {
            let changed = mutant.apply(source).unwrap();
            assert_ne!(changed, source);
            let line = source.lines().nth(mutant.line as usize - 1).unwrap();
            let first = mutant.original.lines().next().unwrap();
            assert_eq!(
                line.get(mutant.column as usize - 1..).map(|rest| rest.starts_with(first)),
                Some(true),
                "{mutant:?}"
            );
            assert_eq!(mutant.end_line > mutant.line, mutant.original.contains('\n'));
        }
        let kinds: BTreeSet<_> = mutants.iter().map(|mutant| mutant.kind).collect();
        assert!(kinds.len() >= 7, "{file}: {kinds:?}");
        assert_eq!(mutants[0].apply("something else"), None);
    }
}

#[test]
fn the_choice_is_bounded_spread_over_lines_and_always_the_same() {
    let source = "const a = b === c && d < e;\n".repeat(50);
    let chosen = |limit, seed| mutate("a.ts", &source, Language::TypeScript, &all_lines(&source), limit, seed);
    let lines: BTreeSet<u32> = chosen(40, 7).iter().map(|mutant| mutant.line).collect();
    assert_eq!((chosen(40, 7).len(), lines.len()), (40, 40));
    assert_eq!(chosen(40, 7), chosen(40, 7));
    assert_ne!(chosen(40, 7), chosen(40, 8));
    let two = mutate("a.ts", &source, Language::TypeScript, &[3, 5], 100, 7);
    assert!(two.iter().all(|mutant| [3, 5].contains(&mutant.line)) && two.len() >= 6);
    let both =
        [chosen(40, 7), two.into_iter().map(|mutant| Mutant { file: "b.ts".into(), ..mutant }).collect()].concat();
    let files: Vec<String> = choose(both, 42, 1).into_iter().map(|mutant| mutant.file).collect();
    assert_eq!((files.len(), files.iter().filter(|file| *file == "b.ts").count()), (42, 2));
}

#[test]
fn a_source_that_is_not_understood_has_no_mutants() {
    for source in
        ["const a = \"x === y;\n", "f((a === b);", "const a = `b === ${c;", "/* a === b", "const a = b === c }"]
    {
        assert!(of("a.ts", source).is_empty(), "{source}");
    }
    assert!(of("a.ts", &"(".repeat(100_000)).is_empty());
    assert_eq!((Language::of("a.d.ts"), Language::of("a.css"), Language::of("Makefile")), (None, None, None));
}

#[test]
fn results_are_judged() {
    let mutant = every("a.ts", "const x = a === b;").remove(0);
    let tried = |results: &[MutantResult]| -> Vec<Tried> {
        results.iter().map(|result| Tried { mutant: mutant.clone(), result: *result }).collect()
    };
    let code = |results: &[MutantResult], max| match judge(&tried(results), max) {
        Ok(reason) => reason.code,
        Err(failure) => failure.reason.code,
    };
    assert_eq!(code(&[], 0), "nothing_to_mutate");
    assert_eq!(code(&[BuildFailed, BuildFailed], 0), "no_mutant_built");
    assert_eq!(code(&[TimedOut, TimedOut, BuildFailed], 0), "mutants_timed_out");
    assert_eq!(code(&[Killed, TimedOut, BuildFailed], 0), "mutants_killed");
    assert_eq!((code(&[Killed, Survived], 0), code(&[Killed, Survived], 1)), ("mutants_survived", "mutants_killed"));
    let failure = judge(&tried(&[Killed, Survived]), 0).unwrap_err();
    assert_eq!(failure.findings.first[0].message, "no test fails when `===` becomes `!==`");
    assert!(
        failure.reason.message.ends_with("a.ts:1: no test fails when `===` becomes `!==`"),
        "{}",
        failure.reason.message
    );
}

const TYPESCRIPT: &str = r#"import { Cart } from "./cart";

/** The price in cents, a === b. */
export async function total(cart: Cart, rate: number): Promise<number> {
  let sum = 0;
  for (let i = 0; i < cart.items.length; i++) {
    const item = cart.items[i];
    if (item?.active && !item.free) {
      sum += item.price * item.count;
    } else if (item.price >= 100 || rate > 0.5) {
      sum = sum - 1;
    }
  }
  await cart.save(sum);
  const text = `total ${sum === 0 ? "none" : sum + 1}`;
  return {
    sum,
    text,
  }.sum;
}
"#;

const PYTHON: &str = r#"from cart import Cart


def total(cart: Cart, rate: float = 0.5) -> int:
    """The price in cents, a == b."""
    total = 0
    for item in cart.items:
        if item.active and not item.free:
            total += item.price * item.count
        elif item.price >= 100 or rate > 0.5:
            total = total - 1
        cart.save(
            total,
        )
    return total if total != 0 else 1
"#;
