//! Signatures that the issuer's keys did not make, or not of this text.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::forge::{Alg, FORGE, b64, claims, ec_pair, ec_sign, rsa_modulus, rsa_sign, sealed};
use super::{Hostile, good, parts};
use crate::domain::digest::hex;

/// The order of P-256's group.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Psychic signatures (CVE-2022-21449) and other values out of range, DER, other curves and other keys.
/// Psychic signatures (CVE-2022-21449) and other values out of range, DER, other curves and other keys.
pub fn ec() -> Vec<Hostile> {
    let header = Alg::Es256.header().to_string();
    let seal = |sign: &dyn Fn(&[u8]) -> Vec<u8>| sealed(&header, claims().to_string(), sign);
    let signature = |signed: &[u8]| FORGE.signature(Alg::Es256, signed);
    let (zero, one, ones) = ([0; 32], [&[0; 31][..], &[1]].concat(), [0xff; 32]);
    let mut above = ORDER;
    above[31] += 1;
    let values: [(&str, &[u8]); 5] =
        [("0", &zero), ("1", &one), ("n", &ORDER), ("n + 1", &above), ("2^256 - 1", &ones)];
    let mut found = Vec::new();
    for (r_name, r) in values {
        for (s_name, s) in values {
            found.push((format!("r = {r_name}, s = {s_name}"), seal(&|_| [r, s].concat())));
        }
        found.push((format!("r = {r_name}"), seal(&|signed| [r, &signature(signed)[32..]].concat())));
        found.push((format!("s = {r_name}"), seal(&|signed| [&signature(signed)[..32], r].concat())));
    }
    let pkcs8 = FORGE.ec.to_pkcs8v1().unwrap();
    let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    found.push(("in DER".into(), seal(&|signed| ec_sign(&der, signed))));
    let p384 = ec_pair(&ECDSA_P384_SHA384_FIXED_SIGNING);
    found.push(("of P-384".into(), seal(&|signed| ec_sign(&p384, signed))));
    found.push(("of another key".into(), seal(&|signed| ec_sign(&FORGE.other_ec, signed))));
    found.push(("of another text".into(), seal(&|_| signature(b"another text"))));
    found.push(("of the payload alone".into(), seal(&|_| signature(claims().to_string().as_bytes()))));
    found.push(("swapped".into(), seal(&|signed| [&signature(signed)[32..], &signature(signed)[..32]].concat())));
    found.push(("without its end".into(), seal(&|signed| signature(signed)[..63].to_vec())));
    found.push(("without its start".into(), seal(&|signed| signature(signed)[1..].to_vec())));
    found.push(("r alone".into(), seal(&|signed| signature(signed)[..32].to_vec())));
    found.push(("with a zero before it".into(), seal(&|signed| [&[0], signature(signed).as_slice()].concat())));
    found.push(("with a zero after it".into(), seal(&|signed| [signature(signed).as_slice(), &[0]].concat())));
    found.push(("twice".into(), seal(&|signed| signature(signed).repeat(2))));
    found.push(("in hex".into(), seal(&|signed| hex(&signature(signed)).into_bytes())));
    for length in [1, 32, 64, 65, 70, 72, 96, 132, 256] {
        found.push((format!("{length} zeros"), seal(&|_| vec![0; length])));
    }
    for bit in (0..512).step_by(13) {
        let flip = |signed: &[u8]| {
            let mut bytes = signature(signed);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        found.push((format!("with bit {bit} flipped"), seal(&flip)));
    }
    found.into_iter().map(|(name, token)| (format!("ES256 signature {name}"), token)).collect()
}

pub fn rsa() -> Vec<Hostile> {
    let header = Alg::Rs256.header().to_string();
    let seal = |sign: &dyn Fn(&[u8]) -> Vec<u8>| sealed(&header, claims().to_string(), sign);
    let signature = |signed: &[u8]| FORGE.signature(Alg::Rs256, signed);
    let n = rsa_modulus(&FORGE.rsa);
    let mut below = n.clone();
    below[255] -= 1;
    // What a verifier with the exponent 1 would accept.
    let padded = |signed: &[u8]| {
        let digest_info = URL_SAFE_NO_PAD.decode("MDEwDQYJYIZIAWUDBAIBBQAEIA").unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed);
        let tail = [&[0][..], &digest_info, digest.as_ref()].concat();
        [&[0, 1][..], &vec![0xff; 254 - tail.len()], &tail].concat()
    };
    let mut found: Vec<Hostile> = vec![
        ("0".into(), seal(&|_| vec![0; 256])),
        ("1".into(), seal(&|_| [&[0; 255][..], &[1]].concat())),
        ("n".into(), seal(&|_| n.clone())),
        ("n - 1".into(), seal(&|_| below.clone())),
        ("2^2048 - 1".into(), seal(&|_| vec![0xff; 256])),
        ("one zero".into(), seal(&|_| vec![0])),
        ("for the exponent 1".into(), seal(&padded)),
        ("of another key".into(), seal(&|signed| rsa_sign(&FORGE.other_rsa, &RSA_PKCS1_SHA256, signed))),
        ("of another text".into(), seal(&|_| signature(b"another text"))),
        ("without its end".into(), seal(&|signed| signature(signed)[..255].to_vec())),
        ("with a zero before it".into(), seal(&|signed| [&[0], signature(signed).as_slice()].concat())),
        ("with a zero after it".into(), seal(&|signed| [signature(signed).as_slice(), &[0]].concat())),
        ("twice".into(), seal(&|signed| signature(signed).repeat(2))),
        ("of ES256".into(), seal(&|signed| FORGE.signature(Alg::Es256, signed))),
    ];
    for bit in (0..2_048).step_by(97) {
        let flip = |signed: &[u8]| {
            let mut bytes = signature(signed);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        found.push((format!("with bit {bit} flipped"), seal(&flip)));
    }
    let token = good(Alg::Hs256);
    let [header, payload, mac] = parts(&token);
    let mac = URL_SAFE_NO_PAD.decode(mac).unwrap();
    for (name, other) in [
        ("half a MAC", mac[..16].to_vec()),
        ("a MAC and a zero", [&mac[..], &[0]].concat()),
        ("a MAC of zeros", vec![0; 32]),
    ] {
        found.push((name.into(), format!("{header}.{payload}.{}", b64(other))));
    }
    found.into_iter().map(|(name, token)| (format!("RS256 or HS256 signature {name}"), token)).collect()
}
