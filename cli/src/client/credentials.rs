//! Tokens that `nofx login` stored, in `credentials.toml` beside the profiles. Only its owner can read the file. A token
//! is sent only to the origin that it was stored for.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nofx_local::report::hinted;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::client::profile;
use crate::client::token::Token;

const PRIVATE: u32 = 0o600;

/// The file. Its `Debug` shows no token.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials {
    /// By origin, such as `https://api.example.com`.
    origins: BTreeMap<String, Credential>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    token: String,
}

/// `credentials.toml` in the folder of the profiles.
pub fn path() -> Result<PathBuf> {
    Ok(profile::path()?.with_file_name("credentials.toml"))
}

impl Credentials {
    /// The credentials in a file. Empty if there is no such file. Fails if others can read it.
    pub fn read(file: &Path) -> Result<Self> {
        let text = match fs::metadata(file).and_then(|found| Ok((found, fs::read_to_string(file)?))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unusable("read", file, &error)),
            Ok((found, _)) if found.permissions().mode() & 0o077 != 0 => {
                let hint = format!("run chmod 600 {}, and log in again if somebody may have read it", file.display());
                return Err(hinted(format!("others can read {}, which has tokens", file.display()), hint));
            }
            Ok((_, text)) => text,
        };
        // The error of the parser would show the line, and so a token.
        let problem = |_| hinted(format!("{} is not readable", file.display()), "delete it, and log in again");
        toml::from_str(&text).map_err(problem)
    }

    /// The token for an API at this address.
    pub fn token_for(&self, api_url: &str) -> Result<Option<Token>> {
        let found = origin(api_url).and_then(|origin| self.origins.get(&origin));
        found.map(|credential| Token::named("the stored token", &credential.token)).transpose()
    }

    /// The same as it was stored.
    pub fn text_for(&self, api_url: &str) -> Option<&str> {
        let found = origin(api_url).and_then(|origin| self.origins.get(&origin));
        found.map(|credential| credential.token.as_str())
    }

    /// Stores the token for an API at this address.
    pub fn set(&mut self, api_url: &str, token: &str) {
        if let Some(origin) = origin(api_url) {
            self.origins.insert(origin, Credential { token: token.to_owned() });
        }
    }

    /// Forgets the token for an API at this address.
    pub fn remove(&mut self, api_url: &str) {
        if let Some(origin) = origin(api_url) {
            self.origins.remove(&origin);
        }
    }

    /// Replaces the file in one step, so that nobody reads a half-written one. Others can never read it.
    pub fn save(&self, file: &Path) -> Result<()> {
        let text = toml::to_string(self)?;
        let write = || -> io::Result<()> {
            let folder = file.parent().unwrap_or_else(|| Path::new("."));
            fs::create_dir_all(folder)?;
            let permissions = fs::Permissions::from_mode(PRIVATE);
            let mut next = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
            next.write_all(text.as_bytes())?;
            next.persist(file).map(|_| ()).map_err(|error| error.error)
        };
        write().map_err(|error| unusable("write", file, &error))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.origins.keys()).finish()
    }
}

fn origin(api_url: &str) -> Option<String> {
    let origin = Url::parse(api_url.trim()).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

fn unusable(verb: &str, file: &Path, error: &io::Error) -> anyhow::Error {
    let hint = "make it yours (chmod, chown), or name a file in another folder in NOFX_CONFIG";
    hinted(format!("cannot {verb} {}: {error}", file.display()), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "nofx_person_abc_secret";

    #[test]
    fn a_token_counts_for_its_origin_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/credentials.toml");
        let mut written = Credentials::read(&file).unwrap();
        written.set("https://api.test/prod", TOKEN);
        written.save(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, PRIVATE);
        let read = Credentials::read(&file).unwrap();
        assert_eq!(read.text_for("https://API.test:443/"), Some(TOKEN));
        for other in
            ["http://api.test", "https://api.test:8443", "https://api.test.evil.test", "https://evil.test", "x"]
        {
            assert_eq!((read.text_for(other), read.token_for(other).unwrap().is_some()), (None, false), "{other}");
        }
        assert!(!format!("{read:?}").contains("secret"));

        let mut read = read;
        read.remove("https://api.test");
        read.save(&file).unwrap();
        assert!(Credentials::read(&file).unwrap() == Credentials::default());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials.toml");
        for mode in [0o640, 0o604, 0o644, 0o660] {
            fs::write(&file, format!("[\"https://api.test\"]\ntoken = \"{TOKEN}\"\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = Credentials::read(&file).unwrap_err();
            assert!(error.to_string().starts_with("others can read "), "{mode:o}: {error}");
        }
        // What replaces it is private again, whatever its mode was.
        let mut written = Credentials::default();
        written.set("https://api.test", TOKEN);
        written.save(&file).unwrap();
        assert_eq!(Credentials::read(&file).unwrap().text_for("https://api.test"), Some(TOKEN));
    }

    #[test]
    fn a_broken_file_does_not_show_its_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials.toml");
        for text in [format!("[\"https://api.test\"]\ntoken = {TOKEN}\n"), format!("token = \"{TOKEN}\"\n")] {
            fs::write(&file, &text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(PRIVATE)).unwrap();
            let error = Credentials::read(&file).unwrap_err();
            assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        }
    }
}
