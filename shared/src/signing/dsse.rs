//! DSSE: what is signed of a payload, and the envelope around both
//! (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Signed, Signer};
use crate::error::Error;

/// The payload type of in-toto statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The bytes that are signed: DSSE's pre-authentication encoding. The lengths keep type and payload apart.
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The payload of a statement: JSON, and blanks up to a multiple of three bytes. So its base64 has no padding, and no bits
/// that lenient decoders ignore.
pub fn padded(mut payload: Vec<u8>) -> Vec<u8> {
    payload.resize(payload.len().next_multiple_of(3), b' ');
    payload
}

/// Signs an in-toto statement. Returns the envelope.
pub async fn seal(statement: &Value, signer: &Signer) -> Result<Value, Error> {
    let payload = padded(statement.to_string().into_bytes());
    let Signed { keyid, signature } = signer.sign(&pre_authentication(PAYLOAD_TYPE, &payload)).await?;
    Ok(json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": STANDARD.encode(&payload),
        "signatures": [{ "keyid": keyid, "sig": STANDARD.encode(signature) }],
    }))
}
