//! Where a base came from: what `workspace:git` recorded about a commit, and whether a policy trusts it.
//!
//! The author of a plan chooses the repository, the ref and the base, and may push branches. So a commit counts only by how
//! it stands to the default branch of a repository that the policy names, and its checks may be no weaker than that
//! branch's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{RunId, StepId};
use super::policy::GatePolicy;

/// How a stored commit stands to the default branch of its repository. `workspace:git` records it in the artifact's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The default branch, without `refs/heads/`.
    pub branch: String,
    /// The branch's newest commit at the time of the fetch.
    pub tip: String,
    pub is: Relation,
    /// Why an outdated base does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a commit is to the default branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Its newest commit.
    Tip,
    /// The merge base of the step's `ref` and the branch. Its checks are no weaker than those of the tip, and no file was
    /// changed on both sides since. It says what the `ref` changed, and nothing about other workspaces.
    MergeBase,
    /// A merge base for which that is not so, or is not known.
    Outdated,
    /// The first parent of the step's `ref`, which is one of the branch's own commits. It says how that commit came to be,
    /// and nothing about other workspaces.
    Parent,
    /// Anything else, such as the tip of another branch, or a commit of the branch that is not its newest.
    Other,
}

impl Relation {
    /// As in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tip => "tip",
            Self::MergeBase => "merge_base",
            Self::Outdated => "outdated",
            Self::Parent => "parent",
            Self::Other => "other",
        }
    }
}

/// The step `workspace:git` that stored a base. The database vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BaseOrigin {
    pub repository: String,
    pub commit: String,
    /// `None` if the server did not say which branch is the default.
    pub standing: Option<Standing>,
    pub run_id: RunId,
    pub step_id: StepId,
    /// Since the step stored it.
    pub age_s: u64,
    /// Whether the same attempt of that step also stored the workspace that is judged.
    pub has_workspace: bool,
}

/// How long the tip of a branch stands for the branch. Later its checks may be others.
pub const MAX_AGE: Duration = Duration::from_hours(7 * 24);

impl BaseOrigin {
    /// Whether the policy trusts it. `Err` says why not, and what to do.
    pub fn check(&self, policy: &GatePolicy) -> Result<(), String> {
        let Self { repository, commit, .. } = self;
        if !policy.names_repository(repository) {
            return Err(format!(
                "the policy trusts repositories that `gates.repositories` names with their whole URL, and {repository} is not one"
            ));
        }
        let Some(Standing { branch, is, why, .. }) = &self.standing else {
            return Err(format!("{repository} does not say which branch is its default branch"));
        };
        if self.age_s > MAX_AGE.as_secs() {
            let days = MAX_AGE.as_secs() / 86_400;
            return Err(format!("the base was fetched more than {days} days ago; run workspace:git again"));
        }
        match is {
            Relation::Tip => Ok(()),
            Relation::MergeBase | Relation::Parent if self.has_workspace => Ok(()),
            Relation::MergeBase | Relation::Parent => Err(format!(
                "commit {commit} counts only for the workspace that the same step fetched; to judge other changes of {branch}, \
                 give the `workspace` of a step workspace:git with `ref: {branch}` as the base"
            )),
            Relation::Outdated => Err(format!(
                "the change left {branch} at commit {commit}, and that cannot stand for {branch} now: {}; merge {branch} into \
                 the change and run workspace:git again",
                why.as_deref().unwrap_or("they were not compared")
            )),
            Relation::Other => Err(format!(
                "commit {commit} is neither the newest commit of {branch} nor where the change left {branch}; run \
                 workspace:git without `base`, and give its `base` to the gate"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn origin(is: Relation) -> BaseOrigin {
        BaseOrigin {
            repository: "https://github.com/acme/site.git".into(),
            commit: "c1".into(),
            standing: Some(Standing { branch: "main".into(), tip: "c2".into(), is, why: Some("nofx.toml".into()) }),
            run_id: RunId(Uuid::nil()),
            step_id: StepId(Uuid::nil()),
            age_s: 60,
            has_workspace: false,
        }
    }

    fn policy(repositories: &[&str]) -> GatePolicy {
        let repositories = repositories.iter().map(|url| (*url).to_owned()).collect();
        GatePolicy { repositories, ..GatePolicy::default() }
    }

    #[test]
    fn a_base_counts_by_how_it_stands_to_the_default_branch() {
        let policy = policy(&["https://github.com/acme/site"]);
        let check = |origin: BaseOrigin| origin.check(&policy);
        assert_eq!(check(origin(Relation::Tip)), Ok(()));
        for own in [Relation::MergeBase, Relation::Parent] {
            assert_eq!(check(BaseOrigin { has_workspace: true, ..origin(own) }), Ok(()));
        }
        for (refused, why) in [
            (origin(Relation::MergeBase), "only for the workspace that the same step fetched"),
            (origin(Relation::Parent), "only for the workspace that the same step fetched"),
            (origin(Relation::Outdated), "cannot stand for main now: nofx.toml; merge main"),
            (origin(Relation::Other), "run workspace:git without `base`"),
            (BaseOrigin { has_workspace: true, ..origin(Relation::Other) }, "neither the newest commit of main"),
            (BaseOrigin { standing: None, ..origin(Relation::Tip) }, "does not say which branch"),
            (BaseOrigin { age_s: MAX_AGE.as_secs() + 1, ..origin(Relation::Tip) }, "more than 7 days ago"),
        ] {
            let message = check(refused.clone()).unwrap_err();
            assert!(message.contains(why), "{refused:?}: {message}");
        }
        assert_eq!(check(BaseOrigin { age_s: MAX_AGE.as_secs(), ..origin(Relation::Tip) }), Ok(()));
    }

    #[test]
    fn a_prefix_allows_a_fetch_and_vouches_for_nothing() {
        for named in
            ["https://github.com/acme/site", "https://github.com/acme/site/", "https://github.com/acme/site.git"]
        {
            assert_eq!(origin(Relation::Tip).check(&policy(&["https://x.test", named])), Ok(()), "{named}");
        }
        for prefixes in
            [&[][..], &["https://github.com/acme"], &["https://github.com"], &["https://github.com/acme/sit"]]
        {
            let message = origin(Relation::Tip).check(&policy(prefixes)).unwrap_err();
            assert!(message.contains("names with their whole URL"), "{message}");
        }
    }
}
