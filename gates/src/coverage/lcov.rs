//! Reads LCOV tracefiles. A record of a file starts with `SF:` and ends with `end_of_record`.
//!
//! Own code, because the crate `lcov` refuses records of newer writers, and reads hits and lines less strictly.

use std::collections::BTreeMap;

use super::{Arm, Branch, CoverageError, MeasuredFile, Position, Report, Statement};

/// Reads a report. Unknown records, and a file that has no end, are errors.
pub fn parse(text: &str) -> Result<Report, CoverageError> {
    let mut report = Report::default();
    // Several tests may measure the same file: their hits add up.
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut open: Option<Record> = None;
    for (line, number) in text.lines().zip(1_usize..) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| CoverageError::unparsable(&format!("line {number} of the LCOV report: {why}"));
        if line == "end_of_record" {
            let record = open.take().ok_or_else(|| wrong("end_of_record without SF"))?;
            record.close(&mut report, &mut known);
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("it is not a record"))?;
        match (name, open.as_mut()) {
            ("SF", None) if !value.trim().is_empty() => {
                open = Some(Record { path: value.trim().to_owned(), lines: BTreeMap::new(), arms: BTreeMap::new() });
            }
            ("SF", _) => return Err(wrong("a file has no name, or the file before it no end_of_record")),
            ("DA", Some(record)) => {
                let (line, hits) = line_hits(value).ok_or_else(|| wrong("DA needs a line and a number of hits"))?;
                add(record.lines.entry(line).or_default(), hits);
            }
            ("BRDA", Some(record)) => {
                let (key, hits) =
                    branch(value).ok_or_else(|| wrong("BRDA needs a line, a block, a branch and hits"))?;
                add(record.arms.entry(key).or_default(), hits);
            }
            ("DA" | "BRDA", None) => return Err(wrong("a measurement without SF")),
            (
                "TN" | "VER" | "FN" | "FNDA" | "FNF" | "FNH" | "FNL" | "FNA" | "BRF" | "BRH" | "LF" | "LH" | "MCDC"
                | "MCF" | "MCH",
                _,
            ) => {}
            _ => return Err(wrong("this kind of record is unknown")),
        }
    }
    if open.is_some() {
        return Err(CoverageError::unparsable("the LCOV report is truncated: its last file has no end_of_record"));
    }
    if report.files.is_empty() {
        return Err(CoverageError::new("report_empty", "the coverage report lists no files"));
    }
    Ok(report)
}

struct Record {
    path: String,
    lines: BTreeMap<u32, u64>,
    /// By line, block and branch.
    arms: BTreeMap<(u32, u64, u32), u64>,
}

fn add(sum: &mut u64, hits: u64) {
    *sum = sum.saturating_add(hits);
}

impl Record {
    fn close(self, report: &mut Report, known: &mut BTreeMap<String, usize>) {
        let at = *known.entry(self.path.clone()).or_insert_with(|| {
            report.files.push(MeasuredFile { paths: vec![self.path], statements: Vec::new(), arms: Vec::new() });
            report.files.len() - 1
        });
        let Some(file) = report.files.get_mut(at) else { return };
        let more = MeasuredFile {
            paths: Vec::new(),
            statements: self.lines.into_iter().map(|(line, hits)| Statement::of_line(line, hits)).collect(),
            arms: self.arms.into_iter().map(|((line, kind, index), hits)| arm(line, kind, index, hits)).collect(),
        };
        if file.statements.is_empty() && file.arms.is_empty() {
            (file.statements, file.arms) = (more.statements, more.arms);
        } else {
            file.add(&more);
        }
    }
}

fn arm(line: u32, kind: u64, index: u32, hits: u64) -> Arm {
    let start = Position { line, column: 0 };
    Arm { line, branch: Branch { start, end: start, kind }, index, hits }
}

fn line_hits(value: &str) -> Option<(u32, u64)> {
    let mut fields = value.split(',');
    let line: u32 = fields.next()?.trim().parse().ok()?;
    let hits: u64 = fields.next()?.trim().parse().ok()?;
    // A checksum may follow.
    (line > 0 && fields.count() <= 1).then_some((line, hits))
}

/// The branch may be a number or, in new versions, an expression with commas.
fn branch(value: &str) -> Option<((u32, u64, u32), u64)> {
    let (line, rest) = value.split_once(',')?;
    let (block, rest) = rest.split_once(',')?;
    let (branch, taken) = rest.rsplit_once(',')?;
    let line: u32 = line.trim().parse().ok().filter(|line| *line > 0)?;
    // "-": nothing of the block ran.
    let hits = if taken.trim() == "-" { 0 } else { taken.trim().parse().ok()? };
    let index = branch.trim().parse::<u32>();
    let kind = Branch::kind(&[block, if index.is_ok() { "" } else { branch }]);
    Some(((line, kind, index.unwrap_or(0)), hits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u32, u64)> {
        parse(text).unwrap().files[0]
            .statements
            .iter()
            .map(|statement| (statement.start.line, statement.hits))
            .collect()
    }

    #[test]
    fn lines_and_branches_are_read() {
        let text = "TN:x\nSF:src/a.py\nFN:1,f\nFNDA:1,f\nDA:1,5\nDA:2,0,checksum\nBRDA:1,0,0,3\nBRDA:1,0,1,-\nBRDA:1,e1,jump to line 3, else,0\nLF:2\nLH:1\nend_of_record\n";
        assert_eq!(lines(text), [(1, 5), (2, 0)]);
        let arms: Vec<u64> = parse(text).unwrap().files[0].arms.iter().map(|arm| arm.hits).collect();
        assert_eq!(arms.iter().sum::<u64>(), 3);
        assert_eq!(arms.len(), 3);
    }

    #[test]
    fn records_of_the_same_file_add_up() {
        let record = |hits: u32| format!("SF:a.py\nDA:1,{hits}\nDA:2,0\nend_of_record\n");
        assert_eq!(lines(&format!("{}{}", record(1), record(2))), [(1, 3), (2, 0)]);
    }

    #[test]
    fn a_report_that_is_cut_off_or_strange_is_unparsable() {
        for text in [
            "SF:a.py\nDA:1,1\n",
            "DA:1,1\nend_of_record\n",
            "SF:a.py\nSF:b.py\nend_of_record\n",
            "SF:\nend_of_record\n",
            "SF:a.py\nDA:1\nend_of_record\n",
            "SF:a.py\nDA:0,1\nend_of_record\n",
            "SF:a.py\nDA:1,-1\nend_of_record\n",
            "SF:a.py\nDA:1,1.5\nend_of_record\n",
            "SF:a.py\nDA:x,1\nend_of_record\n",
            "SF:a.py\nBRDA:1,0,0\nend_of_record\n",
            "SF:a.py\nXX:1,1\nend_of_record\n",
            "SF:a.py\nend_of_record\nhello\n",
            "{\"a\": 1}",
            "<coverage/>",
        ] {
            assert_eq!(parse(text).unwrap_err().code, "report_unparsable", "{text}");
        }
        assert_eq!(parse("TN:\n").unwrap_err().code, "report_empty");
    }
}
