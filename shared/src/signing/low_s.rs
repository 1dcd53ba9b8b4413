//! The two values of s. If (r, s) is an ECDSA signature, so is (r, n - s), for the same message and key. Whoever wants one
//! spelling of a signature accepts only the lower s.

/// n, the order of the group of P-256 (FIPS 186-4, D.1.2.3), big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// Whether s of a signature in DER is the lower one.
pub fn is_low(signature: &[u8]) -> bool {
    parts(signature).is_some_and(|(_, s)| s <= negated(s))
}

/// The same signature with the lower s. None if it is no signature in DER.
pub(super) fn lowered(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = parts(signature)?;
    let body = [integer(&r), integer(&s.min(negated(s)))].concat();
    // Two integers of at most 33 bytes have a length of one byte.
    Some([vec![SEQUENCE, u8::try_from(body.len()).ok()?], body].concat())
}

/// r and s.
fn parts(signature: &[u8]) -> Option<([u8; 32], [u8; 32])> {
    let [SEQUENCE, length, body @ ..] = signature else { return None };
    let (r, rest) = read(body).filter(|_| usize::from(*length) == body.len())?;
    let (s, rest) = read(rest)?;
    rest.is_empty().then_some((r, s))
}

/// An unsigned integer of at most 32 bytes, and what follows it.
fn read(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [INTEGER, length, rest @ ..] = der else { return None };
    let (digits, rest) = rest.split_at_checked(usize::from(*length))?;
    // A zero keeps a number positive whose first bit is set.
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    let mut number = [0; 32];
    number[32_usize.checked_sub(digits.len())?..].copy_from_slice(digits);
    Some((number, rest))
}

fn integer(number: &[u8; 32]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(31);
    let (digits, zero) = (&number[start..], if number[start] >= 0x80 { vec![0] } else { Vec::new() });
    let length = u8::try_from(zero.len() + digits.len()).unwrap_or(u8::MAX);
    [vec![INTEGER, length], zero, digits.to_vec()].concat()
}

/// n - s, for s below n.
fn negated(s: [u8; 32]) -> [u8; 32] {
    let (mut difference, mut borrow) = ([0; 32], false);
    for at in (0..32).rev() {
        let (one, first) = ORDER[at].overflowing_sub(s[at]);
        let (one, second) = one.overflowing_sub(u8::from(borrow));
        (difference[at], borrow) = (one, first || second);
    }
    difference
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

    use super::super::{PrivateKey, PublicKey};
    use super::*;

    /// The other signature.
    fn other(signature: &[u8]) -> Vec<u8> {
        let (r, s) = parts(signature).unwrap();
        let body = [integer(&r), integer(&negated(s))].concat();
        [vec![SEQUENCE, u8::try_from(body.len()).unwrap()], body].concat()
    }

    #[test]
    fn of_two_signatures_one_is_low_and_both_verify() {
        let key = PrivateKey::generate().unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.to_pkcs8().unwrap()).unwrap();
        let public: &PublicKey = key.public();
        let mut lows = 0;
        for _ in 0..50 {
            let one = pair.sign(&SystemRandom::new(), b"message").unwrap().as_ref().to_vec();
            let two = other(&one);
            assert!(public.verifies(b"message", &one) && public.verifies(b"message", &two));
            assert_ne!(is_low(&one), is_low(&two));
            assert_eq!(lowered(&one), lowered(&two));
            let low = lowered(&one).unwrap();
            assert!(is_low(&low) && public.verifies(b"message", &low));
            lows += usize::from(low == one);
        }
        assert!((1..50).contains(&lows), "the library makes both kinds");
        assert!(is_low(&key.sign(b"message").unwrap()));
    }

    #[test]
    fn what_is_no_signature_has_no_s() {
        let good = PrivateKey::generate().unwrap().sign(b"message").unwrap();
        let long = [good.as_slice(), &[0]].concat();
        for bad in [&good[..good.len() - 1], &long, &[], &[SEQUENCE, 0], &[SEQUENCE, 3, INTEGER, 200, 1]] {
            assert!(!is_low(bad) && lowered(bad).is_none(), "{bad:02x?}");
        }
    }
}
