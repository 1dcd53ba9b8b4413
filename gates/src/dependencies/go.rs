//! What Go needs: go.sum, which holds the digest of every module. Go itself compares them.

use super::{Ecosystem, InstallPlan, Locked, manifest_refused, read, refused};
use crate::finding::{ExamineError, Reason};
use crate::snapshot::Snapshot;

pub fn plan(snapshot: &Snapshot) -> Result<Option<InstallPlan>, ExamineError> {
    let Some(module) = read(snapshot, "go.mod")? else { return Ok(None) };
    let module = String::from_utf8(module).map_err(|_| manifest_refused("go.mod", "is not UTF-8", "mend it"))?;
    let (required, replaced) = directives(&module);
    if let Some(line) = replaced.iter().find(|line| !is_inside(line)) {
        let why = "replaces a module with a folder outside the workspace";
        return Err(manifest_refused(format_args!("go.mod: {line}"), why, "remove it").into());
    }
    if required.is_empty() {
        return Ok(None);
    }
    let Some(sums) = read(snapshot, "go.sum")? else {
        let message = "go.mod requires modules, but there is no go.sum with their digests; commit one (go mod tidy)";
        return Err(Reason::new("no_lockfile", message).into());
    };
    let text = String::from_utf8(sums.clone()).map_err(|_| refused("go.sum", "is not UTF-8", "write it anew"))?;
    check_sums(&text)?;
    let mut plan = InstallPlan::new(Ecosystem::Go, "go.sum", &sums);
    plan.packages = required
        .into_iter()
        .filter_map(|line| line.split_once(' ').map(|(name, version)| (name.to_owned(), version.trim().to_owned())))
        .map(|(name, version)| Locked { path: String::new(), name, version, optional: false, direct: true })
        .collect();
    plan.files.insert("go.mod".into(), module.into_bytes());
    plan.files.insert("go.sum".into(), text.into_bytes());
    Ok(Some(plan))
}

/// The lines of `require` and `replace`, without comments.
fn directives(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut required, mut replaced) = (Vec::new(), Vec::new());
    let mut block = "";
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let (first, rest) = line.split_once([' ', '\t', '(']).unwrap_or((line, ""));
        let (directive, content) = match block {
            "" if line.ends_with('(') => {
                block = if first == "require" || first == "replace" { first } else { "other" };
                continue;
            }
            _ if line == ")" => {
                block = "";
                continue;
            }
            "" => (first, rest.trim()),
            block => (block, line),
        };
        match directive {
            "require" if !content.is_empty() => required.push(content.to_owned()),
            "replace" if !content.is_empty() => replaced.push(content.to_owned()),
            _ => {}
        }
    }
    (required, replaced)
}

/// Whether a `replace` names another module, or a folder below this one.
fn is_inside(line: &str) -> bool {
    let Some((_, target)) = line.split_once("=>") else { return false };
    let target = target.trim().trim_matches(['"', '`']);
    let is_path = target.starts_with(['.', '/']) || target.contains('\\');
    !is_path || target.starts_with("./") && !target.split('/').any(|part| part == "..")
}

/// Each line is a module, a version, and `h1:` with a sha256 in base64.
fn check_sums(text: &str) -> Result<(), Reason> {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_sum =
            |sum: &str| sum.strip_prefix("h1:").is_some_and(|digest| digest.len() == 44 && digest.ends_with('='));
        if !matches!(fields.as_slice(), [_, version, sum] if version.starts_with('v') && is_sum(sum)) {
            return Err(refused(
                format_args!("go.sum: {line}"),
                "is not a module with its digest",
                "write it anew (go mod tidy)",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(files: &[(&str, &str)]) -> Result<Option<InstallPlan>, Reason> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        plan(&Snapshot::take(folder.path()).unwrap()).map_err(|error| match error {
            ExamineError::GateFailed(reason) => reason,
            ExamineError::Infra(error) => panic!("{error}"),
        })
    }

    const SUM: &str = "example.com/a v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nexample.com/a v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

    #[test]
    fn modules_need_digests() {
        let module =
            "module x\n\ngo 1.22\n\nrequire (\n\texample.com/a v1.0.0 // indirect\n)\nreplace example.com/b => ./b\n";
        let plan = planned(&[("go.mod", module), ("go.sum", SUM)]).unwrap().unwrap();
        assert_eq!((plan.packages(), plan.packages[0].name.as_str()), (1, "example.com/a"));
        assert!(planned(&[("go.mod", "module x\n")]).unwrap().is_none());
        assert_eq!(planned(&[("go.mod", module)]).unwrap_err().code, "no_lockfile");
        for sums in ["example.com/a v1.0.0\n", "example.com/a v1.0.0 h1:x\n", "../../a b c\n"] {
            let reason = planned(&[("go.mod", module), ("go.sum", sums)]).unwrap_err();
            assert!(reason.code == "lockfile_refused" && reason.message.contains(sums.trim()), "{reason:?}");
        }
        for target in ["../b", "/b", "./../b", "./a/../../b"] {
            let module = module.replace("./b", target);
            assert_eq!(
                planned(&[("go.mod", &module), ("go.sum", SUM)]).unwrap_err().code,
                "manifest_refused",
                "{target}"
            );
        }
    }
}
