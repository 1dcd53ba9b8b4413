use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nofx_gates::{Limits, unpack};

use super::*;

/// A repository with a server's settings, and what a test did in it.
struct Server {
    folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self::of_format("sha1")
    }

    fn of_format(format: &str) -> Self {
        let server = Self { folder: tempfile::tempdir().unwrap() };
        let format = format!("--object-format={format}");
        server.git(&["init", "--quiet", "--initial-branch=main", "--template=", &format]);
        server.git(&["config", "uploadpack.allowFilter", "true"]);
        server
    }

    fn git(&self, arguments: &[&str]) -> String {
        let settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.hooksPath=/dev/null"];
        let done = Command::new("git").args(settings).args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, path: &str, content: &str) -> String {
        let full = self.folder.path().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, content).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", path]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn wanted(&self, reference: &str, base: Option<&str>) -> Wanted {
        let url = format!("file://{}", self.folder.path().display());
        Wanted { repository: url, reference: reference.to_owned(), base: base.map(str::to_owned) }
    }

    /// Compares checks, as a policy may ask.
    async fn make(&self, reference: &str, base: Option<&str>) -> Result<Made, RepositoryError> {
        let work = tempfile::tempdir().unwrap();
        let attempt = Arc::new(Attempt::begin(work.path()).unwrap());
        let git = Git::of_files(std::env::var("PATH").unwrap());
        let bounds = Bounds { deadline: Instant::now() + Duration::from_mins(1), max_bytes: 10 << 20 };
        make(&self.wanted(reference, base), &git, &attempt, bounds, true).await
    }

    async fn problem(&self, reference: &str, base: Option<&str>) -> String {
        match self.make(reference, base).await {
            Err(RepositoryError::Inputs(problem)) => format!("{}: {}", problem.path, problem.message),
            Err(RepositoryError::Refused(message)) => message,
            Err(other) => panic!("{other:?}"),
            Ok(made) => panic!("made {}", made.commit),
        }
    }
}

fn base_of(made: &Made) -> (&str, BaseKind) {
    made.base.as_ref().map(|(id, kind, _)| (id.as_str(), *kind)).expect("a base")
}

#[tokio::test]
async fn a_branch_is_compared_with_the_merge_base() {
    let server = Server::new();
    let first = server.commit("a", "1\n");
    server.git(&["checkout", "--quiet", "-b", "feature/x"]);
    let feature = server.commit("d/b", "2\n");
    server.git(&["checkout", "--quiet", "main"]);
    server.commit("c", "3\n");
    let made = server.make("feature/x", None).await.unwrap();
    assert_eq!((made.commit.as_str(), base_of(&made)), (feature.as_str(), (first.as_str(), BaseKind::MergeBase)));
    assert_eq!(made.workspace.digest.sha1, server.git(&["rev-parse", &format!("{feature}^{{tree}}")]));
    assert_eq!(made.base.unwrap().2.digest.sha1, server.git(&["rev-parse", &format!("{first}^{{tree}}")]));
    assert_eq!(made.changes, Changes::of(["d/b"]));
}

#[tokio::test]
async fn a_commit_of_the_default_branch_is_compared_with_its_parent() {
    let server = Server::new();
    let first = server.commit("a", "1\n");
    let second = server.commit("a", "2\n");
    let third = server.commit("a", "3\n");
    for (reference, commit, base) in [("main", &third, &second), ("HEAD", &third, &second), (&second, &second, &first)]
    {
        let made = server.make(reference, None).await.unwrap();
        assert_eq!(
            (&made.commit, base_of(&made)),
            (commit, (base.as_str(), BaseKind::FirstParent { is_own: true })),
            "{reference}"
        );
    }
    assert!(server.make(&first, None).await.unwrap().base.is_none());
    let made = server.make("main", Some(&first)).await.unwrap();
    assert_eq!(base_of(&made), (first.as_str(), BaseKind::Given));
}

fn standing_of(made: &Made) -> (Option<Relation>, Option<Relation>) {
    (made.standing.as_ref().map(|own| own.is), made.base_standing.as_ref().map(|own| own.is))
}

