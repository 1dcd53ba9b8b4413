//! The formats of coverage reports.

use std::fmt;
use std::str::FromStr;

use super::{CoverageError, Report, cobertura, istanbul, lcov};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    Istanbul,
    Lcov,
    Cobertura,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Istanbul, Self::Lcov, Self::Cobertura];

    pub fn name(self) -> &'static str {
        match self {
            Self::Istanbul => "istanbul",
            Self::Lcov => "lcov",
            Self::Cobertura => "cobertura",
        }
    }

    /// The format that a report has by its first character. Its parser decides whether that is true.
    pub fn detect(text: &str) -> Self {
        match text.trim_start().chars().next() {
            Some('{' | '[') => Self::Istanbul,
            Some('<') => Self::Cobertura,
            _ => Self::Lcov,
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| format!("the format {name:?} is not one of istanbul, lcov, cobertura"))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a report, in this format or in the one that it seems to have.
pub fn read_report(bytes: &[u8], format: Option<Format>) -> Result<(Report, Format), CoverageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CoverageError::unparsable("it is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(CoverageError::new("report_empty", "the coverage report is empty"));
    }
    let format = format.unwrap_or_else(|| Format::detect(text));
    let report = match format {
        Format::Istanbul => istanbul::parse(text.as_bytes()),
        Format::Lcov => lcov::parse(text),
        Format::Cobertura => cobertura::parse(text),
    }?;
    Ok((report, format))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ISTANBUL: &str = r#"{"a.ts": {"statementMap": {}, "s": {}, "branchMap": {}, "b": {}, "fnMap": {}, "f": {}}}"#;
    const LCOV: &str = "SF:a.ts\nDA:1,1\nend_of_record\n";
    const COBERTURA: &str = "<coverage><packages><package><classes><class filename=\"a.ts\"><lines><line number=\"1\" hits=\"1\"/></lines></class></classes></package></packages></coverage>";

    #[test]
    fn a_format_is_detected() {
        for (text, format) in [(ISTANBUL, Format::Istanbul), (LCOV, Format::Lcov), (COBERTURA, Format::Cobertura)] {
            assert_eq!(read_report(text.as_bytes(), None).unwrap().1, format);
            assert_eq!(read_report(format!("\u{feff}\n{text}").as_bytes(), None).unwrap().1, format);
        }
    }

    #[test]
    fn a_wrong_format_is_unparsable_and_nothing_is_empty() {
        for format in Format::ALL {
            for (text, own) in [(ISTANBUL, Format::Istanbul), (LCOV, Format::Lcov), (COBERTURA, Format::Cobertura)] {
                let read = read_report(text.as_bytes(), Some(format));
                assert_eq!(read.map_err(|error| error.code).is_ok(), own == format, "{format} {own}");
            }
            assert_eq!(read_report(b" \n", Some(format)).unwrap_err().code, "report_empty");
            assert_eq!(read_report(b"\xff", Some(format)).unwrap_err().code, "report_unparsable");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(
            start in prop_oneof![Just(ISTANBUL), Just(LCOV), Just(COBERTURA)],
            cut in 0_usize..200, insert in "[\\x00-\\x7f]{0,6}", tail in 0_usize..200,
        ) {
            let text = format!("{}{insert}{}", start.get(..cut.min(start.len())).unwrap(), start.get(tail.min(start.len())..).unwrap());
            for format in Format::ALL {
                let _ = read_report(text.as_bytes(), Some(format));
            }
        }
    }
}
