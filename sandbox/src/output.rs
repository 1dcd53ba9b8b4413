//! The captured output of a command.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::command::OutputBounds;

/// Standard output and standard error as one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub head: Vec<u8>,
    /// The end, without what is in `head`.
    pub tail: Vec<u8>,
    pub bytes: u64,
    /// Of the whole output, in hexadecimal.
    pub sha256: String,
}

impl Output {
    /// How many bytes between head and tail were not kept.
    pub fn omitted_bytes(&self) -> u64 {
        self.bytes - (self.head.len() + self.tail.len()) as u64
    }
}

/// Keeps head, tail and digest while the output arrives.
pub(crate) struct Capture {
    bounds: OutputBounds,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes: u64,
    digest: Sha256,
    log: Option<BoundedFile>,
}

impl Capture {
    pub fn new(bounds: OutputBounds, log: Option<&Path>) -> io::Result<Self> {
        let log = log.map(|path| BoundedFile::create(path, bounds.file_bytes)).transpose()?;
        Ok(Self { bounds, head: Vec::new(), tail: VecDeque::new(), bytes: 0, digest: Sha256::new(), log })
    }

    pub fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.digest.update(chunk);
        self.bytes += chunk.len() as u64;
        if let Some(log) = &mut self.log {
            log.push(chunk)?;
        }
        let room = (self.bounds.head_bytes - self.head.len()).min(chunk.len());
        let (head, rest) = chunk.split_at(room);
        self.head.extend_from_slice(head);
        // Of a chunk that is longer than the tail, only its end can stay.
        let rest = &rest[rest.len().saturating_sub(self.bounds.tail_bytes)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.bounds.tail_bytes);
        self.tail.drain(..excess);
        self.tail.extend(rest);
        Ok(())
    }

    pub fn finish(self) -> Output {
        let sha256 = self.digest.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        });
        Output { head: self.head, tail: self.tail.into(), bytes: self.bytes, sha256 }
    }
}

/// A file that takes the first bytes of a stream.
pub(crate) struct BoundedFile {
    file: File,
    room: u64,
}

impl BoundedFile {
    pub fn create(path: &Path, room: u64) -> io::Result<Self> {
        // An existing file is refused: tested code may have put a link there.
        Ok(Self { file: File::create_new(path)?, room })
    }

    pub fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        let length = usize::try_from(self.room).unwrap_or(usize::MAX).min(chunk.len());
        self.file.write_all(&chunk[..length])?;
        self.room -= length as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_never_overlap_and_the_digest_is_of_everything() {
        let bounds = OutputBounds { head_bytes: 4, tail_bytes: 3, file_bytes: 5 };
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut capture = Capture::new(bounds, Some(&log)).unwrap();
        for chunk in [&b"ab"[..], b"cdefgh", b"i"] {
            capture.push(chunk).unwrap();
        }
        let output = capture.finish();
        assert_eq!((&output.head[..], &output.tail[..]), (&b"abcd"[..], &b"ghi"[..]));
        assert_eq!((output.bytes, output.omitted_bytes()), (9, 2));
        assert_eq!(output.sha256, "19cc02f26df43cc571bc9ed7b0c4d29224a3ec229529221725ef76d021c8326f");
        assert_eq!(std::fs::read(log).unwrap(), b"abcde");
    }

    #[test]
    fn an_existing_log_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("log")).unwrap();
        assert!(Capture::new(OutputBounds::default(), Some(&folder.path().join("log"))).is_err());
    }
}
