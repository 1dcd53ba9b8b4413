use std::fs;

use super::*;

fn planned(files: &[(&str, &str)]) -> Result<Option<InstallPlan>, Reason> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    plan(&Snapshot::take(folder.path()).unwrap()).map_err(|error| match error {
        ExamineError::GateFailed(reason) => reason,
        ExamineError::Infra(error) => panic!("{error}"),
    })
}

const SUM: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn requirements_that_are_not_pinned_by_digest_are_refused() {
    for (line, why) in [
        ("a==1.0", "no hash"),
        ("a>=1.0 --hash=SUM", "not pinned"),
        ("a --hash=SUM", "not pinned"),
        ("a==1.* --hash=SUM", "exact version"),
        ("a==1.0,>0.9 --hash=SUM", "exact version"),
        ("a==1.0 --hash=md5:00112233445566778899aabbccddeeff", "other than --hash"),
        ("a==1.0 --hash=sha256:00", "other than --hash"),
        ("a==1.0 --hash=SUM --install-option=x", "other than --hash"),
        ("a==1.0 --hash=SUM --global-option=x", "other than --hash"),
        ("a==1.0 --hash=SUM --config-settings=x", "other than --hash"),
        ("-e .", "is an option"),
        ("--editable=git+https://h/a", "is an option"),
        ("-r other.txt", "is an option"),
        ("-r ../requirements.txt", "is an option"),
        ("-r requirements.txt --index-url=http://evil.example", "is an option"),
        ("-c constraints.txt", "is an option"),
        ("-i http://evil.example/simple", "is an option"),
        ("--index-url http://evil.example/simple", "is an option"),
        ("--extra-index-url=http://evil.example/simple", "is an option"),
        ("--find-links=./wheels", "is an option"),
        ("-f ./wheels", "is an option"),
        ("--trusted-host evil.example", "is an option"),
        ("--no-binary=:all:", "is an option"),
        ("--pre", "is an option"),
        ("a @ https://evil.example/a.whl --hash=SUM", "URL"),
        ("a @ file:///etc/a.whl --hash=SUM", "URL"),
        ("git+https://h/a@v1 --hash=SUM", "URL"),
        ("./a-1.0.whl --hash=SUM", "not pinned"),
        ("./a==1.0 --hash=SUM", "exact version"),
        ("../a==1.0 --hash=SUM", "exact version"),
        ("a==${VERSION} --hash=SUM", "variable"),
        ("a==1.0/../b --hash=SUM", "exact version"),
        ("a==1.0 ; `x` --hash=SUM", "marker"),
        ("a==1.0 ; --hash=SUM", "marker"),
    ] {
        let text = format!("b==1.0 --hash={SUM}\n{}\n", line.replace("SUM", SUM));
        for file in ["requirements.lock", "requirements.txt"] {
            let reason = planned(&[(file, &text)]).expect_err(line);
            assert!(reason.code == "lockfile_refused" && reason.message.contains(why), "{line}: {reason:?}");
            assert!(reason.message.starts_with(&format!("{file}: ")), "{reason:?}");
        }
    }
    let twice = format!("a==1.0 --hash={SUM}\nA==1.1 --hash={SUM}\n");
    assert!(planned(&[("requirements.txt", &twice)]).unwrap_err().message.contains("there twice"));
}

