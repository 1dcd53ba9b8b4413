//! The bundle that a runner returns: a tar.gz with `result.json` and the files that it names.

use std::collections::BTreeMap;
use std::io::{self, Read};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

use super::spec::RunResult;

const RESULT: &str = "result.json";
/// Entries: the result, and an output and some reports for each variant.
const MAX_ENTRIES: usize = 2_000;
/// Unpacked bytes of a bundle.
pub const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// A result with the files that it names, by entry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bundle {
    pub result: RunResult,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    /// Adds a file and returns its entry.
    pub fn add(&mut self, entry: String, bytes: Vec<u8>) -> String {
        self.files.insert(entry.clone(), bytes);
        entry
    }

    /// The bytes to send.
    pub fn pack(&self) -> io::Result<Vec<u8>> {
        let result = serde_json::to_vec(&self.result)?;
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let entries =
            std::iter::once((RESULT, &result)).chain(self.files.iter().map(|(name, bytes)| (name.as_str(), bytes)));
        for (name, bytes) in entries {
            let mut header = Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, bytes.as_slice())?;
        }
        builder.into_inner()?.finish()
    }

    /// Reads a bundle from bytes that tested code may have written.
    pub fn unpack(bytes: &[u8]) -> io::Result<Self> {
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut archive = Archive::new(GzDecoder::new(bytes).take(MAX_BYTES));
        let mut files = BTreeMap::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.header().entry_type() != EntryType::Regular || files.len() > MAX_ENTRIES {
                return Err(invalid("it has an entry that is not a file, or too many entries".to_owned()));
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if files.insert(name.clone(), content).is_some() {
                return Err(invalid(format!("it has two entries {name:?}")));
            }
        }
        let result = files.remove(RESULT).ok_or_else(|| invalid(format!("it has no {RESULT}")))?;
        Ok(Self { result: serde_json::from_slice(&result)?, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let mut bundle = Bundle::default();
        bundle.result.runner = "1".into();
        bundle.add("reports/0".into(), vec![1; 100_000]);
        assert_eq!(Bundle::unpack(&bundle.pack().unwrap()).unwrap(), bundle);
    }

    #[test]
    fn other_bytes_are_an_error() {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "result.json", "/etc/passwd").unwrap();
        let link = builder.into_inner().unwrap().finish().unwrap();
        let whole = Bundle::default().pack().unwrap();
        for bytes in [b"".as_slice(), b"hello", &link, &whole[..whole.len() / 2]] {
            assert!(Bundle::unpack(bytes).is_err());
        }
    }
}
