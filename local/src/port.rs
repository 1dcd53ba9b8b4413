//! Ports on the loopback interface: free ones, and those that a stack used before.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// The port of each part of a stack. Kept between starts, so that URLs stay the same.
#[derive(Debug)]
pub struct Ports {
    path: PathBuf,
    ports: BTreeMap<String, u16>,
}

impl Ports {
    pub fn load(path: PathBuf) -> Self {
        let ports = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        Self { path, ports }
    }

    /// The last port of `part`, if it had one.
    pub fn get(&self, part: &str) -> Option<u16> {
        self.ports.get(part).copied()
    }

    /// The last port of `part` if it is free, else another free port.
    pub fn pick(&mut self, part: &str) -> Result<u16> {
        let before = self.get(part).filter(|number| is_free(*number));
        let number = before.map_or_else(|| self.find_free(), Ok)?;
        self.set(part, number)?;
        Ok(number)
    }

    pub fn set(&mut self, part: &str, number: u16) -> Result<()> {
        self.ports.insert(part.to_owned(), number);
        let json = serde_json::to_vec(&self.ports).context("cannot encode the ports")?;
        fs::write(&self.path, json).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// A free port that no part of this stack uses. Stopped parts keep theirs.
    fn find_free(&self) -> Result<u16> {
        for _ in 0..64 {
            let port = any_free()?;
            if !self.ports.values().any(|taken| *taken == port) {
                return Ok(port);
            }
        }
        bail!("no free port on 127.0.0.1")
    }
}

/// A free port. Nothing reserves it.
pub fn any_free() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("no free port on 127.0.0.1")?.port())
}

pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Waits until a server accepts connections on `port`. False if none does within `limit`.
pub async fn accepts(port: u16, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return true;
        }
        sleep(Duration::from_millis(25)).await;
    }
    false
}