#[test]
fn what_pip_compile_and_uv_write_is_accepted() {
    let text = format!(
        "# by a tool\nFoo.Bar[x,y]==1.0+local \\\n    --hash={SUM} \\\n    --hash={}\n    # via -r requirements.in\nbaz==2!1.0rc1 ; python_version < \"3.12\" and sys_platform != 'win32' --hash={SUM}  # note\n",
        SUM.to_uppercase().replace("SHA", "sha").replace("00", "11")
    );
    let plan = planned(&[("requirements.lock", &text)]).unwrap().unwrap();
    let written = String::from_utf8(plan.files["requirements.txt"].clone()).unwrap();
    let second = SUM.replace("00", "11");
    let expected = format!(
        "foo-bar==1.0+local --hash={SUM} --hash={second}\nbaz==2!1.0rc1 ; python_version < \"3.12\" and sys_platform != 'win32' --hash={SUM}\n"
    );
    assert_eq!(written, expected);
    assert_eq!(plan.packages.iter().map(|package| package.optional).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_missing_lock_file_says_how_to_make_one() {
    let project = "[project]\nname = 'x'\ndependencies = ['a']\n";
    let reason = planned(&[("pyproject.toml", project)]).unwrap_err();
    assert!(reason.code == "no_lockfile" && reason.message.contains("requirements.lock"), "{reason:?}");
    // Tests are mostly in a dependency group, which `uv pip compile` leaves out.
    assert!(reason.message.contains("--all-groups"), "{reason:?}");
    let reason = planned(&[("pyproject.toml", project), ("uv.lock", "")]).unwrap_err();
    assert!(reason.code == "no_lockfile" && reason.message.contains("uv export"), "{reason:?}");
    assert!(planned(&[("pyproject.toml", "[project]\nname = 'x'\ndependencies = []\n")]).unwrap().is_none());
    assert_eq!(planned(&[("pyproject.toml", "[")]).unwrap_err().code, "manifest_refused");
    assert!(planned(&[]).unwrap().is_none());
}

fn pylock(package: &str) -> String {
    format!("lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\n{package}\n")
}

#[test]
fn the_standard_lock_file_is_read() {
    let digest = SUM.trim_start_matches("sha256:");
    let wheel = format!("wheels = [{{url = \"https://evil.example/a.whl\", hashes = {{sha256 = \"{digest}\"}}}}]");
    let plan =
        planned(&[("pylock.toml", &pylock(&format!("version = \"1.0\"\nmarker = \"os_name == 'nt'\"\n{wheel}")))])
            .unwrap()
            .unwrap();
    assert_eq!(plan.files["requirements.txt"], format!("a==1.0 ; os_name == 'nt' --hash={SUM}\n").into_bytes());
    for (package, why) in [
        (format!("version = \"1.0\"\nvcs = {{type = \"git\", url = \"x\"}}\n{wheel}"), "vcs"),
        (format!("version = \"1.0\"\ndirectory = {{path = \".\"}}\n{wheel}"), "directory"),
        (format!("version = \"1.0\"\narchive = {{url = \"x\"}}\n{wheel}"), "archive"),
        (format!("version = \"1.0\"\nindex = \"https://evil.example/simple\"\n{wheel}"), "another index"),
        ("version = \"1.0\"".to_owned(), "no wheel"),
        (format!("sdist = {{hashes = {{sha256 = \"{digest}\"}}}}\nversion = \"1.0\""), "no wheel"),
        (wheel.clone(), "exact version"),
    ] {
        let reason = planned(&[("pylock.toml", &pylock(&package))]).unwrap_err();
        assert!(reason.code == "lockfile_refused" && reason.message.contains(why), "{package}: {reason:?}");
    }
    assert_eq!(planned(&[("pylock.toml", "lock-version = \"9\"\n")]).unwrap_err().code, "lockfile_refused");
}

#[test]
fn names_compare_as_the_index_compares_them() {
    assert_eq!(canonical("Foo__.Bar-baz"), "foo-bar-baz");
}

#[test]
fn files_for_development_add_to_the_requirements() {
    let other = SUM.replace("00", "11");
    let base = format!("a==1.0 --hash={SUM}\n");
    let dev = format!("-r requirements.txt\n-c requirements.txt\na==1.0 --hash={SUM}\nb==2.0 --hash={other}\n");
    let plan = planned(&[("requirements.txt", &base), ("requirements-dev.txt", &dev)]).unwrap().unwrap();
    let expected = format!("a==1.0 --hash={SUM}\nb==2.0 --hash={other}\n");
    assert_eq!(String::from_utf8(plan.files["requirements.txt"].clone()).unwrap(), expected);
    let alone = planned(&[("requirements.txt", &base)]).unwrap().unwrap();
    assert!(plan.lock == "requirements.txt" && plan.lock_sha256 != alone.lock_sha256);
    let conflict = dev.replace("a==1.0", "a==1.1");
    let reason = planned(&[("requirements.txt", &base), ("requirements-dev.txt", &conflict)]).unwrap_err();
    assert!(reason.message.contains("requirements-dev.txt: a: is there twice"), "{reason:?}");
}
