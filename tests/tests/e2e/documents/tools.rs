//! The programs that pages use, stricter than on a user's machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nofx_local::checkout::Checkout;
use nofx_local::process::PidFile;
use nofx_local::tools::python::{AWS, ORACLES, PythonEnv};

/// A response that is not 2xx fails.
const CURL: &str = r#"exec curl --fail --show-error --max-time 60 "$@""#;
/// The targets would start these suites.
const MAKE: &str = r#"exec make --dry-run "$@""#;
/// Paths such as `.runs[0].id` alone, because this repository does not require jq. A missing value fails.
const JQ: &str = r#"exec python3 -c '
import json, re, sys
value = json.load(sys.stdin)
for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", sys.argv[-1]):
    value = value[key] if key else (value[int(index):] or [{"id": None}])[0]
sys.exit("no such value") if value is None else print(value if isinstance(value, str) else json.dumps(value))
' "$@""#;
/// Talks to the emulator, as a user's profile would to AWS. The variable alone is not enough: this version of the CLI sends
/// requests for SQS to `queue.amazonaws.com`.
const AWS_CLI: &str = r#". "$NOFX_FUNCTIONS_ENV"
export AWS_DEFAULT_REGION=$AWS_REGION
exec "$NOFX_AWS_CLI" --endpoint-url "$AWS_ENDPOINT_URL" "$@""#;
const POSTGRES: [&str; 4] = ["createdb", "pg_dump", "pg_restore", "psql"];
const GIT: &str = "[user]\nname = Ann\nemail = ann@example.com\n[init]\ndefaultBranch = main\n";

/// A folder of programs for `PATH`.
pub struct Tools {
    pub bin: PathBuf,
    pub python: PathBuf,
    pub aws: PathBuf,
    pub git_config: PathBuf,
}

impl Tools {
    pub async fn install(folder: &Path, checkout: &Path) -> Self {
        let bin = folder.join("bin");
        fs::create_dir(&bin).expect("a folder");
        let wrapper = |name: &str, script: &str| {
            let path = bin.join(name);
            // The first folder of PATH is this one.
            fs::write(&path, format!("#!/bin/bash\nPATH=${{PATH#*:}}\n{script}\n")).expect("write it");
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("executable");
        };
        wrapper("curl", CURL);
        wrapper("make", MAKE);
        wrapper("jq", JQ);
        wrapper("aws", AWS_CLI);
        let pid_file = PidFile::new(folder.join("pids.json"));
        let (at, link) = (Checkout::at(checkout), |target: PathBuf, name| symlink(target, bin.join(name)));
        let local = PythonEnv::ready(&at, &pid_file).await.expect("the local tools install");
        let postgres = local.postgres_dirs().into_iter().next().expect("a Postgres");
        for name in POSTGRES {
            link(postgres.join(name), name).expect("a link");
        }
        link(checkout.join("target/debug/nofx"), "nofx").expect("a link");
        let python = PythonEnv::of(ORACLES, &at, &pid_file).await.expect("the oracles install").program("python");
        let aws = PythonEnv::of(AWS, &at, &pid_file).await.expect("the AWS CLI installs").program("aws");
        let git_config = folder.join("gitconfig");
        fs::write(&git_config, GIT).expect("write it");
        Self { bin, python, aws, git_config }
    }
}
