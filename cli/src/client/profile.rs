//! Profiles: the deployments that a user works with, in `~/.config/nofx/config.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Result, anyhow};
use nofx_local::report::{hinted, printable};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table, value};

use crate::client::error::ApiError;
use crate::client::resolve::did_you_mean;

/// Where `nofx dev` serves the API.
pub const LOCAL_URL: &str = "http://127.0.0.1:3000";

/// The API to call, and how requests to it are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub api_url: String,
    /// Sign requests for API Gateway in this AWS region, for an API that requires IAM authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Profile of the AWS configuration whose credentials sign. API Gateway's own addresses contain their region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_profile: Option<String>,
}

/// The configuration file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The profile that counts unless another one is named.
    pub default: Option<String>,
    #[serde(default, rename = "profile")]
    pub profiles: BTreeMap<String, Target>,
}

/// What the environment says about the API.
#[derive(Debug, Default)]
pub struct Environment {
    /// `NOFX_API_URL`.
    pub api_url: Option<String>,
    pub file: PathBuf,
}

impl Environment {
    pub fn read() -> Result<Self> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Ok(Self { api_url: set("NOFX_API_URL"), file: path()? })
    }

    /// `NOFX_API_URL`, else the profile of this name, else the default profile, else the local stack.
    pub fn target(&self, profile: Option<&str>) -> Result<Target> {
        if let Some(url) = self.api_url.as_deref().map(str::trim) {
            check_url(url).map_err(|problem| anyhow!("NOFX_API_URL: {problem}"))?;
            return Ok(Target { api_url: url.to_owned(), ..Target::default() });
        }
        let mut profiles = Profiles::read(&self.file)?;
        let Some(name) = profile.or(profiles.default.as_deref()).map(str::to_owned) else {
            return Ok(Target { api_url: LOCAL_URL.to_owned(), ..Target::default() });
        };
        let found = profiles.profiles.remove(&name);
        found.ok_or_else(|| missing(&name, profiles.profiles.keys().map(String::as_str), &self.file))
    }
}

/// `NOFX_CONFIG`, else `nofx/config.toml` in `XDG_CONFIG_HOME` or `~/.config`.
pub fn path() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = set("NOFX_CONFIG") {
        return Ok(file);
    }
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let folder = folder.ok_or_else(|| hinted("HOME is not set", "set NOFX_CONFIG to the path of the profile file"))?;
    Ok(folder.join("nofx/config.toml"))
}

fn missing<'a>(name: &str, known: impl Iterator<Item = &'a str>, file: &Path) -> anyhow::Error {
    const ELSE: &str = "nofx profile list lists them, and nofx profile add NAME URL adds one";
    let hint = did_you_mean(name, known).unwrap_or_else(|| ELSE.to_owned());
    ApiError::not_found(format!("{} has no profile {}", file.display(), printable(name)), hint).into()
}

impl Profiles {
    /// The profiles of a file. None, if there is no such file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = text_of(file)?;
        let profiles: Self = toml::from_str(&text)
            .map_err(|error| unreadable(file, &text, error.span().map(|span| span.start), error.message()))?;
        for (name, target) in &profiles.profiles {
            check_url(&target.api_url).map_err(|problem| {
                let at = text.find(&target.api_url);
                unreadable(file, &text, at, &format!("api_url of {name}: {problem}"))
            })?;
        }
        Ok(profiles)
    }
}

/// An error that names the file and the line.
fn unreadable(file: &Path, text: &str, at: Option<usize>, message: &str) -> anyhow::Error {
    let line = at.map(|at| text.get(..at).unwrap_or_default().matches('\n').count() + 1);
    let place = line.map(|line| format!(":{line}")).unwrap_or_default();
    hinted(
        format!("{}{place}: {}", file.display(), message.trim()),
        "a profile looks like this: [profile.prod] api_url = \"https://..\"; nofx profile add writes one",
    )
}

fn text_of(file: &Path) -> Result<String> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(unusable("read", file, &error)),
    }
}

