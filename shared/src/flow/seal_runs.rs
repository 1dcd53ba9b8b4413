//! Seals runs that have ended: signs what they left, stores it as a proof, and records where it is.
//!
//! Only the sweeper seals, so no function that answers requests can. Several may do so concurrently: each takes other runs.
//! A crash before the row is recorded loses nothing, because the run is taken again. The file that was stored is then recorded:
//! a generation has one proof, also after somebody deleted its row.

use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::context::Ctx;
use crate::db::seal::{self, Left, NewSeal, SealLimits, Unsealed};
use crate::domain::digest::sha256_hex;
use crate::domain::provenance::Index;
use crate::domain::{ArtifactRef, proof};
use crate::error::{Code, Error};
use crate::flow::sealed_before;
use crate::signing::{PublicKey, Signer, dsse};
use crate::telemetry;

/// Runs that are taken at once.
const TAKEN: i32 = 20;
/// Runs that are sealed concurrently. Each may hold its whole proof.
const CONCURRENT: usize = 2;
/// After this time no further runs are taken. The next invocation seals the rest.
const TIME: Duration = Duration::from_secs(25);

/// Values with more bytes are in a proof by their digests.
const INLINE_BYTES: u32 = 4 << 10;
/// Events, attempts, gates and artifacts of a run that can be sealed, of each kind.
const MAX_ROWS: u32 = 20_000;
/// Size of what the database has of a run.
const MAX_CONTENT_BYTES: u64 = 4 << 20;
/// Documents in a proof: of one, and of all. Others are named by their digests.
const MAX_DOCUMENT_BYTES: u64 = 512 << 10;
const MAX_DOCUMENTS_BYTES: u64 = 2 << 20;
/// Artifacts whose provenance is signed. Each is one signature.
const MAX_PROVENANCE: usize = 500;
/// Signatures that are made concurrently.
const SIGNATURES: usize = 8;

/// Signs seals and provenance.
pub struct Sealer {
    signer: Signer,
    /// No key is named at all, so nothing is sealed.
    is_off: bool,
}

impl Sealer {
    /// With the key that the configuration names.
    pub fn new(ctx: &Ctx) -> Self {
        let config = &ctx.config.seals;
        let is_off = config.key_file.is_none() && config.key_id.is_none();
        Self { signer: Signer::new(config, &ctx.sdk), is_off }
    }

    /// The public keys of those that seal now and sealed before.
    async fn keys(&self, ctx: &Ctx) -> Result<Vec<PublicKey>, Error> {
        let earlier = PublicKey::all_from_pem(ctx.config.seals.public_keys.as_deref().unwrap_or_default());
        let mut keys = earlier.map_err(|error| Error::internal("read the configured public keys", error))?;
        keys.push(self.signer.public_key().await?);
        Ok(keys)
    }
}

/// Seals runs that have ended, the newest first, until none is left or the time is over. Returns how many. If one fails,
/// the others are still sealed. Logs each failure and returns the last one.
pub async fn seal_runs(ctx: &Ctx, sealer: &Sealer) -> Result<u64, Error> {
    if sealer.is_off {
        warn!("no run is sealed: neither SEAL_KEY_FILE nor SEAL_KEY_ID is set");
        return Ok(0);
    }
    // Without a usable key nothing is taken, so that nothing waits longer than the mistake.
    sealer.signer.check()?;
    let (start, mut done, mut failure) = (Instant::now(), 0, None);
    loop {
        let taken = seal::seals_take(&ctx.db, TAKEN).await?;
        let count = taken.len();
        let results = stream::iter(&taken).map(|run| seal_run(ctx, sealer, run)).buffer_unordered(CONCURRENT);
        for result in results.collect::<Vec<_>>().await {
            match result {
                Ok(is_new) => done += u64::from(is_new),
                Err(error) => {
                    telemetry::report(&error, "seal a run");
                    failure = Some(error);
                }
            }
        }
        if count < usize::try_from(TAKEN).unwrap_or_default() || start.elapsed() > TIME {
            break;
        }
    }
    if done > 0 {
        info!(done, "sealed runs");
    }
    failure.map_or(Ok(done), Err)
}

/// Seals one run. Returns false if there is nothing to seal any more.
async fn seal_run(ctx: &Ctx, sealer: &Sealer, run: &Unsealed) -> Result<bool, Error> {
    let Some(draft) = Draft::of(ctx, sealer, run).await? else { return Ok(false) };
    draft.store(ctx, sealer).await?.record(ctx).await
}

/// A signed proof that is not stored yet.
pub struct Draft {
    seal: NewSeal,
    file: Vec<u8>,
}

/// A stored proof that no row names yet.
pub struct Stored(NewSeal);

