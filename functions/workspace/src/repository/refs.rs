//! Finds the commits that names stand for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nofx_gates::path::shown;
use shared::domain::Problem;

use super::{RepositoryError, Wanted};
use crate::git::{Bounds, Git, GitError};

/// How many commits of a history are fetched, without their files, to find a merge base.
const MAX_HISTORY: &str = "--depth=5000";

/// The commits of a repository that matter to a step.
pub struct Refs {
    pub commit: String,
    listed: BTreeMap<String, String>,
    /// The default branch, without `refs/heads/`.
    pub branch: Option<String>,
    /// The newest commit of the default branch.
    pub tip: Option<String>,
}

/// Why a commit is the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseKind {
    Given,
    MergeBase,
    /// The commit is on the default branch itself: one of its own, or one of a branch that was merged into it.
    FirstParent {
        is_own: bool,
    },
}

impl BaseKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::MergeBase => "merge_base",
            Self::FirstParent { .. } => "first_parent",
        }
    }
}

impl Refs {
    /// Asks the server.
    pub async fn find(wanted: &Wanted, git: &Git, folder: &Path, bounds: Bounds) -> Result<Self, RepositoryError> {
        let names = [Some(&wanted.reference), wanted.base.as_ref()];
        let patterns = names.into_iter().flatten().filter(|name| !is_id(name)).flat_map(|name| candidates(name));
        let patterns = patterns.flat_map(|name| [format!("{name}^{{}}"), name]);
        let start = ["ls-remote", "--symref", "--", &wanted.repository, "HEAD"].map(str::to_owned);
        let answer = git.run(folder, start.into_iter().chain(patterns), bounds).await?;
        let (mut listed, mut branch) = (BTreeMap::new(), None);
        for line in String::from_utf8_lossy(&answer).lines() {
            match line.split_once('\t') {
                Some((id, name)) if is_id(id) => {
                    listed.insert(name.to_owned(), id.to_owned());
                }
                Some((target, "HEAD")) => branch = target.strip_prefix("ref: refs/heads/").map(str::to_owned),
                _ => {}
            }
        }
        let branch = branch.filter(|name| name.len() <= super::MAX_NAME_BYTES && is_name(name));
        let tip = listed.get("HEAD").cloned();
        let mut refs = Self { commit: String::new(), listed, branch, tip };
        refs.commit = refs.resolve("ref", &wanted.reference)?;
        Ok(refs)
    }

    fn resolve(&self, field: &str, name: &str) -> Result<String, RepositoryError> {
        let problem = |message: String| RepositoryError::Inputs(Problem::new(format!("inputs.{field}"), message));
        if is_id(name) {
            return Ok(name.to_owned());
        }
        // An annotated tag is an object of its own. `^{}` names its commit.
        let id = |name: &String| self.listed.get(&format!("{name}^{{}}")).or_else(|| self.listed.get(name));
        let candidates = candidates(name);
        let mut found = candidates.iter().filter_map(id);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => Err(problem(format!(
                "{} is a branch and a tag; write refs/heads/{name} or refs/tags/{name}",
                shown(name)
            ))),
            (None, _) => Err(problem(format!(
                "the repository has no branch or tag {}; a commit must have all of its 40 digits",
                shown(name)
            ))),
        }
    }

    /// The commit to compare with: the one that the inputs name, else the merge base with the default branch. A commit of
    /// the default branch is compared with its first parent. The first commit of all has no base.
    pub async fn base(
        &self,
        wanted: &Wanted,
        git: &Git,
        folder: &Path,
        bounds: Bounds,
    ) -> Result<Option<(String, BaseKind)>, RepositoryError> {
        if let Some(name) = &wanted.base {
            return Ok(Some((self.resolve("base", name)?, BaseKind::Given)));
        }
        let history = self.history(wanted, git, folder, bounds).await?;
        if let Some(tip) = &self.tip {
            let found = git.run(&history, ["merge-base", &self.commit, tip], bounds).await;
            match found.map(|id| String::from_utf8_lossy(&id).trim().to_owned()) {
                Ok(id) if id != self.commit => return Ok(Some((id, BaseKind::MergeBase))),
                Ok(_) => {}
                // It says nothing if there is no common commit.
                Err(GitError::Failed(why)) if why.is_empty() => {
                    let message = "has no commit in common with the default branch; name the commit to compare with";
                    return Err(RepositoryError::Inputs(Problem::new("inputs.base", message)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let parent = format!("{}^1", self.commit);
        let parent = match git.run(&history, ["rev-parse", "--verify", "--quiet", &parent], bounds).await {
            Ok(id) => String::from_utf8_lossy(&id).trim().to_owned(),
            Err(GitError::Failed(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let is_own = match &self.tip {
            Some(tip) => {
                let own = git.run(&history, ["rev-list", "--first-parent", tip], bounds).await?;
                String::from_utf8_lossy(&own).lines().any(|id| id == self.commit)
            }
            None => false,
        };
        Ok(Some((parent, BaseKind::FirstParent { is_own })))
    }

    /// Fetches commits without their files, into a repository of its own.
    async fn history(
        &self,
        wanted: &Wanted,
        git: &Git,
        folder: &Path,
        bounds: Bounds,
    ) -> Result<PathBuf, RepositoryError> {
        let folder = folder.join("history");
        super::checkout::init(git, &folder, &self.commit, bounds).await?;
        let remote = format!("remote.origin.url={}", wanted.repository);
        let start =
            ["-c", &remote, "fetch", "--quiet", "--no-tags", "--filter=tree:0", MAX_HISTORY, "origin", &self.commit];
        git.run(&folder, start.into_iter().chain(self.tip.as_deref()), bounds).await?;
        Ok(folder)
    }
}

/// The full names that a name may stand for.
fn candidates(name: &str) -> Vec<String> {
    if name == "HEAD" || name.starts_with("refs/") {
        vec![name.to_owned()]
    } else {
        vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")]
    }
}

/// Whether it is a commit's id, in one of git's two formats.
pub fn is_id(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether it can be a name: git's rules, and nothing that a command line or a pattern reads otherwise.
pub fn is_name(name: &str) -> bool {
    let forbidden = |character: char| {
        character.is_control() || character.is_whitespace() || "~^:?*[\\{}\"'`$;&|<>()!".contains(character)
    };
    let is_part = |part: &str| {
        let is_lock = part.as_bytes().ends_with(b".lock");
        !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.') && !is_lock
    };
    !name.contains(forbidden) && !name.contains("..") && name.split('/').all(is_part)
}
