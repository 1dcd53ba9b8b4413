//! Text that comes from the workspace or its command, as evidence may show it.

use crate::evidence::Evidence;
use crate::redact::Redactor;

/// A reason as it is stored and shown everywhere: without secrets, and with visible control characters. Postgres stores no
/// NUL, and a terminal would obey the others.
pub fn shown(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for letter in redacted(message).chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if letter.is_control() || is_direction(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Text of the command, without secrets.
pub fn redacted(text: &str) -> String {
    String::from_utf8_lossy(&Redactor::redact(&[], text.as_bytes())).into_owned()
}

/// Takes secrets out of what reports say: a failed assertion shows what it compared.
pub fn redact_reports(evidence: &mut Evidence) {
    let reports = evidence.reports.iter_mut().map(|report| &mut report.path);
    let findings = evidence.findings.list.listed.iter_mut().flat_map(|finding| {
        [&mut finding.file, &mut finding.message].into_iter().chain(&mut finding.rule).chain(&mut finding.url)
    });
    let failures = evidence.tests.iter_mut().flat_map(|tests| &mut tests.failures.listed);
    let failures = failures.flat_map(|failure| {
        [&mut failure.suite, &mut failure.name, &mut failure.message].into_iter().chain(&mut failure.file)
    });
    for text in reports.chain(findings).chain(failures) {
        *text = redacted(text);
    }
}

/// Reorders the text around it.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Finding, Findings, Listed, Reason, Report, ReportOutcome, Severity, TestFailure, Tests};

    #[test]
    fn what_reports_say_has_no_secrets() {
        let secret = ["ghp_", "5RrMawgUhST", "2eXhrT43Dme", "HGZBb1bR5AZxF1"].concat();
        let reason = Reason { code: "x".into(), message: String::new() };
        let mut evidence = Evidence::new("unit", reason, 0);
        let finding = serde_json::json!({ "severity": Severity::Error, "tool": "eslint", "file": format!("{secret}.ts"),
            "message": format!("expected {secret}"), "rule": secret, "url": secret });
        evidence.findings = Findings::of(vec![serde_json::from_value::<Finding>(finding).unwrap()]);
        let failure = TestFailure {
            suite: secret.clone(),
            name: secret.clone(),
            file: Some(secret.clone()),
            message: secret.clone(),
        };
        evidence.tests = Some(Tests { failures: Listed::of([failure]), ..Tests::default() });
        let (format, path) = ("junit".to_owned(), format!("out/{secret}.xml"));
        evidence.reports.push(Report { format, path, sha256: None, size: 0, outcome: ReportOutcome::Read });
        redact_reports(&mut evidence);
        let text = serde_json::to_string(&evidence).unwrap();
        assert!(!text.contains(&secret) && text.matches("[redacted:github-token]").count() == 9, "{text}");
    }
}