#[tokio::test]
async fn a_commit_counts_by_how_it_stands_to_the_default_branch() {
    let server = Server::new();
    let first = server.commit("a", "1\n");
    let second = server.commit("a", "2\n");
    server.git(&["checkout", "--quiet", "-b", "feature"]);
    let feature = server.commit("b", "1\n");
    server.git(&["checkout", "--quiet", "main"]);
    let (tip, parent, merge_base, other) =
        (Some(Relation::Tip), Some(Relation::Parent), Some(Relation::MergeBase), Some(Relation::Other));
    for (reference, base, expected) in [
        ("main", None, (tip, parent)),
        (&second, None, (tip, parent)),
        ("main", Some(first.as_str()), (tip, other)),
        ("feature", None, (other, tip)),
        ("feature", Some("main"), (other, tip)),
        ("feature", Some("feature"), (other, other)),
        ("main", Some("feature"), (tip, other)),
    ] {
        let made = server.make(reference, base).await.unwrap();
        assert_eq!(standing_of(&made), expected, "{reference} {base:?}");
        let standing = made.base_standing.unwrap();
        assert_eq!((standing.branch.as_str(), &standing.tip, standing.why), ("main", &second, None));
    }
    // The branch moves on, and its checks stay as they are.
    server.commit("c", "1\n");
    assert_eq!(standing_of(&server.make("feature", None).await.unwrap()), (other, merge_base));
    assert_eq!(standing_of(&server.make(&second, None).await.unwrap()), (other, parent));
    // The same commit, named by the plan. Whether it is the merge base is not looked up then.
    assert_eq!(standing_of(&server.make("feature", Some(&second)).await.unwrap()), (other, other));
    assert_eq!(server.make("feature", None).await.unwrap().commit, feature);
}

#[tokio::test]
async fn a_merge_base_with_other_checks_than_the_tip_does_not_count() {
    let server = Server::new();
    server.commit("nofx.toml", "[gates.lint]\ncommand = [\"true\"]\n");
    server.commit("package.json", "{\"scripts\": {\"test\": \"vitest run\"}}\n");
    server.git(&["checkout", "--quiet", "-b", "old"]);
    server.commit("b", "1\n");
    server.git(&["checkout", "--quiet", "main"]);
    server.commit("src/b.test.ts", "import { it } from 'vitest';\nit('works', () => { expect(1).toBe(1); });\n");
    let relation = async || server.make("old", None).await.unwrap().base_standing.unwrap();
    assert_eq!(relation().await.is, Relation::MergeBase, "the branch does not delete later tests");
    server.commit("nofx.toml", "[gates.lint]\ncommand = [\"eslint\", \".\"]\n");
    let outdated = relation().await;
    assert_eq!(
        (outdated.is, outdated.why.as_deref()),
        (Relation::Outdated, Some("its checks are other ones now, in nofx.toml"))
    );
    server.commit("eslint.config.js", "export default [];\n");
    assert_eq!(relation().await.why.as_deref(), Some("its checks are other ones now, in eslint.config.js, nofx.toml"));
    server.git(&["checkout", "--quiet", "old"]);
    server.git(&["merge", "--quiet", "main"]);
    server.git(&["checkout", "--quiet", "main"]);
    assert_eq!(relation().await.is, Relation::Tip);
    server.commit("nofx.toml", "gates = 1\n");
    let why = relation().await.why.unwrap();
    assert!(why.contains("the nofx.toml of its newest commit is not valid"), "{why}");
}

#[tokio::test]
async fn a_merge_base_does_not_count_if_both_sides_have_changed_a_file() {
    let server = Server::new();
    server.commit("a", "1\n");
    server.git(&["checkout", "--quiet", "-b", "old"]);
    // What the branch will have too, so that it counts as work of this change.
    server.commit("b", "1\n");
    server.commit("c", "1\n");
    server.git(&["checkout", "--quiet", "main"]);
    let relation = async || server.make("old", None).await.unwrap().base_standing.unwrap();
    server.commit("d", "1\n");
    assert_eq!(relation().await.is, Relation::MergeBase);
    server.commit("b", "1\n");
    let outdated = relation().await;
    assert_eq!(
        (outdated.is, outdated.why.as_deref()),
        (Relation::Outdated, Some("both have changed files since, in b"))
    );
}

