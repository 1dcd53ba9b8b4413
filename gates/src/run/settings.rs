//! A runner's settings.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use nofx_sandbox as sandbox;

use crate::dependencies::InstallSettings;
use crate::unpack::Limits;

/// Where a runner works, and with what.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// Holds attempts, kept installations and download caches, and nothing else.
    pub work_dir: PathBuf,
    /// PATH of every command: where toolchains are found.
    pub search_path: String,
    /// npm's user settings, for installing only. No command of a workspace can read them.
    pub npm_user_config: Option<PathBuf>,
    pub unpack: Limits,
    pub limits: sandbox::Limits,
    /// What to use of the host at most. Tests use it to force a weaker sandbox.
    pub at_most: Option<sandbox::Host>,
}

impl RunnerSettings {
    /// The defaults, with this work folder.
    pub fn new(work_dir: PathBuf) -> Self {
        Self {
            // Absolute, because commands run in other folders than this process.
            work_dir: std::path::absolute(&work_dir).unwrap_or(work_dir),
            search_path: "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin:/var/lang/bin:/opt/bin".to_owned(),
            npm_user_config: None,
            unpack: Limits::default(),
            limits: sandbox::Limits::default(),
            at_most: None,
        }
    }

    /// Where and how dependencies are installed.
    pub fn installs(&self) -> InstallSettings {
        let toolchain = sandbox::toolchain(OsStr::new(&self.search_path));
        InstallSettings {
            store: self.work_dir.join("installs"),
            caches: self.work_dir.join("caches"),
            search_path: toolchain.search_path.to_string_lossy().into_owned(),
            read_only: toolchain.read_only,
            environment: toolchain
                .environment
                .into_iter()
                .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
                .collect(),
            npm_user_config: self.npm_user_config.clone(),
            pip_config: None,
            timeout: Duration::from_mins(5),
            max_installs: 8,
            at_most: self.at_most.clone(),
        }
    }

    /// Also searches the folders of this PATH that hold a toolchain, because version managers install them in unusual
    /// places. The rest of this PATH is ignored.
    pub fn add_toolchains_of(&mut self, search_path: &str) {
        const PROGRAMS: [&str; 5] = ["node", "python3", "cargo", "go", "git"];
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in std::env::split_paths(search_path).filter(|folder| folder.is_absolute()) {
            let is_new = !folders.contains(&folder);
            if is_new && PROGRAMS.iter().any(|program| folder.join(program).is_file()) {
                folders.push(folder);
            }
        }
        for folder in std::env::split_paths(&self.search_path) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        if let Some(joined) = std::env::join_paths(folders).ok().and_then(|joined| joined.into_string().ok()) {
            self.search_path = joined;
        }
    }
}
