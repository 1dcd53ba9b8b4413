//! A deployment's settings for its gates. Only `shared::config` reads the environment.

use std::env;
use std::path::{self, PathBuf};
use std::time::Duration;

use crate::archive::MAX_PACKED_BYTES;
use crate::coverage::{SourceRules, Threshold};
use crate::unpack::Limits;

#[derive(Debug, Clone)]
pub struct GateConfig {
    /// The folder to check if a plan names no workspace, and the base to compare it with.
    pub default_workspace: Option<PathBuf>,
    pub default_base: Option<PathBuf>,
    /// Holds only attempts and cached installations.
    pub work_dir: PathBuf,
    /// PATH of every command: where `node`, `npm` and `sh` are found.
    pub search_path: String,
    /// npm's download cache. npm verifies its contents against the lockfile, so attempts may share it.
    pub npm_cache: PathBuf,
    /// npm settings for the installation, for a registry that needs them. The environment of the workspace's commands
    /// does not contain them.
    pub npm_user_config: Option<PathBuf>,
    pub install_timeout: Duration,
    /// The part of a step's time reserved for judging coverage and storing the evidence.
    pub margin: Duration,
    /// How many installations the cache holds. It deletes the oldest first.
    pub max_installs: usize,
    pub max_packed_bytes: u64,
    pub unpack: Limits,
    pub max_report_bytes: u64,
    pub coverage_threshold: Threshold,
    pub strict_arms: bool,
    pub sources: SourceRules,
    /// Names of package.json scripts, in order of preference.
    pub typecheck_scripts: Vec<String>,
    pub lint_scripts: Vec<String>,
    pub unit_scripts: Vec<String>,
}

impl GateConfig {
    /// The defaults, with this work folder.
    pub fn new(work_dir: PathBuf) -> Self {
        // Absolute, because commands run in other folders than this process.
        let work_dir = path::absolute(&work_dir).unwrap_or(work_dir);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            default_workspace: None,
            default_base: None,
            npm_cache: work_dir.join("npm"),
            work_dir,
            search_path: "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin:/var/lang/bin".to_string(),
            npm_user_config: None,
            install_timeout: Duration::from_mins(5),
            margin: Duration::from_secs(10),
            max_installs: 4,
            max_packed_bytes: MAX_PACKED_BYTES,
            unpack: Limits::default(),
            max_report_bytes: 64 * 1024 * 1024,
            coverage_threshold: Threshold::DEFAULT,
            strict_arms: false,
            sources: SourceRules::default(),
            typecheck_scripts: names(&["typecheck"]),
            lint_scripts: names(&["lint"]),
            unit_scripts: names(&["coverage", "test"]),
        }
    }

    /// Puts the folder in which this PATH finds `node` first, because version managers install it in unusual places.
    /// Ignores the rest of this PATH.
    #[must_use]
    pub fn with_node_from(mut self, search_path: &str) -> Self {
        let has_node = |folder: &PathBuf| folder.is_absolute() && folder.join("node").is_file();
        let known: Vec<PathBuf> = env::split_paths(&self.search_path).collect();
        if let Some(folder) = env::split_paths(search_path).find(has_node)
            && !known.contains(&folder)
            && let Some(folder) = folder.to_str()
        {
            self.search_path = format!("{folder}:{}", self.search_path);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_of_node_is_used_from_a_users_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("node"), "").unwrap();
        let users = format!("/somewhere/secret:{}:/usr/bin", folder.path().display());
        let config = GateConfig::new(PathBuf::from("/w")).with_node_from(&users);
        assert!(config.search_path.starts_with(folder.path().to_str().unwrap()));
        assert!(!config.search_path.contains("secret"));
    }
}