/// The file cannot be read or written.
fn unusable(verb: &str, file: &Path, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => "name a file in NOFX_CONFIG",
        _ => "make it yours (chmod, chown), or name another file in NOFX_CONFIG",
    };
    hinted(format!("cannot {verb} {}: {error}", file.display()), hint)
}

/// Says what is wrong with the name of a profile. People write it in shells and see it in tables.
pub fn check_name(text: &str) -> Result<(), String> {
    let is_plain = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(());
    }
    Err("a name has letters, digits, - _ and . only".to_owned())
}

/// Says what is wrong with the address of an API.
pub fn check_url(text: &str) -> Result<(), String> {
    let example = "looks like https://api.example.com or http://127.0.0.1:3000";
    let url = Url::parse(text).map_err(|error| format!("{text} is not a URL ({error}); it {example}"))?;
    let is_plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    if is_plain { Ok(()) } else { Err(format!("{text} is not the address of an API; it {example}")) }
}

/// Changes of the file. Comments and order stay.
#[derive(Debug)]
pub struct Editor {
    file: PathBuf,
    document: DocumentMut,
}

impl Editor {
    pub fn open(file: &Path) -> Result<Self> {
        // Its errors are better.
        Profiles::read(file)?;
        let document = text_of(file)?.parse().map_err(|error| anyhow!("{}: {error}", file.display()))?;
        Ok(Self { file: file.to_owned(), document })
    }

    /// Adds or replaces a profile.
    pub fn set(&mut self, name: &str, target: &Target) {
        let mut table = Table::new();
        table["api_url"] = value(&target.api_url);
        for (key, field) in [("region", &target.region), ("aws_profile", &target.aws_profile)] {
            if let Some(field) = field {
                table[key] = value(field);
            }
        }
        let profiles = self.document.entry("profile").or_insert_with(|| {
            let mut profiles = Table::new();
            profiles.set_implicit(true);
            Item::Table(profiles)
        });
        if let Some(profiles) = profiles.as_table_like_mut() {
            profiles.insert(name, Item::Table(table));
        }
    }

