//! The heads of audits that this machine has verified, in `audit-heads.toml` beside the profiles. If a verified chain is replaced
//! by another one or a shorter one, the next verification fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use nofx_local::report::hinted;
use shared::domain::TenantId;
use shared::domain::audit::AuditHead;

use crate::client::profile;

/// Heads by the address of the API, and by tenant.
type Heads = BTreeMap<String, BTreeMap<String, AuditHead>>;

/// The file, and the API whose heads count.
#[derive(Debug)]
pub struct AuditHeads {
    pub file: PathBuf,
    api_url: String,
}

impl AuditHeads {
    /// The heads of an API's audits.
    pub fn of(api_url: &str) -> Result<Self> {
        Ok(Self::at(profile::path()?.with_file_name("audit-heads.toml"), api_url))
    }

    pub fn at(file: PathBuf, api_url: &str) -> Self {
        Self { file, api_url: api_url.to_owned() }
    }

    /// The head that was seen last.
    pub fn seen(&self, tenant: &TenantId) -> Result<Option<AuditHead>> {
        Ok(read(&self.file)?.get_mut(&self.api_url).and_then(|heads| heads.remove(&tenant.0)))
    }

    /// Remembers a head. Replaces the file in one step, so that nobody reads a half-written one.
    pub fn remember(&self, tenant: &TenantId, head: &AuditHead) -> Result<()> {
        let mut heads = read(&self.file)?;
        heads.entry(self.api_url.clone()).or_default().insert(tenant.0.clone(), head.clone());
        let text = toml::to_string(&heads).context("cannot write the heads of audits")?;
        let write = || -> io::Result<()> {
            if let Some(folder) = self.file.parent() {
                fs::create_dir_all(folder)?;
            }
            let next = self.file.with_extension("toml.new");
            fs::write(&next, text)?;
            fs::rename(&next, &self.file)
        };
        write().map_err(|error| {
            let hint = "make it yours (chmod, chown), or name a file in another folder in NOFX_CONFIG";
            hinted(format!("cannot write {}: {error}", self.file.display()), hint)
        })
    }
}

fn read(file: &Path) -> Result<Heads> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Heads::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    toml::from_str(&text).map_err(|error| {
        let hint = "it has the last head of each audit that was verified; mend it, or delete it to start anew";
        hinted(format!("{}: {}", file.display(), error.message()), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_kept_for_its_api_and_its_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nofx/audit-heads.toml");
        let heads = |url| AuditHeads::at(file.clone(), url);
        let tenant = |name: &str| TenantId(name.into());
        let head = |seq| AuditHead { seq, hash: format!("{seq:064}") };
        let here = heads("http://127.0.0.1:3000");
        assert_eq!(here.seen(&tenant("a.b")).unwrap(), None);
        here.remember(&tenant("a.b"), &head(7)).unwrap();
        here.remember(&tenant("c"), &head(8)).unwrap();
        heads("https://elsewhere").remember(&tenant("c"), &head(9)).unwrap();
        here.remember(&tenant("a.b"), &head(10)).unwrap();
        let seen = |url, name| heads(url).seen(&tenant(name)).unwrap().map(|head| head.seq);
        assert_eq!(seen("http://127.0.0.1:3000", "a.b"), Some(10));
        assert_eq!(seen("http://127.0.0.1:3000", "c"), Some(8));
        assert_eq!(seen("https://elsewhere", "c"), Some(9));
        assert_eq!(seen("https://elsewhere", "a.b"), None);
        fs::write(&file, "[x").unwrap();
        let error = here.seen(&tenant("c")).unwrap_err();
        assert!(nofx_local::report::hint(&error).is_some_and(|hint| hint.contains("mend it")), "{error}");
    }
}
