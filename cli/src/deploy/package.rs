//! The packages of the functions: `target/lambda/<name>/bootstrap`, as `cargo lambda build` writes them and the
//! template expects them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nofx_local::checkout::Checkout;
use nofx_local::function;
use nofx_local::process::{self, PidFile};
use nofx_local::report::hinted;
use tokio::process::Command;

use crate::deploy::iam::with_iam;

/// Name of the database's CA certificate in a package. The template's parameter `DatabaseCaFile` points to it.
pub const DATABASE_CA: &str = "database-ca.pem";

/// Folder of the packages, relative to the template.
const PACKAGES: &str = "target/lambda";

/// The architecture of a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Arm64,
    X86,
}

impl Architecture {
    /// The architecture of this machine.
    pub fn native() -> Result<Self> {
        match std::env::consts::ARCH {
            "aarch64" => Ok(Self::Arm64),
            "x86_64" => Ok(Self::X86),
            other => bail!("Lambda does not support {other}"),
        }
    }

    /// From its name in the template.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "arm64" => Ok(Self::Arm64),
            "x86_64" => Ok(Self::X86),
            other => bail!("the parameter Architecture is {other}; it takes arm64 or x86_64"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86 => "x86_64",
        }
    }

    /// The option of cargo-lambda for it.
    pub fn build_flag(self) -> &'static str {
        match self {
            Self::Arm64 => "--arm64",
            Self::X86 => "--x86-64",
        }
    }

    /// The architecture of an ELF file. `None` for any other file.
    pub fn of_file(path: &Path) -> Option<Self> {
        Self::of(&header(path)?)
    }

    /// From the header of an ELF file.
    fn of(header: &[u8]) -> Option<Self> {
        match (header.get(..4)?, header.get(18..20)?) {
            (b"\x7fELF", [0x3e, 0]) => Some(Self::X86),
            (b"\x7fELF", [0xb7, 0]) => Some(Self::Arm64),
            _ => None,
        }
    }
}

/// The folder of a function's package.
pub fn dir(checkout: &Checkout, name: &str) -> PathBuf {
    checkout.root().join(PACKAGES).join(name)
}

/// Fails unless every function has a package for `architecture`.
pub fn check(checkout: &Checkout, architecture: Architecture) -> Result<()> {
    let mut missing = Vec::new();
    for name in function::names() {
        let path = dir(checkout, name).join("bootstrap");
        match header(&path).map(|header| Architecture::of(&header)) {
            None => missing.push(name),
            Some(Some(found)) if found == architecture => {}
            Some(found) => {
                let (found, wanted) = (found.map_or("something else", Architecture::name), architecture.name());
                return Err(hinted(
                    format!("{} is built for {found}, the parameter Architecture is {wanted}", path.display()),
                    "without --no-build, it is built for the architecture in samconfig.toml",
                ));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!("the binaries are not built: target/lambda has none of {}", missing.join(", ")),
        format!("make deploy builds them, as does cargo lambda build --release {}", architecture.build_flag()),
    ))
}

/// Puts the database's CA certificate into every package, or removes an earlier one.
pub fn set_database_ca(checkout: &Checkout, file: Option<&Path>) -> Result<()> {
    let text = match file {
        Some(file) => {
            let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            if !text.starts_with(b"-----BEGIN CERTIFICATE-----") {
                bail!("{} is not a certificate in PEM format", file.display());
            }
            Some(text)
        }
        None => None,
    };
    for name in function::names() {
        let path = dir(checkout, name).join(DATABASE_CA);
        match &text {
            Some(text) => fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?,
            None if path.exists() => {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            None => {}
        }
    }
    Ok(())
}

/// Copies the template to `place`, with packages of dev builds, for an emulator on this machine, and with IAM authorization
/// if asked for. Strips symbols, which are half of the size.
pub async fn package_dev_builds(
    checkout: &Checkout,
    place: &Path,
    has_iam: bool,
    pid_file: &PidFile,
) -> Result<PathBuf> {
    for name in function::names() {
        let built = checkout.root().join("target/debug").join(name);
        let dir = place.join(PACKAGES).join(name);
        let bootstrap = dir.join("bootstrap");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&bootstrap).arg(&built);
        // `strip` usually comes with the linker. Without it, the packages are only larger.
        if !process::run("strip", strip, pid_file).await.unwrap_or(false) {
            fs::copy(&built, &bootstrap).with_context(|| format!("cannot copy {}", built.display()))?;
        }
    }
    let template = place.join("template.yaml");
    let text = fs::read_to_string(checkout.root().join("template.yaml")).context("cannot read template.yaml")?;
    let text = if has_iam { with_iam(&text)? } else { text };
    fs::write(&template, text).context("cannot copy the template")?;
    Ok(template)
}

fn header(path: &Path) -> Option<[u8; 20]> {
    let mut header = [0; 20];
    fs::File::open(path).ok()?.read_exact(&mut header).ok()?;
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_read_from_the_header_of_a_binary() {
        let elf = |machine| [b"\x7fELF".as_slice(), &[0; 14], &[machine, 0]].concat();
        assert_eq!(Architecture::of(&elf(0x3e)), Some(Architecture::X86));
        assert_eq!(Architecture::of(&elf(0xb7)), Some(Architecture::Arm64));
        assert_eq!(Architecture::of(&elf(0x28)), None);
        assert_eq!(Architecture::of(b"#!/bin/sh and something"), None);
    }

    #[test]
    fn missing_binaries_are_reported() {
        let empty = tempfile::tempdir().unwrap();
        let error = check(&Checkout::at(empty.path()), Architecture::Arm64).unwrap_err();
        assert!(error.to_string().starts_with("the binaries are not built"), "{error}");
    }
}