    /// Removes a profile. If it was the default, there is no default any more.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.require(name)?;
        if let Some(profiles) = self.document.get_mut("profile").and_then(Item::as_table_like_mut) {
            profiles.remove(name);
        }
        if self.document.get("default").and_then(Item::as_str) == Some(name) {
            self.document.remove("default");
        }
        Ok(())
    }

    /// Makes a profile the default.
    pub fn set_default(&mut self, name: &str) -> Result<()> {
        self.require(name)?;
        self.document["default"] = value(name);
        Ok(())
    }

    fn require(&self, name: &str) -> Result<()> {
        let profiles = self.document.get("profile").and_then(Item::as_table_like);
        let names: Vec<&str> = profiles.into_iter().flat_map(|table| table.iter().map(|(name, _)| name)).collect();
        if names.contains(&name) { Ok(()) } else { Err(missing(name, names.into_iter(), &self.file)) }
    }

    /// Writes the file in one step, so that nobody reads a half.
    pub fn save(&self) -> Result<()> {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.file.parent() {
                fs::create_dir_all(folder)?;
            }
            let next = self.file.with_extension("toml.new");
            fs::write(&next, self.document.to_string())?;
            fs::rename(&next, &self.file)
        };
        write().map_err(|error| unusable("write", &self.file, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nofx/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn target(url: &str) -> Target {
        Target { api_url: url.into(), ..Target::default() }
    }

    #[test]
    fn the_environment_wins_then_the_named_profile_then_the_default() {
        let text = "default = \"test\"\n[profile.test]\napi_url = \"http://t\"\n[profile.prod]\napi_url = \"https://p\"\n\
                    region = \"eu-central-1\"\n";
        let (_dir, file) = file(text);
        let mut environment = Environment { api_url: None, file };
        assert_eq!(environment.target(None).unwrap(), target("http://t"));
        let prod = environment.target(Some("prod")).unwrap();
        assert_eq!((prod.api_url.as_str(), prod.region.as_deref()), ("https://p", Some("eu-central-1")));
        environment.api_url = Some("http://e ".into());
        assert_eq!(environment.target(Some("prod")).unwrap(), target("http://e"));
        for wrong in ["127.0.0.1:3000", "localhost:3000", "ftp://e", "x"] {
            environment.api_url = Some(wrong.into());
            let error = environment.target(None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("NOFX_API_URL: {wrong} is not ")), "{error}");
            assert!(error.contains("http://127.0.0.1:3000"), "{error}");
        }
        let nowhere = Environment { api_url: None, file: PathBuf::from("/nowhere/config.toml") };
        assert_eq!(nowhere.target(None).unwrap(), target(LOCAL_URL));
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_nearest_profile() {
        for (text, line, message) in [
            ("default = \"a\"\n\nprofile = 1\n", 3, "invalid type"),
            ("[profile.a]\napi_url = \"http://a\"\nurl = 1\n", 3, "unknown field `url`"),
            ("[profile.a]\nregion = \"x\"\n", 1, "missing field `api_url`"),
            ("[profile.a]\n\napi_url = \"nowhere\"\n", 3, "nowhere is not a URL"),
            ("[profile.a\n", 1, "unclosed table"),
        ] {
            let (_dir, path) = file(text);
            let error = Profiles::read(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:{line}: ", path.display())), "{error}");
            assert!(error.contains(message), "{error}");
        }
        let (_dir, path) = file("[profile.production]\napi_url = \"https://p\"\n");
        let error = Environment { api_url: None, file: path }.target(Some("prodution")).unwrap_err();
        let error = error.downcast::<ApiError>().unwrap();
        assert_eq!(error.hint.as_deref(), Some("did you mean production?"));
    }

    #[test]
    fn changes_keep_comments_and_can_be_read_again() {
        let (_dir, path) = file("# mine\ndefault = \"a\" # for now\n\n[profile.a]\napi_url = \"http://a\"\n");
        let mut editor = Editor::open(&path).unwrap();
        let prod = Target { api_url: "https://p".into(), region: Some("eu-west-1".into()), aws_profile: None };
        editor.set("prod", &prod);
        assert!(editor.set_default("pord").is_err());
        editor.set_default("prod").unwrap();
        editor.save().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# mine\ndefault = \"prod\""), "{text}");
        assert!(text.contains("[profile.prod]\napi_url = \"https://p\"\nregion = \"eu-west-1\"\n"), "{text}");
        let read = Profiles::read(&path).unwrap();
        assert_eq!((read.default.as_deref(), read.profiles["prod"].clone()), (Some("prod"), prod));

        let mut editor = Editor::open(&path).unwrap();
        editor.remove("prod").unwrap();
        editor.save().unwrap();
        let read = Profiles::read(&path).unwrap();
        assert_eq!((read.default, read.profiles.keys().collect::<Vec<_>>()), (None, vec![&"a".to_owned()]));
    }

    #[test]
    fn a_file_that_cannot_be_used_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        // A folder in its place works as no permission does, also for root.
        let path = dir.path().join("config.toml");
        fs::create_dir(&path).unwrap();
        let read = Profiles::read(&path).unwrap_err();
        assert!(read.to_string().starts_with(&format!("cannot read {}: ", path.display())), "{read}");
        let editor = Editor { file: path, document: DocumentMut::new() };
        let write = editor.save().unwrap_err();
        assert!(write.to_string().starts_with("cannot write "), "{write}");
        for error in [read, write] {
            assert!(nofx_local::report::hint(&error).is_some_and(|hint| hint.contains("NOFX_CONFIG")), "{error}");
        }
    }

    #[test]
    fn the_first_profile_makes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.toml");
        let mut editor = Editor::open(&path).unwrap();
        editor.set("local", &target(LOCAL_URL));
        editor.save().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[profile.local]\napi_url = \"http://127.0.0.1:3000\"\n");
    }
}