#[tokio::test]
async fn the_parent_of_a_commit_that_was_merged_into_the_branch_does_not_count() {
    let server = Server::new();
    server.commit("a", "1\n");
    server.git(&["checkout", "--quiet", "-b", "feature"]);
    server.commit("nofx.toml", "[gates.lint]\ncommand = [\"true\"]\n");
    let merged = server.commit("b", "1\n");
    server.git(&["checkout", "--quiet", "main"]);
    let own = server.commit("c", "1\n");
    server.git(&["merge", "--quiet", "--no-ff", "-m", "merge", "feature"]);
    for (commit, expected) in [(&merged, Relation::Other), (&own, Relation::Parent)] {
        assert_eq!(server.make(commit, None).await.unwrap().base_standing.unwrap().is, expected);
    }
}

#[tokio::test]
async fn without_a_default_branch_no_commit_counts() {
    let server = Server::new();
    server.commit("a", "1\n");
    server.commit("a", "2\n");
    server.git(&["checkout", "--quiet", "--detach"]);
    assert_eq!(standing_of(&server.make("main", None).await.unwrap()), (None, None));
}

#[tokio::test]
async fn tags_stand_for_their_commits_and_a_doubtful_name_for_none() {
    let server = Server::new();
    server.commit("a", "1\n");
    let tagged = server.commit("a", "2\n");
    server.git(&["tag", "--annotate", "--message", "v1", "v1"]);
    server.git(&["tag", "both"]);
    server.commit("a", "3\n");
    server.git(&["branch", "both"]);
    assert_eq!(server.make("v1", None).await.unwrap().commit, tagged);
    assert_eq!(server.make("refs/tags/both", None).await.unwrap().commit, tagged);
    assert!(server.problem("both", None).await.contains("inputs.ref: \"both\" is a branch and a tag"));
    assert!(server.problem("none", None).await.contains("inputs.ref: the repository has no branch or tag"));
    assert!(server.problem("main", Some("none")).await.contains("inputs.base: the repository has no"));
    server.git(&["checkout", "--quiet", "--orphan", "island"]);
    server.commit("a", "4\n");
    server.git(&["checkout", "--quiet", "main"]);
    assert!(server.problem("island", None).await.contains("inputs.base: has no commit in common"));
}

#[tokio::test]
async fn a_repository_with_sha256_is_read() {
    let server = Server::of_format("sha256");
    server.commit("a", "1\n");
    let commit = server.commit("b", "2\n");
    let made = server.make("main", None).await.unwrap();
    assert_eq!(made.workspace.digest.sha256, server.git(&["rev-parse", &format!("{commit}^{{tree}}")]));
}

