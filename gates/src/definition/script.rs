//! What a script of package.json runs.

/// The words of a script that is a plain call of one program: no operators, expansions, globs or assignments of a shell.
pub fn plain_call(script: &str) -> Option<Vec<String>> {
    let mut quote = None;
    for letter in script.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None, ' ') => {}
            (None, _) if letter.is_whitespace() => return None,
            (None | Some('"'), '$' | '`' | '\\' | '!') => return None,
            (None, '&' | '|' | ';' | '<' | '>' | '(' | ')' | '{' | '}' | '*' | '?' | '[' | ']' | '~' | '#') => {
                return None;
            }
            _ => {}
        }
    }
    let words = shlex::split(script)?;
    let first = words.first()?;
    let is_assignment = first.split_once('=').is_some_and(|(name, _)| !name.contains('/'));
    (!is_assignment).then_some(words)
}

/// Why a script proves nothing. `None` if it may prove something.
pub fn always_passes(script: &str) -> Option<&'static str> {
    let text = script.trim().trim_end_matches(';').trim();
    if text.is_empty() {
        return Some("its script is empty");
    }
    let alternatives = text.replace("||", "\n");
    let steps: Vec<&str> =
        alternatives.split(['\n', ';', '&']).map(str::trim).filter(|step| !step.is_empty()).collect();
    if steps.iter().all(|step| is_nothing(step)) {
        return Some("its script runs no check");
    }
    let swallows = |mark: &str| text.rsplit_once(mark).is_some_and(|(_, last)| is_nothing(last));
    (swallows("||") || swallows(";")).then_some("its script passes whatever its check says")
}

fn is_nothing(step: &str) -> bool {
    let words: Vec<&str> = step.split_whitespace().collect();
    matches!(words.as_slice(), ["true" | ":" | "exit"] | ["exit", "0"] | ["echo" | "printf", ..] | ["sleep", _])
}

/// The scripts that a script starts by name, such as `npm run build`. Names may be patterns (`npm-run-all "lint:*"`).
pub fn calls(script: &str) -> Vec<String> {
    const RUNNERS: [&str; 7] = ["npm-run-all", "npm-run-all2", "run-s", "run-p", "concurrently", "wireit", "nps"];
    let separated: String =
        script.chars().map(|letter| if "&|;()\"'`".contains(letter) { ' ' } else { letter }).collect();
    let words: Vec<&str> = separated.split_whitespace().collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let rest = words.get(at + 1..).unwrap_or_default();
        if matches!(*word, "npm" | "pnpm" | "yarn" | "bun") {
            let mut names = rest.iter().filter(|word| !word.starts_with('-'));
            match names.next() {
                Some(&("run" | "run-script")) => found.extend(names.next().map(ToString::to_string)),
                Some(&("test" | "t")) => found.push("test".to_owned()),
                Some(name) if *word != "npm" => found.push((*name).to_owned()),
                Some(name @ &("start" | "stop" | "restart")) => found.push((*name).to_owned()),
                _ => {}
            }
        } else if RUNNERS.contains(word) {
            found.extend(rest.iter().filter(|word| !word.starts_with('-')).map(|name| name.replace("npm:", "")));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_call_is_one_program_with_words() {
        let words = |script: &str| plain_call(script).map(|words| words.join("|"));
        assert_eq!(words("tsc --noEmit").as_deref(), Some("tsc|--noEmit"));
        assert_eq!(
            words("eslint 'src/**/*.ts' --max-warnings 0").as_deref(),
            Some("eslint|src/**/*.ts|--max-warnings|0")
        );
        for script in [
            "tsc && echo",
            "A=1 tsc",
            "tsc || true",
            "eslint src/*.js",
            "tsc $X",
            "tsc `x`",
            "tsc; x",
            "tsc > f",
            "\"a",
            "tsc\nx",
        ] {
            assert_eq!(words(script), None, "{script}");
        }
    }

    #[test]
    fn a_script_that_cannot_fail_is_seen() {
        for script in [
            "",
            "true",
            ":",
            "exit 0",
            "echo ok",
            "echo a && true",
            "tsc || true",
            "tsc || exit 0",
            "tsc; exit 0",
            "tsc ; true;",
        ] {
            assert!(always_passes(script).is_some(), "{script}");
        }
        for script in ["tsc", "echo checking && tsc", "tsc; eslint .", "exit 1", "test -f a || exit 1"] {
            assert_eq!(always_passes(script), None, "{script}");
        }
    }

    #[test]
    fn called_scripts_are_found() {
        assert_eq!(calls("npm run build && npm test"), ["build", "test"]);
        assert_eq!(calls("npm run --silent lint:ts"), ["lint:ts"]);
        assert_eq!(calls("run-s lint:* test"), ["lint:*", "test"]);
        assert_eq!(calls("yarn lint && pnpm run types"), ["lint", "types"]);
        assert!(calls("tsc --noEmit").is_empty());
    }
}
