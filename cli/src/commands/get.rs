//! `nofx get`: downloads an artifact.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use nofx_local::report::{hinted, printable};
use serde::Serialize;
use shared::domain::ArtifactId;
use shared::encryption;
use shared::signing::private_key;
use shared::view::{Artifact, ArtifactPage};

use crate::client::api::Api;
use crate::client::error::ApiError;
use crate::client::{download, resolve};
use crate::output::{self, Format};

/// Standard output gets the bytes after they are checked, so they are kept in memory until then.
const MAX_PRINTED_BYTES: u64 = 64 << 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Id of the artifact, or with --run its name
    artifact: String,
    /// File to write; - is standard output [default: the artifact's name, or standard output in a pipe without --json]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take the newest artifact of this name from the run
    #[arg(long)]
    run: Option<String>,
    /// Decrypt a kept prompt with this private key (PEM, P-256)
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    decrypt: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Saved<'a> {
    #[serde(flatten)]
    artifact: &'a Artifact,
    /// The file with its bytes.
    file: String,
}

/// Downloads and checks the sha256. A file is written completely or not at all.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let artifact: Artifact = api.get(&format!("/artifacts/{}", find(api, args).await?)).await?;
    if let Some(key) = &args.decrypt {
        return decrypt(api, &artifact, key, args.output.as_deref()).await;
    }
    match &args.output {
        Some(path) if path == Path::new("-") && args.format.json => {
            Err(hinted("standard output gets the JSON", "name a file with -o, or leave --json away"))
        }
        Some(path) if path == Path::new("-") => print(api, &artifact).await,
        Some(path) => save(api, &artifact, path, args.format).await,
        None if args.format.json || io::stdout().is_terminal() => {
            save(api, &artifact, &file_name(&artifact.name)?, args.format).await
        }
        None => print(api, &artifact).await,
    }
}

/// Prints the text of a JWE, or writes it to a file that only its owner can read.
async fn decrypt(api: &Api, artifact: &Artifact, key: &Path, output: Option<&Path>) -> Result<()> {
    let key = private_key(key).map_err(|why| hinted(why, "name the file of the private key, PKCS#8 in PEM"))?;
    let (_, bytes) = download::bytes(api, artifact.id, MAX_PRINTED_BYTES).await?;
    let text = encryption::decrypt(&key, &String::from_utf8_lossy(&bytes))
        .with_context(|| format!("cannot decrypt {}", printable(&artifact.name)))?;
    let Some(path) = output.filter(|path| *path != Path::new("-")) else {
        io::stdout().lock().write_all(&text)?;
        return Ok(());
    };
    let cannot_write = || format!("cannot write {}", printable(&path.display().to_string()));
    let mut file =
        fs::File::options().write(true).create_new(true).mode(0o600).open(path).with_context(cannot_write)?;
    file.write_all(&text).with_context(cannot_write)
}

async fn find(api: &Api, args: &Args) -> Result<ArtifactId> {
    let Some(run) = &args.run else {
        return args.artifact.parse().map_err(|_| {
            let message = format!("{} is no id of an artifact", printable(&args.artifact));
            ApiError::not_found(message, "nofx artifacts RUN lists ids; --run RUN finds an artifact by its name").into()
        });
    };
    let run = resolve::run(api, run).await?;
    let pages: Vec<ArtifactPage> = api.pages(&format!("/runs/{run}/artifacts")).await?;
    let artifacts: Vec<_> = pages.iter().flat_map(|page| &page.artifacts).collect();
    if let Some(found) = artifacts.iter().rev().find(|artifact| artifact.name == args.artifact) {
        return Ok(found.id);
    }
    let names = artifacts.iter().map(|artifact| artifact.name.as_str());
    let hint =
        resolve::did_you_mean(&args.artifact, names).unwrap_or_else(|| format!("nofx artifacts {run} lists them"));
    Err(ApiError::not_found(format!("the run {run} has no artifact {}", printable(&args.artifact)), hint).into())
}

/// The artifact's name, if it is one in this folder that reads as what it is.
fn file_name(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    let is_plain = path.file_name().is_some_and(|file| file == path.as_os_str());
    // Hidden characters make a name look like another one, and a hyphen makes it an option.
    if !is_plain || name.starts_with(['.', '-']) || printable(name) != name {
        return Err(hinted(format!("the name {} is no file here", printable(name)), "name the file with -o"));
    }
    if path.exists() {
        return Err(hinted(format!("{name} exists"), "name another file with -o, or the same to replace it"));
    }
    Ok(path.to_owned())
}

async fn print(api: &Api, artifact: &Artifact) -> Result<()> {
    let (_, bytes) = download::bytes(api, artifact.id, MAX_PRINTED_BYTES).await?;
    io::stdout().lock().write_all(&bytes)?;
    Ok(())
}

async fn save(api: &Api, artifact: &Artifact, path: &Path, format: Format) -> Result<()> {
    let shown = printable(&path.display().to_string());
    let cannot_write = || format!("cannot write {shown}");
    let name = path.file_name().ok_or_else(|| hinted(format!("{shown} is no file"), "name a file with -o"))?;
    let mut partial = name.to_owned();
    partial.push(".part");
    let partial = path.with_file_name(partial);
    let bar = bar(artifact.size_bytes);
    let mut file = fs::File::create(&partial).with_context(cannot_write)?;
    let done = download::artifact(api, artifact, &mut file, |received| bar.set_position(received)).await;
    bar.finish_and_clear();
    if let Err(error) = done {
        fs::remove_file(&partial).with_context(cannot_write)?;
        return Err(error);
    }
    fs::rename(&partial, path).with_context(cannot_write)?;
    if format.json {
        return output::json(&Saved { artifact, file: path.display().to_string() });
    }
    output::note(format_args!("{shown} ({} bytes, sha256 {})", artifact.size_bytes, artifact.hash));
    Ok(())
}

/// A bar on standard error, if that is a terminal.
fn bar(bytes: u64) -> ProgressBar {
    const TEMPLATE: &str = "{wide_bar:.cyan/dim} {bytes} of {total_bytes}, {eta} left";
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style.progress_chars("━╸─"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_reads_as_another_one_makes_no_file() {
        for name in ["x\u{202e}gpj.html", "a\u{200b}.txt", "a\u{1b}[2J", "-rf", ".profile", "a/b", "..", ""] {
            let refused = file_name(name).expect_err(name).to_string();
            assert!(refused.contains("is no file here"), "{refused}");
            assert_eq!(printable(&refused), refused, "shown without its effect");
        }
        for name in ["gate-unit.intoto.json", "écran.png", "a b.txt"] {
            assert_eq!(file_name(name).expect(name), Path::new(name));
        }
    }
}
