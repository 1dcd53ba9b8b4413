//! Pages of lists, bounded in rows and in bytes. A page with large rows ends early and says that more follow.

use serde::de::DeserializeOwned;

use super::row;
use super::session::{Arg, Session};
use crate::error::Error;

/// Maximum size of a page's rows as JSON. A single larger row is a page by itself.
pub const PAGE_BYTES: i64 = 384 << 10;
/// Maximum size of a value in a list. A larger value is left out, and its size and address are given instead.
pub const INLINE_BYTES: i32 = 16 << 10;

/// Rows of a list, and whether more follow.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl<T> Page<T> {
    /// The cursor of the next page, if more rows follow. `cursor` reads it from the last row.
    pub fn next<C>(&self, cursor: impl Fn(&T) -> C) -> Option<C> {
        self.items.last().filter(|_| self.more).map(cursor)
    }
}

/// Runs `sql`, which selects the fields of a `T` in the order of the list. It takes the limit as `$2` and must return
/// one row more. Postgres sums the sizes, so rows that do not fit are not sent.
pub(super) async fn page<T: DeserializeOwned>(
    session: &Session,
    sql: &str,
    limit: i64,
    args: &[Arg<'_>],
) -> Result<Page<T>, Error> {
    let bounded = format!(
        "select kept.json as item, kept.count as n
           from (select listed.json, listed.n, count(*) over () as count,
                        sum(octet_length(listed.json)) over (order by listed.n) as bytes
                   from (select to_json(found)::text as json, row_number() over () as n from ({sql}) found) listed) kept
          where kept.n <= {limit} and (kept.n = 1 or kept.bytes <= {PAGE_BYTES})
          order by kept.n"
    );
    let rows = session.read(&bounded, args).await?;
    let found = rows.first().map_or(0, |row| row.count);
    let items = rows.iter().map(|row| row::read(&row.json)).collect::<Result<Vec<T>, Error>>()?;
    let more = usize::try_from(found).is_ok_and(|found| found > items.len());
    Ok(Page { items, more })
}
