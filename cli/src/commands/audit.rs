//! `nofx audit`: who changed what, and whether the record is intact.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use clap::Subcommand;
use nofx_local::report::{hinted, printable};
use serde::Serialize;
use shared::domain::TenantId;
use shared::domain::audit::{AuditHead, Chain};
use shared::http::encoded;
use shared::view::{AuditEntry, AuditPage, KeyPurpose};

use crate::client::api::Api;
use crate::client::audit_heads::AuditHeads;
use crate::commands::audit_decisions::{Checked, Decisions};
use crate::commands::verify::keys_of;
use crate::output::color::{DIM, GOOD, paint};
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format, time};

/// A line of an export is shorter than this.
const MAX_LINE_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the newest entries of the audit, with filters
    List(ListArgs),
    /// Print the audit as JSON lines, the input of nofx audit verify
    Export {
        /// Start after the entry with this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u32,
    },
    /// Verify that no entry was changed, removed or inserted
    Verify(VerifyArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Only entries of this action, such as policy.set
    #[arg(long)]
    action: Option<String>,
    /// Only entries of somebody with this name
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// How many entries to list at most
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The audit is a chain: each entry has the hash of the entry before. Without FILE, the command reads the chain from the API. It stores
the last entry in audit-heads.toml beside the profiles, and later refuses a chain that does not contain it.

Examples:
  nofx audit verify                                    the chain
  nofx audit verify --decisions --key people.pem       also each decision, with keys that you trust
  nofx audit verify audit.jsonl                        an export, without the API
  nofx audit verify day-2.jsonl --after 7:3f0a..       an export of the entries after 7, whose hash is 3f0a..")]
pub struct VerifyArgs {
    /// File of nofx audit export; - reads standard input
    file: Option<PathBuf>,
    /// Start after the entry with this number. With its hash, the first entry must be linked to it
    #[arg(long, value_name = "SEQ[:HASH]", default_value = "0", value_parser = start)]
    after: Start,
    /// Also check that each decision of a gate is signed by the person whom the audit names
    #[arg(long, conflicts_with = "file")]
    decisions: bool,
    /// File with the public keys of decisions that you trust, in PEM [default: the keys of the API]
    #[arg(long = "key", value_name = "FILE", requires = "decisions")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// Where a chain starts: after this entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    seq: u32,
    hash: Option<String>,
}

fn start(text: &str) -> Result<Start, String> {
    let (seq, hash) = text.split_once(':').map_or((text, None), |(seq, hash)| (seq, Some(hash)));
    let is_hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match (seq.parse(), hash) {
        (Ok(seq), None) => Ok(Start { seq, hash: None }),
        (Ok(seq), Some(hash)) if is_hash(hash) => Ok(Start { seq, hash: Some(hash.to_owned()) }),
        _ => Err("must be the number of an entry, or NUMBER:HASH with 64 hexadecimal digits".to_owned()),
    }
}

/// What was verified, as the document of `--json`.
#[derive(Debug, Serialize)]
struct Verified {
    tenant: TenantId,
    /// The number of entries.
    entries: u64,
    /// The last entry.
    head: AuditHead,
    /// The entry that this machine had stored, if the chain contains it.
    seen: Option<AuditHead>,
    /// With `--decisions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    decisions: Option<Checked>,
}

/// `nofx audit`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::List(args) => list(api, args).await,
        Command::Export { after } => export(api, *after).await,
        Command::Verify(args) => verify(api, args).await,
    }
}

async fn list(api: &Api, args: &ListArgs) -> Result<()> {
    let mut path = format!("/audit?limit={}", args.limit);
    for (name, value) in [("action", &args.action), ("actor", &args.by)] {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encoded(value));
        }
    }
    let page: AuditPage = api.get(&path).await?;
    if args.format.json {
        return output::json(&page);
    }
    if page.entries.is_empty() {
        output::note("there are no such entries");
        return Ok(());
    }
    output::text(table(&page.entries, SystemTime::now()))
}

fn table(entries: &[AuditEntry], now: SystemTime) -> Table {
    let mut table =
        Table::new(&["ENTRY", "WHEN", "ACTION", "BY", "FROM", "SUBJECT", "DETAIL"]).whole(&[0, 1, 2]).right(0);
    for entry in entries {
        let from = entry.ip.map(|ip| ip.to_string()).unwrap_or_default();
        table.row(vec![
            cell(entry.seq.to_string()),
            styled(time::ago(&entry.at, now), DIM),
            cell(&entry.action),
            cell(&entry.actor),
            cell(from),
            cell(&entry.subject),
            styled(serde_json::to_string(&entry.detail).unwrap_or_default(), DIM),
        ]);
    }
    table
}

async fn export(api: &Api, after: u32) -> Result<()> {
    let mut out = io::stdout().lock();
    api.lines(&format!("/audit/export?limit=1000&after={after}"), |line| {
        writeln!(out, "{line}").context("cannot write to standard output")
    })
    .await
}

