//! The chain of a tenant's audit. Each row has the hash of the row before, so a row that is changed, removed or inserted changes
//! all later hashes. An export is JSON lines: one row per line, and the chain's head in the last line.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TenantId;
use super::digest::hex;

/// A row of an export. Its JSON has exactly these fields in this order, so that a change of any byte of an export is detected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRow {
    pub seq: u64,
    /// Hash of the row before, in hex. Zeros for the first row.
    pub prev_hash: String,
    /// sha256 of the bytes of `prev_hash` and of `body`, in hex.
    pub hash: String,
    /// A JSON object, exactly as it was hashed.
    pub body: String,
}

/// The number and the hash of the last row of a chain. The number of an empty chain is 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    pub seq: u64,
    pub hash: String,
}

impl AuditHead {
    /// The head of an empty chain.
    pub fn of_nothing() -> Self {
        Self { seq: 0, hash: hex(&[0; 32]) }
    }
}

/// The last line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditEnd {
    pub tenant: TenantId,
    pub head: AuditHead,
}

/// What is wrong with an export. Row numbers are those of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A line is neither a row nor a head, or not in the form of an export.
    Unreadable,
    /// The row is not the next one: rows are missing or out of order.
    Order { expected: u64, found: u64 },
    /// The hash of a row does not match its text.
    Changed { seq: u64 },
    /// A row does not name the hash of the row before it.
    Unlinked { seq: u64 },
    /// The text of a row has another number than the row, or another tenant than the rows before.
    Foreign { seq: u64 },
    /// The head in the export is not its last row.
    Head { said: u64, found: u64 },
    /// A line follows the head.
    AfterHead,
    /// The export has no head, so rows at its end may be missing.
    Incomplete { last: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("this is not a row of an audit"),
            Self::Order { expected, found } if found > expected => {
                write!(f, "row {expected} is missing or out of order: row {found} is there instead")
            }
            Self::Order { expected, found } => {
                write!(f, "row {found} is out of order: row {expected} belongs here")
            }
            Self::Changed { seq } => write!(f, "row {seq} was changed: its hash is not that of its text"),
            Self::Unlinked { seq } => {
                write!(f, "row {seq} does not follow the row before it: that one was changed, or this one was inserted")
            }
            Self::Foreign { seq } => {
                write!(f, "the text of row {seq} has another number, or another tenant than the rows before")
            }
            Self::Head { said, found } => {
                write!(f, "the export ends with row {found}, but says that the chain ends with another row {said}")
            }
            Self::AfterHead => f.write_str("something follows the end of the export"),
            Self::Incomplete { last } => {
                write!(f, "the export ends after row {last} without the head of the chain: later rows may be missing")
            }
        }
    }
}

/// The fields of a row's text that say where it belongs.
#[derive(Deserialize)]
struct Place {
    tenant: TenantId,
    seq: u64,
}

/// Verifies a chain, line by line.
#[derive(Debug)]
pub struct Chain {
    tenant: Option<TenantId>,
    /// The last row. Its hash is not known before the first row of an export that starts in the middle.
    seq: u64,
    hash: Option<String>,
    /// The row before the first one of the export, as that one names it.
    pub before: Option<AuditHead>,
    /// The number of lines that were read, and of rows among them.
    pub lines: u64,
    pub rows: u64,
    is_ended: bool,
}

impl Chain {
    /// A chain whose first row is the one after number `after`. With the `hash` of that row, the first one must be linked to it.
    pub fn after(after: u64, hash: Option<String>) -> Self {
        let hash = if after == 0 { Some(AuditHead::of_nothing().hash) } else { hash };
        Self { tenant: None, seq: after, hash, before: None, lines: 0, rows: 0, is_ended: false }
    }

