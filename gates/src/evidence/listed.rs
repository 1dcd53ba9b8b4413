//! A list that is cut, with the number of all its items.

use serde::{Deserialize, Serialize};

/// The limit on items of a list in the evidence. Attachments have all of them.
pub const MAX_LISTED: usize = 200;

/// The first items of a list. A reader sees from `total` that there are more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "ListOf{T}"))]
pub struct Listed<T> {
    /// The number of all items.
    pub total: u64,
    /// The first 200.
    pub listed: Vec<T>,
}

impl<T> Listed<T> {
    /// Counts all items, and keeps the first ones.
    pub fn of(items: impl IntoIterator<Item = T>) -> Self {
        let mut list = Self { total: 0, listed: Vec::new() };
        for item in items {
            list.total += 1;
            if list.listed.len() < MAX_LISTED {
                list.listed.push(item);
            }
        }
        list
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { total: 0, listed: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_its_count_is_not() {
        let list = Listed::of(0..1_000);
        assert_eq!((list.total, list.listed.len(), list.listed.last()), (1_000, MAX_LISTED, Some(&199)));
        assert_eq!(Listed::of(0..3), Listed { total: 3, listed: vec![0, 1, 2] });
    }
}
