//! Token counts, with the same meaning for every provider.

use serde::{Deserialize, Serialize};

/// The tokens of one answer. `None` means "not reported", which is not zero.
///
/// Providers count differently. Here `input_tokens` always includes tokens read from and written to a cache, and
/// `output_tokens` always includes reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
    pub cache_write_input_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
}

impl TokenUsage {
    /// Whether the provider reported any total.
    pub fn is_reported(&self) -> bool {
        self.input_tokens.is_some() || self.output_tokens.is_some()
    }
}