    /// The tenant. None until a line has named it.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Verifies the next line, without its line break. Returns the head that the chain has now.
    pub fn add(&mut self, line: &str) -> Result<AuditHead, Fault> {
        self.lines += 1;
        if self.is_ended {
            return Err(Fault::AfterHead);
        }
        if let Some(end) = exactly(line) {
            return self.end_with(end);
        }
        let row: AuditRow = exactly(line).ok_or(Fault::Unreadable)?;
        let seq = row.seq;
        if seq != self.seq + 1 {
            return Err(Fault::Order { expected: self.seq + 1, found: seq });
        }
        let previous = unhex(&row.prev_hash).ok_or(Fault::Unreadable)?;
        let hash = hex(&Sha256::new().chain_update(previous).chain_update(&row.body).finalize());
        if hash != row.hash {
            return Err(Fault::Changed { seq });
        }
        if self.hash.as_ref().is_some_and(|hash| *hash != row.prev_hash) {
            return Err(Fault::Unlinked { seq });
        }
        let place: Place = serde_json::from_str(&row.body).map_err(|_| Fault::Foreign { seq })?;
        if place.seq != seq || self.tenant.as_ref().is_some_and(|tenant| *tenant != place.tenant) {
            return Err(Fault::Foreign { seq });
        }
        self.before.get_or_insert(AuditHead { seq: self.seq, hash: row.prev_hash });
        (self.tenant, self.seq, self.hash) = (Some(place.tenant), seq, Some(hash.clone()));
        self.rows += 1;
        Ok(AuditHead { seq, hash })
    }

    /// The head of a complete chain.
    pub fn end(self) -> Result<AuditHead, Fault> {
        match self {
            Self { is_ended: true, seq, hash: Some(hash), .. } => Ok(AuditHead { seq, hash }),
            Self { seq, .. } => Err(Fault::Incomplete { last: seq }),
        }
    }

    fn end_with(&mut self, AuditEnd { tenant, head }: AuditEnd) -> Result<AuditHead, Fault> {
        // An export of later rows that has none contains only the head.
        let is_known = self.hash.as_ref().is_none_or(|hash| *hash == head.hash);
        if head.seq != self.seq || !is_known || self.tenant.as_ref().is_some_and(|known| *known != tenant) {
            return Err(Fault::Head { said: head.seq, found: self.seq });
        }
        self.before.get_or_insert_with(|| head.clone());
        (self.tenant, self.hash, self.is_ended) = (Some(tenant), Some(head.hash.clone()), true);
        Ok(head)
    }
}

/// The line of a row or of the end, with its line break.
pub fn line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// The value of a line. None unless the line is exactly as an export writes it.
fn exactly<T: DeserializeOwned + Serialize>(text: &str) -> Option<T> {
    let value: T = serde_json::from_str(text).ok()?;
    (serde_json::to_string(&value).ok()? == text).then_some(value)
}

