//! The proof of a generation that a sweeper has stored before: it stays the only one.
//!
//! A sweeper may have ended after it stored a proof, and before it recorded the row. Or somebody deleted the row, so that the
//! run is sealed again. In both cases the first file is recorded, so no second one with other content is ever signed.

use crate::context::Ctx;
use crate::db::seal::NewSeal;
use crate::domain::digest::sha256_hex;
use crate::domain::proof::{self, SEAL_TYPE, SealPredicate};
use crate::error::Error;
use crate::signing::{PublicKey, dsse};

/// What to record of the proof that was stored first for the generation of `wanted`. None if none was. An error if the
/// storage has another file at its place: then somebody wrote to the bucket, and nothing is sealed.
pub(super) async fn first(ctx: &Ctx, keys: &[PublicKey], wanted: &NewSeal) -> Result<Option<NewSeal>, Error> {
    let of = (&wanted.tenant_id, wanted.run_id, wanted.generation);
    let Some((uri, bytes)) = ctx.storage.first_proof(of).await? else { return Ok(None) };
    let Some((seal, keyid)) = sealed(&bytes, keys, wanted) else {
        let problem = format!("the run {} has {uri}, which none of our keys has sealed for it", wanted.run_id);
        return Err(Error::internal("seal a run", problem));
    };
    Ok(Some(NewSeal {
        tenant_id: wanted.tenant_id.clone(),
        run_id: wanted.run_id,
        generation: wanted.generation,
        digest: sha256_hex(&bytes),
        keyid,
        uri,
        size_bytes: bytes.len() as u64,
        events: seal.events,
    }))
}

/// What the seal of a file says, and the id of its key. None if it is no proof of that generation.
fn sealed(bytes: &[u8], keys: &[PublicKey], wanted: &NewSeal) -> Option<(SealPredicate, String)> {
    let file = proof::read(bytes).ok()?;
    let statement = dsse::opened(&file["seal"], keys)?;
    let seal: SealPredicate = serde_json::from_value(statement["predicate"].clone()).ok()?;
    let is_ours = statement["predicateType"] == SEAL_TYPE
        && seal.run == wanted.run_id.to_string()
        && seal.tenant == wanted.tenant_id.to_string()
        && seal.generation == wanted.generation
        && proof::is_sealed(&file["content"], &seal);
    let keyid = file["seal"]["signatures"][0]["keyid"].as_str()?.to_owned();
    is_ours.then_some((seal, keyid))
}
