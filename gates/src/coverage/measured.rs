//! What reports measured, independent of their format.

use std::collections::BTreeMap;

/// What one run of the tests measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub files: Vec<MeasuredFile>,
    /// The format has branches, but this report leaves them out.
    pub lacks_branches: bool,
}

/// The measurements of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeasuredFile {
    /// The paths under which the report knows the file, the best one first. They must not lead to different files.
    pub paths: Vec<String>,
    pub statements: Vec<Statement>,
    pub arms: Vec<Arm>,
}

/// A statement and how often it ran. Lines count from 1. Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    pub start: Position,
    pub end: Position,
    pub hits: u64,
}

/// One way through a branch and how often it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// Line on which the arm starts. An implicit `else` has the line of its `if`.
    pub line: u32,
    /// Together with `index` it identifies the arm when reports are merged.
    pub branch: Branch,
    pub index: u32,
    pub hits: u64,
}

/// A branch. `a && b ? c : d` has two that start at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Branch {
    pub start: Position,
    pub end: Position,
    /// From [`Branch::kind`].
    pub kind: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Branch {
    /// A number for the names that tell branches of one place apart (FNV-1a).
    pub fn kind(names: &[&str]) -> u64 {
        let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl Statement {
    /// The measurement of a whole line.
    pub fn of_line(line: u32, hits: u64) -> Self {
        Self { start: Position { line, column: 0 }, end: Position { line, column: u32::MAX }, hits }
    }
}

impl MeasuredFile {
    /// Adds up the hits of the same statements and the same arms. If a report has two of the same place, the first is
    /// added to the first and the second to the second: they must not hide each other.
    pub fn add(&mut self, more: &Self) {
        let mut statements: BTreeMap<(Position, Position, usize), u64> = BTreeMap::new();
        for side in [&self.statements, &more.statements] {
            let mut seen: BTreeMap<(Position, Position), usize> = BTreeMap::new();
            for statement in side {
                let nth = next(seen.entry((statement.start, statement.end)).or_default());
                let hits = statements.entry((statement.start, statement.end, nth)).or_default();
                *hits = hits.saturating_add(statement.hits);
            }
        }
        let mut arms: BTreeMap<(Branch, u32, usize), Arm> = BTreeMap::new();
        for side in [&self.arms, &more.arms] {
            let mut seen: BTreeMap<(Branch, u32), usize> = BTreeMap::new();
            for arm in side {
                let nth = next(seen.entry((arm.branch, arm.index)).or_default());
                let sum = arms.entry((arm.branch, arm.index, nth)).or_insert(Arm { hits: 0, ..*arm });
                sum.hits = sum.hits.saturating_add(arm.hits);
            }
        }
        self.statements =
            statements.into_iter().map(|((start, end, _), hits)| Statement { start, end, hits }).collect();
        self.arms = arms.into_values().collect();
    }
}

fn next(count: &mut usize) -> usize {
    *count += 1;
    *count - 1
}
