//! DSSE: what is signed of a payload, and the envelope around both
//! (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{PublicKey, Signed, Signer};
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

/// The statement of an envelope as [`seal`] writes it. None unless one of these keys signed it.
pub fn opened(envelope: &Value, keys: &[PublicKey]) -> Option<Value> {
    let [signature] = envelope["signatures"].as_array()?.as_slice() else { return None };
    let payload = STANDARD.decode(envelope["payload"].as_str()?).ok()?;
    let sig = STANDARD.decode(signature["sig"].as_str()?).ok()?;
    let key = keys.iter().find(|key| signature["keyid"] == key.keyid())?;
    let is_signed =
        envelope["payloadType"] == PAYLOAD_TYPE && key.verifies(&pre_authentication(PAYLOAD_TYPE, &payload), &sig);
    is_signed.then(|| serde_json::from_slice(&payload).ok())?
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

#[cfg(test)]
mod tests {
    use super::super::PrivateKey;
    use super::*;

    #[tokio::test]
    async fn an_envelope_is_opened_by_the_key_that_sealed_it() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let (keys, others) = ([key.public().clone()], [other.public().clone()]);
        let statement = json!({ "a": "é" });
        let envelope = seal(&statement, &Signer::with_key(key)).await.unwrap();
        assert_eq!(opened(&envelope, &keys), Some(statement));
        assert_eq!(opened(&envelope, &others), None);
        for (pointer, value) in [
            ("/payload", json!("e30g")),
            ("/payloadType", json!("t")),
            ("/signatures/0/keyid", json!("")),
            ("/signatures", json!([])),
        ] {
            let mut changed = envelope.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert_eq!(opened(&changed, &keys), None, "{pointer}");
        }
    }
}
