//! Which lines lack coverage, for a message.

use super::{FileJudgement, LineVerdict};

/// The first lines of the first files. It counts what it leaves out.
pub fn uncovered_summary<'a>(files: impl Iterator<Item = &'a FileJudgement>) -> String {
    const FILES: usize = 3;
    let lacking: Vec<&FileJudgement> = files.filter(|file| file.uncovered + file.unmeasured > 0).collect();
    let mut parts = Vec::new();
    for file in lacking.iter().take(FILES) {
        if file.uncovered > 0 {
            parts.push(format!("{} {} never ran", file.path, lines(file, LineVerdict::Uncovered)));
        }
        if file.unmeasured > 0 {
            let verb = if file.unmeasured == 1 { "is" } else { "are" };
            parts.push(format!("{} {} {verb} not measured", file.path, lines(file, LineVerdict::Unmeasured)));
        }
    }
    match lacking.len().saturating_sub(FILES) {
        0 => {}
        1 => parts.push("1 more file".to_owned()),
        more => parts.push(format!("{more} more files")),
    }
    parts.join("; ")
}

/// `line 7`, `lines 1, 2` or `lines 1, 2, 3, 4, 5 and 35 more`
fn lines(file: &FileJudgement, verdict: LineVerdict) -> String {
    const LINES: usize = 5;
    let all: Vec<String> = file.lines_with(verdict).map(|line| line.to_string()).collect();
    let shown = all.iter().take(LINES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len() {
        1 => format!("line {shown}"),
        count if count > LINES => format!("lines {shown} and {} more", count - LINES),
        _ => format!("lines {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::FileStatus;

    fn file(path: &str, uncovered: u32, unmeasured: u32) -> FileJudgement {
        let lines = (1..=uncovered).map(|line| (line, LineVerdict::Uncovered));
        FileJudgement {
            path: path.to_owned(),
            status: FileStatus::Judged,
            why: None,
            covered: 0,
            uncovered: uncovered.into(),
            unmeasured: unmeasured.into(),
            lines: lines.chain((101..101 + unmeasured).map(|line| (line, LineVerdict::Unmeasured))).collect(),
            ignore_hints: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let summary = |files: &[FileJudgement]| uncovered_summary(files.iter());
        assert_eq!(summary(&[file("a.ts", 1, 0), file("b.ts", 0, 0)]), "a.ts line 1 never ran");
        assert_eq!(summary(&[file("a.ts", 0, 1)]), "a.ts line 101 is not measured");
        let long = "a.ts lines 1, 2, 3, 4, 5 and 35 more never ran; a.ts lines 101, 102 are not measured";
        assert_eq!(summary(&[file("a.ts", 40, 2)]), long);
        let many: Vec<FileJudgement> = (0..5).map(|at| file(&format!("{at}.ts"), 1, 0)).collect();
        assert!(summary(&many).ends_with("2.ts line 1 never ran; 2 more files"));
    }
}
