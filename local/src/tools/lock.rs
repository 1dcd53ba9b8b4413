//! A lock between commands that run at the same time.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Waits until no other process holds the lock. Closing the file releases it.
pub async fn hold(path: PathBuf) -> Result<File> {
    let cannot = || format!("cannot lock {}", path.display());
    let file = File::create(&path).with_context(cannot)?;
    tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.with_context(cannot)
}
