//! `nofx profile`: the deployments that the command can call.

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use crate::client::profile::{Editor, Environment, LOCAL_URL, Profiles, Target, check_name, check_url, path};
use crate::output::color::{GOOD, command};
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the profiles, and say which API is called now
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Add a profile, or replace the one of this name; the first one becomes the default
    Add {
        /// Name of the profile
        #[arg(value_parser = |text: &str| check_name(text).map(|()| text.to_owned()))]
        name: String,
        /// Address of the API
        #[arg(value_name = "URL", value_parser = |text: &str| check_url(text).map(|()| text.to_owned()))]
        api_url: String,
        /// Sign requests for API Gateway in this AWS region, if it requires IAM authorization
        #[arg(long)]
        region: Option<String>,
        /// Profile of the AWS configuration whose credentials sign
        #[arg(long, value_name = "NAME")]
        aws_profile: Option<String>,
        /// Make it the default
        #[arg(long = "use")]
        make_default: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Make a profile the default
    Use {
        /// Name of the profile
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Remove a profile
    #[command(aliases = ["rm", "delete"])]
    Remove {
        /// Name of the profile
        name: String,
        #[command(flatten)]
        format: Format,
    },
}

/// The document of `--json`: what all of these commands leave.
#[derive(Serialize)]
struct Listed<'a> {
    file: String,
    api_url: &'a str,
    default: Option<&'a str>,
    profiles: &'a std::collections::BTreeMap<String, Target>,
}

/// `nofx profile`. `chosen` is the profile of `--profile` or `NOFX_PROFILE`.
pub fn run(command: &Command, chosen: Option<&str>) -> Result<()> {
    let file = path()?;
    let editor = || Editor::open(&file);
    let format = match command {
        Command::List { format } => format,
        Command::Add { name, api_url, region, aws_profile, make_default, format } => {
            let is_first = Profiles::read(&file)?.profiles.is_empty();
            let mut editor = editor()?;
            let (region, aws_profile) = (region.clone(), aws_profile.clone());
            editor.set(name, &Target { api_url: api_url.clone(), region, aws_profile });
            if *make_default || is_first {
                editor.set_default(name)?;
            }
            editor.save()?;
            format
        }
        Command::Use { name, format } => {
            let mut editor = editor()?;
            editor.set_default(name)?;
            editor.save()?;
            format
        }
        Command::Remove { name, format } => {
            let mut editor = editor()?;
            editor.remove(name)?;
            editor.save()?;
            format
        }
    };
    list(*format, chosen)
}

fn list(format: Format, chosen: Option<&str>) -> Result<()> {
    let environment = Environment::read()?;
    let profiles = Profiles::read(&environment.file)?;
    let target = environment.target(chosen);
    let current = chosen.or(profiles.default.as_deref());
    if format.json {
        let (file, target) = (environment.file.display().to_string(), target?);
        let (api_url, default) = (&target.api_url, profiles.default.as_deref());
        return output::json(&Listed { file, api_url, default, profiles: &profiles.profiles });
    }
    if profiles.profiles.is_empty() {
        let add = command("nofx profile add NAME URL");
        output::note(format_args!("{} has no profiles; {add} adds one", environment.file.display()));
    } else {
        output::text(table(&profiles, current.filter(|_| environment.api_url.is_none())))?;
    }
    // A wrong name in the environment must not hide the right ones.
    let target = target?;
    let why = match (&environment.api_url, current) {
        (Some(_), _) => "NOFX_API_URL says so",
        (None, Some(_)) => return Ok(()),
        (None, None) => "there is no default profile",
    };
    let hint = if target.api_url == LOCAL_URL { ": the local stack of nofx dev" } else { "" };
    output::note(format_args!("calls go to {}{hint}, because {why}", target.api_url));
    Ok(())
}

fn table(profiles: &Profiles, current: Option<&str>) -> Table {
    let mut table = Table::new(&["", "PROFILE", "API", "REGION", "AWS PROFILE"]).whole(&[0, 1]);
    for (name, target) in &profiles.profiles {
        let is_current = current == Some(name);
        table.row(vec![
            if is_current { styled("✓", GOOD) } else { cell("") },
            cell(name),
            cell(&target.api_url),
            cell(target.region.as_deref().unwrap_or_default()),
            cell(target.aws_profile.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
