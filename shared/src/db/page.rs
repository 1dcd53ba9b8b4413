//! Pages of lists, bounded in rows and in bytes: a page ends early where its rows are large, and says that more follow.

use serde_json::Value;

use super::pool::{Database, Param, column};
use crate::error::Error;

/// Most bytes of a page's rows, as JSON. A row that alone has more is a page of its own.
pub const PAGE_BYTES: i64 = 384 << 10;
/// Largest value that is shown inside a list. What is larger is said to be left out, and has an address of its own.
pub const INLINE_BYTES: i32 = 16 << 10;

/// Rows of a list, and whether more follow.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub items: Vec<Value>,
    pub more: bool,
}

impl Page {
    /// The id of the last row, where more follow: the cursor of the next page.
    pub fn next(&self) -> Option<String> {
        self.items.last().filter(|_| self.more).and_then(|item| item["id"].as_str()).map(str::to_owned)
    }
}

/// Runs `sql`, which selects one column `json` in the order of the list and takes its limit as `$2`, for one row more than
/// a page has. Sizes are summed where the rows are: what does not fit is not sent.
pub(super) async fn page(db: &Database, sql: &str, limit: i64, params: &[Param<'_>]) -> Result<Page, Error> {
    let bounded = format!(
        "select kept.json, kept.count
           from (select listed.json, listed.n, count(*) over () as count,
                        sum(octet_length(listed.json::text)) over (order by listed.n) as bytes
                   from (select inner_page.json, row_number() over () as n from ({sql}) inner_page) listed) kept
          where kept.n <= {limit} and (kept.n = 1 or kept.bytes <= {PAGE_BYTES})
          order by kept.n"
    );
    let rows = db.query(&bounded, params).await?;
    let found: i64 = match rows.first() {
        Some(row) => row.try_get(1).map_err(|error| Error::internal("read a database answer", error))?,
        None => 0,
    };
    let items = rows.iter().map(column).collect::<Result<Vec<Value>, Error>>()?;
    let more = usize::try_from(found).is_ok_and(|found| found > items.len());
    Ok(Page { items, more })
}
