//! Tests of the base that the change deletes, skips or empties.
//!
//! A test has stayed if the change has one with its name, wherever it is, or a new one that does the same: so renamed,
//! moved, reformatted, merged, split and parametrised tests are no findings. A test that is deleted together with what
//! it tests is none either: it could not compile. See [`dead`].

mod body;
mod collect;
mod dead;
mod go;
mod javascript;
mod left_out;
mod matching;
mod python;
mod replaced;
mod rows;
mod runner;
mod rust;

use super::change::Changes;
use super::finding::{Weakening, WeakeningKind};
use crate::definition::Definition;
use crate::snapshot::Snapshot;

pub use collect::Case;
pub use rows::rows_come_from_elsewhere;

/// What a test does so that its result means less. Counted: a kept test may have had it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trick {
    /// It ends before its assertions.
    EarlyReturn,
    /// `if (false)`.
    ConstantCondition,
    /// It catches its own failure.
    SwallowedFailure,
    /// It ends the process.
    Exit,
    /// It says that it has no assertions.
    NoAssertionsExpected,
}

impl Trick {
    fn sentence(self) -> &'static str {
        match self {
            Self::EarlyReturn => "returns before its assertions now",
            Self::ConstantCondition => "has a condition that is always false now",
            Self::SwallowedFailure => "catches and drops failures now",
            Self::Exit => "ends the process now",
            Self::NoAssertionsExpected => "expects no assertions now",
        }
    }
}

pub fn find(base: &Snapshot, head: &Snapshot, changes: &Changes, definition: &Definition) -> Vec<Weakening> {
    let patterns = runner::patterns(base, definition);
    let old = collect::cases(changes, &patterns, |change| &change.base);
    let new = collect::cases(changes, &patterns, |change| &change.head);
    let matched = matching::pair(&old, &new);
    let mut findings = replaced::find(changes, &patterns);
    findings.extend(left_out::find(head, changes));
    let mut dead = dead::Declarations::new(base, head, changes, definition);
    for (at, case) in old.iter().enumerate() {
        match matched.get(at).copied().flatten() {
            Some(partner) => findings.extend(new.get(partner).and_then(|partner| compare(case, partner))),
            None if dead.explains(case) => {}
            None => {
                let message = format!("The test {:?} is gone, and no new test does the same.", case.name);
                findings.push(Weakening::new(WeakeningKind::TestDeleted, &case.path, Some(case.line), message));
            }
        }
    }
    let partners: Vec<usize> = matched.into_iter().flatten().collect();
    for (at, case) in new.iter().enumerate() {
        let was_focused = old.iter().any(|old| old.focused && old.path == case.path);
        if case.focused && !was_focused {
            let message = format!("Only the test {:?} runs now, so others do not.", case.name);
            findings.push(Weakening::new(WeakeningKind::TestFocused, &case.path, Some(case.line), message));
        }
        if case.inverted && !case.is_standard_inversion && !partners.contains(&at) {
            let message = format!("The new test {:?} passes when its code fails.", case.name);
            findings.push(Weakening::new(WeakeningKind::TestInverted, &case.path, Some(case.line), message));
        }
    }
    findings
}

/// What became of a test of the base, as the sources say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Its names, with and without those of its suites.
    pub names: [String; 2],
    /// The names of the test that does the same now. `None`: it went with its code.
    pub successor: Option<[String; 2]>,
}

/// The tests of the base that have a partner in the change, or went with their code.
pub fn explained(base: &Snapshot, head: &Snapshot, changes: &Changes, definition: &Definition) -> Vec<Explanation> {
    let patterns = runner::patterns(base, definition);
    let old = collect::cases(changes, &patterns, |change| &change.base);
    let new = collect::cases(changes, &patterns, |change| &change.head);
    let matched = matching::pair(&old, &new);
    let mut dead = dead::Declarations::new(base, head, changes, definition);
    let names = |case: &Case| [case.name.clone(), case.leaf.clone()];
    let mut found = Vec::new();
    for (case, partner) in old.iter().zip(matched) {
        let successor = partner.and_then(|at| new.get(at)).map(names);
        if successor.is_some() || dead.explains(case) {
            found.push(Explanation { names: names(case), successor });
        }
    }
    found
}

/// What a kept test has lost.
fn compare(old: &Case, new: &Case) -> Option<Weakening> {
    let finding = |kind, sentence: &str| {
        Some(Weakening::new(kind, &new.path, Some(new.line), format!("The test {:?} {sentence}.", new.name)))
    };
    if let Some(how) = &new.skipped
        && old.skipped.is_none()
    {
        return finding(WeakeningKind::TestSkipped, &format!("is skipped now ({how})"));
    }
    if new.inverted && !old.inverted {
        return finding(WeakeningKind::TestInverted, "passes when its code fails now");
    }
    if old.assertions > 0 && new.assertions == 0 {
        return finding(WeakeningKind::AssertionsRemoved, "has no assertion any more");
    }
    let count = |case: &Case, trick| case.tricks.iter().filter(|other| **other == trick).count();
    let trick = new.tricks.iter().find(|trick| count(new, **trick) > count(old, **trick))?;
    finding(WeakeningKind::TestSkipped, trick.sentence())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lex::{Language, tokens};
    use super::*;

    fn all(text: &str) -> usize {
        let cases = [
            javascript::cases(&tokens(Language::Script, text)),
            python::cases(&tokens(Language::Python, text)),
            rust::cases(&tokens(Language::Rust, text)),
            go::cases(&tokens(Language::Go, text)),
        ];
        let every: Vec<Case> = cases.into_iter().flatten().collect();
        matching::pair(&every, &every).len()
    }

    const SAMPLE: &str = "describe.skip('a', () => { it.each`x ${1}`('b', { skip: true }, async () => { if (false) { expect(`${c}`).toBe(1) } try {} catch {} return; }) })\n        @pytest.mark.skip\nclass TestA:\n    def test_b(self):\n        with x:\n            assert b == \"c\"\n        #[cfg(test)] mod t { #[tokio::test] #[ignore] async fn d() { assert_eq!(1, e, \"f\"); } }\n        func TestG(t *testing.T) { t.Run(`h`, func(t *testing.T) { t.Skip() }) }\n";

    #[test]
    fn cut_files_do_not_stop_the_comparison() {
        for end in 0..=SAMPLE.len() {
            all(&SAMPLE[..end]);
            all(&SAMPLE[end..]);
        }
        assert!(all(SAMPLE) >= 3);
    }

    #[test]
    fn thousands_of_renamed_tests_are_compared_in_bounded_time() {
        let text = |name: &str| -> String {
            let one = |at| format!("it('{name}{at}', () => {{ expect({name}({at})).toBe({at}); }});\n");
            (0..4_000).map(one).collect::<Vec<_>>().concat()
        };
        let cases = |text: &str| javascript::cases(&tokens(Language::Script, text));
        let pairs = matching::pair(&cases(&text("f")), &cases(&text("g")));
        assert!(pairs.len() == 4_000 && pairs.last() == Some(&None));
    }

    proptest! {
        #[test]
        fn a_test_is_always_its_own_successor(words in proptest::collection::vec("(it|describe|\\.skip|\\(|\\)|\\{|\\}|'a'|=>|,|expect|`|\\$\\{|/|def test_a|:|\n|    |#\\[test\\]|fn a|func TestA|é|return|if \\(false\\))", 0..60)) {
            let text = words.concat();
            let cases = javascript::cases(&tokens(Language::Script, &text));
            let pairs = matching::pair(&cases, &cases);
            prop_assert!(pairs.iter().all(Option::is_some));
            all(&text);
        }
    }
}