async fn verify(api: &Api, args: &VerifyArgs) -> Result<()> {
    let heads = AuditHeads::of(&api.url(""))?;
    let mut walk = Walk::new(&heads, &args.after);
    let mut decisions = args.decisions.then(Decisions::default);
    let (source, is_whole) = match &args.file {
        None => {
            let path = format!("/audit/export?limit=1000&after={}", args.after.seq);
            let add = |line: &str| {
                walk.add("the API", line)?;
                decisions.as_mut().map_or(Ok(()), |decisions| decisions.add(line))
            };
            api.lines(&path, add).await?;
            ("the API".to_owned(), true)
        }
        Some(file) => (read(file, &mut walk)?, false),
    };
    let mut verified = walk.end(&source, is_whole)?;
    // A file may be old, or forged.
    if is_whole {
        heads.remember(&verified.tenant, &verified.head)?;
    }
    if let Some(decisions) = decisions {
        let keys = keys_of(api, args.keys.as_deref(), KeyPurpose::Decisions).await?;
        verified.decisions = Some(decisions.verify(api, keys, args.keys.is_some()).await?);
    }
    if args.format.json {
        output::json(&verified)?;
    } else {
        output::text(text(&verified))?;
    }
    verified.decisions.as_ref().map_or(Ok(()), Checked::check)
}

fn text(verified: &Verified) -> String {
    let Verified { tenant, entries, head, seen, decisions } = verified;
    let number = usize::try_from(*entries).unwrap_or(usize::MAX);
    let number = if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") };
    let tenant = printable(&tenant.0);
    let mut text =
        format!("{} the audit of {tenant} is intact: {number}, the last is {}\n", paint(GOOD, "✓"), head.seq);
    let _ = writeln!(text, "  {}", paint(DIM, format_args!("sha256:{}", head.hash)));
    if let Some(seen) = seen {
        let _ = writeln!(text, "  it contains entry {}, which this machine has verified before", seen.seq);
    }
    if let Some(checked) = decisions.as_ref().filter(|checked| checked.problems.is_empty()) {
        text.push_str(&checked.text());
    }
    text
}

/// Adds the lines of a file. Returns the name of the source for messages.
fn read(file: &Path, walk: &mut Walk<'_>) -> Result<String> {
    let (name, mut reader): (String, Box<dyn BufRead>) = if file == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        (file.display().to_string(), Box::new(BufReader::new(opened)))
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {name}"))? == 0 {
            return Ok(name);
        }
        // A line that is not UTF-8 is not a row.
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
        walk.add(&name, &text)?;
    }
}

/// A chain that is verified against the head that this machine has stored.
struct Walk<'a> {
    chain: Chain,
    after: u64,
    heads: &'a AuditHeads,
    seen: Option<AuditHead>,
    is_met: bool,
}

impl<'a> Walk<'a> {
    fn new(heads: &'a AuditHeads, start: &Start) -> Self {
        let after = u64::from(start.seq);
        Self { chain: Chain::after(after, start.hash.clone()), after, heads, seen: None, is_met: false }
    }

    fn add(&mut self, source: &str, line: &str) -> Result<()> {
        let head = self.chain.add(line).map_err(|fault| anyhow!("{source}, line {}: {fault}", self.chain.lines))?;
        let is_first = self.chain.lines == 1;
        if let (true, Some(tenant)) = (is_first, self.chain.tenant()) {
            self.seen = self.heads.seen(tenant)?;
        }
        let Some(seen) = &self.seen else { return Ok(()) };
        let before = self.chain.before.iter().filter(|_| is_first);
        for passed in before.chain([&head]).filter(|passed| passed.seq == seen.seq) {
            if passed.hash != seen.hash {
                return Err(self.replaced(source, &format!("entry {} is different", seen.seq)));
            }
            self.is_met = true;
        }
        Ok(())
    }

    /// Ends the chain. A chain from the API (`is_whole`) must contain the entry that this machine has stored.
    fn end(self, source: &str, is_whole: bool) -> Result<Verified> {
        let seen = self.seen.clone();
        if let Some(seen) = &seen
            && is_whole
            && !self.is_met
        {
            if self.after > seen.seq {
                let hint = format!("start with --after {} or less, or without it", seen.seq);
                let problem =
                    format!("this machine has verified entry {}, which is before the first one here", seen.seq);
                return Err(hinted(problem, hint));
            }
            return Err(self.replaced(source, &format!("it ends before entry {}", seen.seq)));
        }
        let (is_met, entries) = (self.is_met, self.chain.rows);
        let tenant = self.chain.tenant().cloned();
        let head = self.chain.end().map_err(|fault| anyhow!("{source}: {fault}"))?;
        let tenant = tenant.ok_or_else(|| anyhow!("{source}: no line names the tenant"))?;
        Ok(Verified { tenant, entries, head, seen: seen.filter(|_| is_met), decisions: None })
    }

    fn replaced(&self, source: &str, how: &str) -> anyhow::Error {
        let file = self.heads.file.display();
        let hint = format!("if you created a new database on purpose, delete the entry of this API in {file}");
        hinted(format!("{source}: this is not the chain that this machine has verified before: {how}"), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_number_and_perhaps_a_hash() {
        let hash = "0f".repeat(32);
        assert_eq!(start("7"), Ok(Start { seq: 7, hash: None }));
        assert_eq!(start(&format!("7:{hash}")), Ok(Start { seq: 7, hash: Some(hash.clone()) }));
        for wrong in ["", "-1", "x", "7:", "7:0f", &format!(":{hash}"), &format!("7:{}", hash.to_uppercase())] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}