#[tokio::test]
async fn bytes_are_those_of_git_and_no_filter_or_attribute_runs() {
    let server = Server::new();
    let canary = server.folder.path().join("canary");
    server.commit(".gitattributes", "*.txt text eol=crlf export-subst\nsecret export-ignore\n*.lfs filter=lfs\n");
    server.commit("a.txt", "$Format:%H$\n");
    server.commit("secret", "s\n");
    server.commit("a.lfs", "version https://git-lfs.github.com/spec/v1\n");
    server.commit(".gitconfig", &format!("[filter \"lfs\"]\n\tsmudge = touch {}\n", canary.display()));
    server.commit("é \"q\"/x", "1\n");
    fs::write(server.folder.path().join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(server.folder.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("a.txt", server.folder.path().join("link")).unwrap();
    let commit = server.commit("last", "");
    let made = server.make("main", None).await.unwrap();
    assert_eq!(made.workspace.digest.sha1, server.git(&["rev-parse", &format!("{commit}^{{tree}}")]));
    let target = tempfile::tempdir().unwrap();
    unpack(&made.workspace.archive, target.path(), Limits::default(), &|| Ok(())).unwrap();
    assert_eq!(fs::read_to_string(target.path().join("a.txt")).unwrap(), "$Format:%H$\n");
    assert_eq!(fs::read_link(target.path().join("link")).unwrap(), Path::new("a.txt"));
    assert!(target.path().join("secret").exists() && !canary.exists());
}

#[tokio::test]
async fn what_a_workspace_cannot_hold_is_refused_by_name() {
    let entry = |mode: &str, path: &str| format!("{mode},{},{path}", "a".repeat(40));
    for (index, why) in [
        (entry("160000", "sub"), "sub is a submodule"),
        (entry("120000", "evil"), "evil is a link that may point outside"),
        (entry("100644", "node_modules/a.js"), "node_modules"),
        (entry("100644", "a\\b"), "leaves the workspace"),
        (entry("100644", "a\u{1b}b"), "control character"),
    ] {
        let server = Server::new();
        server.commit("a", "1\n");
        let blob = {
            fs::write(server.folder.path().join("target"), "../../etc/passwd").unwrap();
            server.git(&["hash-object", "-w", "target"])
        };
        let index = index.replace(&"a".repeat(40), &blob);
        fs::remove_file(server.folder.path().join("target")).unwrap();
        server.git(&["update-index", "--add", "--cacheinfo", &index]);
        server.git(&["commit", "--quiet", "--message", "evil"]);
        let message = server.problem("main", None).await;
        assert!(message.contains(why), "{index}: {message}");
    }
}

#[tokio::test]
async fn a_fetch_ends_at_its_limit() {
    let server = Server::new();
    let noise: Vec<String> = (0..40_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_string()).collect();
    server.commit("noise", &noise.concat());
    let work = tempfile::tempdir().unwrap();
    let attempt = Arc::new(Attempt::begin(work.path()).unwrap());
    let git = Git::of_files(std::env::var("PATH").unwrap());
    let bounds = Bounds { deadline: Instant::now() + Duration::from_mins(1), max_bytes: 50_000 };
    let made = make(&server.wanted("main", None), &git, &attempt, bounds, false).await;
    let Err(error) = made else { panic!("made") };
    assert!(matches!(error, RepositoryError::Git(GitError::TooLarge)), "{error:?}");
}

#[tokio::test]
async fn a_small_repository_with_billions_of_files_is_refused() {
    let server = Server::new();
    server.commit("a", "1\n");
    let mut tree = server.git(&["rev-parse", "HEAD^{tree}"]);
    for _ in 0..10 {
        let lines: String =
            (0..10).fold(String::new(), |lines, name| lines + &format!("040000 tree {tree}\td{name}\n"));
        let listing = server.folder.path().join(".git/listing");
        fs::write(&listing, lines).unwrap();
        let mut mktree = Command::new("git");
        mktree.arg("mktree").current_dir(server.folder.path());
        let made = mktree.stdin(fs::File::open(&listing).unwrap()).output().unwrap();
        tree = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    }
    let bomb = server.git(&["commit-tree", "-m", "bomb", &tree]);
    server.git(&["update-ref", "refs/heads/bomb", &bomb]);
    let first = server.git(&["rev-parse", "main"]);
    let Err(error) = server.make("bomb", Some(&first)).await else { panic!("made") };
    assert!(matches!(error, RepositoryError::Git(GitError::TooLarge)), "{error:?}");
}

#[test]
fn inputs_are_checked() {
    let read = |inputs: Value| Wanted::parse(&inputs).map_err(|problems| problems.len());
    let good = read(json!({"repository": "https://h/x", "ref": "feature/a-b_c.d+1", "base": null})).unwrap();
    assert_eq!((good.reference.as_str(), good.base), ("feature/a-b_c.d+1", None));
    assert_eq!(read(json!({})).unwrap_err(), 2);
    for name in [
        "",
        "--upload-pack=x",
        "a/-b",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a*",
        "HEAD@{1}",
        "a.lock",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a\n",
        "$(x)",
    ] {
        assert_eq!(read(json!({"repository": "https://h/x", "ref": name})).unwrap_err(), 1, "{name}");
        assert!(read(json!({"repository": "https://h/x", "ref": "a", "base": name})).is_err(), "{name}");
    }
}

#[test]
fn a_failure_says_what_to_do() {
    let wanted = Wanted { repository: "https://h/x".into(), reference: "a".into(), base: None };
    for (error, code, retryable) in [
        (GitError::Missing, "toolchain_missing", false),
        (GitError::TimedOut, "repository_unavailable", true),
        (GitError::TooLarge, "repository_too_large", false),
        (GitError::Failed("fatal: could not read Username for 'https://h'".into()), "repository_unavailable", false),
        (GitError::Failed("fatal: unable to access: Could not resolve host".into()), "repository_unavailable", true),
    ] {
        let shared::domain::Verdict::Failed { error, retryable: retried, .. } = failure(error.into(), &wanted).verdict
        else {
            panic!("not failed")
        };
        assert_eq!((error.code.as_str(), retried), (code, retryable));
    }
}
