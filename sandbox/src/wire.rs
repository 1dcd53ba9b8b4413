//! What `run` and the launcher tell each other over their socket: frames of a length (four bytes, little endian) and JSON.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::{Companion, Limits, Network};
use crate::host::Through;
use crate::report::{Exit, Report};

/// Bounds a frame. Environment and paths are the largest parts.
const FRAME_BYTES: usize = 8 * 1024 * 1024;

/// The mechanisms that the launcher must put in force. It fails if one of them refuses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub namespaces: Option<Through>,
    /// 0 is without Landlock.
    pub landlock_abi: u32,
    pub seccomp: bool,
    /// The uid and gid to change to.
    pub uid: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub plan: Plan,
    pub parent: Parent,
    /// Names and identities of the parent's namespaces.
    pub host_namespaces: Vec<(String, String)>,
    pub argv: Vec<String>,
    pub current_dir: PathBuf,
    pub environment: Vec<(String, String)>,
    pub timeout: Duration,
    pub read_only: Vec<PathBuf>,
    pub hidden: Vec<PathBuf>,
    pub writable: Vec<PathBuf>,
    pub network: Network,
    pub limits: Limits,
    pub companions: Vec<Companion>,
    /// Builds the sandbox and runs nothing in it.
    pub probe: bool,
}

/// The process that called `run`, which the command must not signal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Parent {
    pub pid: i32,
    pub group: i32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The sandbox stands. The command starts next, after its companions.
    InForce(Box<Report>),
    Started,
    Ended {
        exit: Exit,
        killed: u32,
        left: u32,
    },
    Failed {
        step: String,
        message: String,
    },
}

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= FRAME_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is too large"))?;
    Ok([&length.to_le_bytes()[..], &body].concat())
}

pub(crate) fn length(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(header) as usize;
    if length > FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    Ok(length)
}

/// Reads one frame and not a byte more: the next frame may be for another process.
pub(crate) fn read<T: DeserializeOwned>(reader: &mut impl Read) -> io::Result<T> {
    let mut header = [0; 4];
    reader.read_exact(&mut header)?;
    let mut body = vec![0; length(header)?];
    reader.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

pub(crate) fn write<T: Serialize>(writer: &mut impl Write, value: &T) -> io::Result<()> {
    writer.write_all(&encode(value)?)
}
