//! Which variables a definition may set.

/// Why a definition may not set this variable. `None` if it may.
pub fn refusal(name: &str) -> Option<&'static str> {
    // These change which program runs, what it loads, or where it gets its settings.
    const PREFIXES: [&str; 12] = [
        "LD_",
        "DYLD_",
        "NOFX_",
        "AWS_",
        "NPM_CONFIG_",
        "YARN_",
        "PIP_",
        "UV_",
        "GIT_",
        "LAMBDA_",
        "BASH_",
        "_HANDLER",
    ];
    const NAMES: [&str; 20] = [
        "PATH",
        "HOME",
        "SHELL",
        "ENV",
        "IFS",
        "PS4",
        "PWD",
        "TMPDIR",
        "USER",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "PYTHONINSPECT",
        "RUSTC_WRAPPER",
        "RUSTC",
        "CARGO_HOME",
        "RUSTUP_TOOLCHAIN",
        "GOFLAGS",
        "GOPROXY",
    ];
    const SECRET: [&str; 6] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY"];
    let mut letters = name.bytes();
    let starts_well = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts_well || !letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Some("is not the name of a variable");
    }
    let upper = name.to_ascii_uppercase();
    if NAMES.contains(&upper.as_str()) || PREFIXES.iter().any(|prefix| upper.starts_with(prefix)) {
        return Some("is set by the runner and cannot be changed");
    }
    if SECRET.iter().any(|word| upper.contains(word)) {
        return Some("looks like a secret; gates have none");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn variables_that_steer_the_runner_or_hold_secrets_are_refused() {
        for name in ["TZ", "CI", "NODE_ENV", "APP_PORT", "PYTHONHASHSEED", "lower"] {
            assert_eq!(refusal(name), None, "{name}");
        }
        for name in
            ["PATH", "ld_preload", "NODE_OPTIONS", "npm_config_git", "NOFX_REPORTS", "MY_TOKEN", "A-B", "", "1A"]
        {
            assert!(refusal(name).is_some(), "{name}");
        }
    }
}