/// 32 bytes in lower-case hex.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (hex(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn row(previous: &AuditHead, tenant: &str, what: &str) -> AuditRow {
        let seq = previous.seq + 1;
        let body = json!({"tenant": tenant, "seq": seq, "action": what, "detail": {"reason": "naïve \"quote\" \n"}})
            .to_string();
        let hash = hex(&Sha256::new().chain_update(unhex(&previous.hash).unwrap()).chain_update(&body).finalize());
        AuditRow { seq, prev_hash: previous.hash.clone(), hash, body }
    }

    fn rows(count: u64) -> Vec<AuditRow> {
        let mut head = AuditHead::of_nothing();
        (0..count)
            .map(|n| {
                let row = row(&head, "acme", &format!("policy.set {n}"));
                head = AuditHead { seq: row.seq, hash: row.hash.clone() };
                row
            })
            .collect()
    }

    fn head(rows: &[AuditRow]) -> AuditHead {
        rows.last().map_or_else(AuditHead::of_nothing, |row| AuditHead { seq: row.seq, hash: row.hash.clone() })
    }

    fn end(rows: &[AuditRow]) -> AuditEnd {
        AuditEnd { tenant: TenantId("acme".into()), head: head(rows) }
    }

    fn text(value: &impl Serialize) -> String {
        line(value).unwrap().trim_end().to_owned()
    }

    fn export(rows: &[AuditRow]) -> Vec<String> {
        rows.iter().map(text).chain([text(&end(rows))]).collect()
    }

    /// The head, or the number of the bad line and what is wrong with it.
    fn verify(after: u64, lines: &[String]) -> Result<AuditHead, (u64, Fault)> {
        let mut chain = Chain::after(after, None);
        for line in lines {
            chain.add(line).map_err(|fault| (chain.lines, fault))?;
        }
        let lines = chain.lines;
        chain.end().map_err(|fault| (lines, fault))
    }

    #[test]
    fn a_chain_verifies_from_its_start_from_the_middle_and_without_rows() {
        let rows = rows(5);
        assert_eq!(verify(0, &export(&rows)), Ok(head(&rows)));
        assert_eq!(verify(3, &export(&rows[3..])), Ok(head(&rows)));
        assert_eq!(verify(0, &export(&[])), Ok(AuditHead::of_nothing()));
        assert_eq!(verify(5, &[text(&end(&rows))]), Ok(head(&rows)));
        let mut chain = Chain::after(3, None);
        chain.add(&text(&rows[3])).unwrap();
        assert_eq!((chain.before, chain.tenant), (Some(head(&rows[..3])), Some(TenantId("acme".into()))));
        // An export that continues another one is linked to its last row.
        let known = |hash: String| Chain::after(3, Some(hash)).add(&text(&rows[3])).map(|head| head.seq);
        assert_eq!(known(rows[2].hash.clone()), Ok(4));
        assert_eq!(known(rows[1].hash.clone()), Err(Fault::Unlinked { seq: 4 }));
    }

    #[test]
    fn removed_swapped_inserted_and_repeated_rows_are_named() {
        let rows = rows(5);
        let all = export(&rows);
        let order = |expected, found| Fault::Order { expected, found };
        for at in 0..5 {
            let seq = at as u64 + 1;
            let mut removed = all.clone();
            removed.remove(at);
            let fault = if at == 4 { Fault::Head { said: 5, found: 4 } } else { order(seq, seq + 1) };
            assert_eq!(verify(0, &removed), Err((seq, fault)));
            let mut repeated = all.clone();
            repeated.insert(at, all[at].clone());
            assert_eq!(verify(0, &repeated), Err((seq + 1, order(seq + 1, seq))));
            if at < 4 {
                let mut swapped = all.clone();
                swapped.swap(at, at + 1);
                assert_eq!(verify(0, &swapped), Err((seq, order(seq, seq + 1))));
            }
            // A row whose own hash is right, in the place of another.
            let before = head(&rows[..at]);
            let mut inserted = all.clone();
            inserted[at] = text(&row(&before, "acme", "forged"));
            let fault = if at == 4 { Fault::Head { said: 5, found: 5 } } else { Fault::Unlinked { seq: seq + 1 } };
            assert_eq!(verify(0, &inserted), Err((seq + 1, fault)));
        }
        assert_eq!(verify(0, &all[..5]), Err((5, Fault::Incomplete { last: 5 })));
        assert_eq!(verify(0, &[all.clone(), vec![all[5].clone()]].concat()), Err((7, Fault::AfterHead)));
        assert_eq!(verify(0, &all[2..]), Err((1, order(1, 3))));
        let other = AuditEnd { tenant: TenantId("other".into()), head: head(&rows) };
        assert_eq!(verify(0, &[&all[..5], &[text(&other)]].concat()), Err((6, Fault::Head { said: 5, found: 5 })));
        let foreign = row(&head(&rows[..1]), "other", "policy.set");
        assert_eq!(verify(0, &[all[0].clone(), text(&foreign)]), Err((2, Fault::Foreign { seq: 2 })));
    }

    #[test]
    fn each_flipped_bit_of_an_export_is_found_in_its_line() {
        let whole = export(&rows(3)).join("\n");
        let mut faults = 0;
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                let before = whole.bytes().take(at).filter(|byte| *byte == b'\n').count();
                // Bytes that are no text are refused before.
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                let lines: Vec<String> = flipped.split('\n').map(str::to_owned).collect();
                let (found, _) = verify(0, &lines).expect_err("a changed export");
                assert!(
                    [1, 2].contains(&(found - before as u64)),
                    "byte {at} after {before} lines is found in line {found}"
                );
                faults += 1;
            }
        }
        assert!(faults > 3_000, "{faults}");
    }

    proptest! {
        #[test]
        fn no_text_panics(lines in proptest::collection::vec(".*", 0..4), after in any::<u32>()) {
            let _ = verify(u64::from(after), &lines);
        }
    }
}