impl Draft {
    /// Reads and signs what a run left. None if the run is open or has its seal.
    pub async fn of(ctx: &Ctx, sealer: &Sealer, run: &Unsealed) -> Result<Option<Self>, Error> {
        let Some(mut content) = read(ctx, run).await? else { return Ok(None) };
        content["documents"] = documents(ctx, &mut content).await?;
        content["provenance"] = provenance(&content, &sealer.signer).await?;
        let now = DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime);
        let now = now.map_err(|error| Error::internal("write the time of a seal", error))?;
        let statement = proof::seal_statement(&content, &now).map_err(unwritable)?;
        let seal = dsse::seal(&statement, &sealer.signer).await?;
        let keyid = seal["signatures"][0]["keyid"].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| content["run"][field].as_u64().unwrap_or_default();
        let (generation, events) = (number("generation"), number("events"));
        let file = proof::file(&content, &seal).map_err(unwritable)?;
        let (tenant_id, run_id) = (run.tenant_id.clone(), run.run_id);
        let (digest, size_bytes) = (sha256_hex(&file), file.len() as u64);
        let seal = NewSeal { tenant_id, run_id, generation, digest, keyid, uri: String::new(), size_bytes, events };
        Ok(Some(Self { seal, file }))
    }

    /// Stores the file, unless the generation has one already. Then that one is taken.
    pub async fn store(self, ctx: &Ctx, sealer: &Sealer) -> Result<Stored, Error> {
        let Self { seal, file } = self;
        if let Some(first) = sealed_before::first(ctx, &sealer.keys(ctx).await?, &seal).await? {
            return Ok(Stored(first));
        }
        let of = (&seal.tenant_id, seal.run_id, seal.generation);
        let uri = ctx.storage.store_proof(of, &seal.digest, file).await?;
        Ok(Stored(NewSeal { uri, ..seal }))
    }
}

impl Stored {
    /// Records the seal. Returns false if the run has another one, or was retried since.
    pub async fn record(self, ctx: &Ctx) -> Result<bool, Error> {
        seal::seal_record(&ctx.db, &self.0).await
    }
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::internal("write a proof", error)
}

/// The content that the database has. Of a large run only the digests of its values.
async fn read(ctx: &Ctx, run: &Unsealed) -> Result<Option<Value>, Error> {
    for inline in [INLINE_BYTES, 0] {
        let limits = SealLimits { inline, rows: MAX_ROWS, bytes: MAX_CONTENT_BYTES };
        match seal::seal_read(&ctx.db, run, limits).await? {
            Left::Ended { content } => return Ok(Some(content)),
            Left::Open => return Ok(None),
            Left::TooLarge => {}
        }
    }
    Err(Error::internal("seal a run", format!("the run {} left too much for one proof", run.run_id)))
}

/// The evidence, attestations and SBOMs of the run, as text. Also takes the places of objects out of the content.
async fn documents(ctx: &Ctx, content: &mut Value) -> Result<Value, Error> {
    let mut wanted = Vec::new();
    for artifact in content["artifacts"].as_array_mut().into_iter().flatten() {
        let uri = artifact.as_object_mut().and_then(|artifact| artifact.remove("uri")).unwrap_or_default();
        let rank = match artifact["type"].as_str() {
            Some("gate_attestation") => 0,
            Some("gate_evidence") => 1,
            Some("sbom") => 2,
            _ => continue,
        };
        if artifact["is_own"] == true {
            let mut described = artifact.clone();
            described["uri"] = uri;
            let found: ArtifactRef = serde_json::from_value(described).map_err(unwritable)?;
            wanted.push((rank, found));
        }
    }
    // Attestations come first: without them nothing about gates can be verified.
    wanted.sort_by_key(|(rank, artifact)| (*rank, artifact.id));
    let (mut documents, mut left) = (Vec::new(), MAX_DOCUMENTS_BYTES);
    for (_, artifact) in wanted {
        let mut document = json!({ "artifact": artifact.id, "sha256": artifact.hash });
        if artifact.size_bytes > MAX_DOCUMENT_BYTES.min(left) {
            document["omitted"] = json!("too_large");
        } else {
            match ctx.storage.get(&artifact, MAX_DOCUMENT_BYTES).await.map(String::from_utf8) {
                Ok(Ok(text)) => {
                    left -= artifact.size_bytes;
                    document["text"] = text.into();
                }
                Ok(Err(_)) => document["omitted"] = json!("not_text"),
                // Nobody waits for a restore of what the seal does not need.
                Err(Error::Conflict(Code::ArtifactArchived, _)) => document["omitted"] = json!("archived"),
                // A retry does not bring it back, and the rest is worth a seal.
                Err(Error::Conflict(..)) => document["omitted"] = json!("changed"),
                Err(Error::NotFound(_) | Error::Forbidden(_) | Error::Invalid(_)) => {
                    document["omitted"] = json!("missing");
                }
                Err(error) => return Err(error),
            }
        }
        documents.push(document);
    }
    Ok(documents.into())
}

/// Signed statements about the artifacts that the run made, in the order of their ids.
async fn provenance(content: &Value, signer: &Signer) -> Result<Value, Error> {
    let index = Index::of(content);
    let own = content["artifacts"].as_array().into_iter().flatten().filter(|artifact| artifact["is_own"] == true);
    let statements: Vec<Value> = own.take(MAX_PROVENANCE).map(|artifact| index.statement(artifact)).collect();
    let envelopes = stream::iter(&statements).map(|statement| dsse::seal(statement, signer)).buffered(SIGNATURES);
    envelopes.try_collect::<Vec<_>>().await.map(Value::from)
}
