//! Requests that pass, and everything that does not.

use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

use super::*;

fn nameless() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn request(params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> (KeyPair, Vec<u8>) {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let request = params.serialize_request(&pair).unwrap();
    (pair, request.der().to_vec())
}

#[test]
fn both_kinds_of_keys_pass_and_are_those_of_the_request() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let pem = nameless().serialize_request(&pair).unwrap().pem().unwrap();
        let parsed = CertificateRequest::parse(&pem).unwrap();
        assert_eq!(parsed.subject_public_key_info(), pair.subject_public_key_info());
        assert_eq!(CertificateRequest::parse(&format!("# a comment\n{pem}\n")).unwrap(), parsed);
    }
    // By `openssl req -new -newkey … -subj /`: what others write.
    for pem in [include_str!("openssl-p256.pem"), include_str!("openssl-ed25519.pem")] {
        assert!(CertificateRequest::parse(pem).is_ok(), "{pem}");
    }
}

#[test]
fn names_and_extensions_are_refused_whoevers_they_are() {
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = nameless();
        change(&mut params);
        CertificateRequest::of_der(&request(&params, &PKCS_ED25519).1).unwrap_err()
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    assert_eq!(with(&|params| params.distinguished_name.push(DnType::CommonName, "someone else")), RequestError::Names);
    assert_eq!(with(&|params| params.subject_alt_names = vec![uri("bigpeer://other/site/1")]), RequestError::Names);
    assert_eq!(
        with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        RequestError::Names
    );
}

#[test]
fn other_keys_and_other_hands_are_refused() {
    for pem in [include_str!("openssl-rsa.pem"), include_str!("openssl-p384.pem")] {
        assert_eq!(CertificateRequest::parse(pem).unwrap_err(), RequestError::Key, "{pem}");
    }
    // P-256 with a hash of its own choice.
    assert_eq!(
        CertificateRequest::parse(include_str!("openssl-p256-sha512.pem")).unwrap_err(),
        RequestError::Signature
    );
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let (pair, mut der) = request(&nameless(), algorithm);
        let other = KeyPair::generate_for(algorithm).unwrap();
        let at = der.windows(pair.der_bytes().len()).position(|window| window == pair.der_bytes()).unwrap();
        der[at..at + pair.der_bytes().len()].copy_from_slice(other.der_bytes());
        assert_eq!(CertificateRequest::of_der(&der).unwrap_err(), RequestError::Signature, "another's key");
        let (_, mut der) = request(&nameless(), algorithm);
        *der.last_mut().unwrap() ^= 1;
        assert_eq!(CertificateRequest::of_der(&der).unwrap_err(), RequestError::Signature);
    }
}

#[test]
fn points_of_small_order_are_no_keys() {
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let (mut zero, mut one) = ([0; 32], [0; 32]);
    one[0] = 1;
    assert!(is_small(zero) && is_small(one) && is_small(minus_one));
    zero[31] = 0x80;
    minus_one[31] = 0xff;
    assert!(is_small(zero) && is_small(minus_one), "whatever the sign says");
    for spelling in [0xed, 0xee] {
        let mut point = minus_one;
        point[0] = spelling;
        assert!(is_small(point), "1 and 0 in their other spelling");
    }
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert!(!is_small(pair.der_bytes().try_into().unwrap()));
    // The neutral element with a signature that is good for every message.
    let (pair, mut der) = request(&nameless(), &PKCS_ED25519);
    let at = der.windows(32).position(|window| window == pair.der_bytes()).unwrap();
    der[at..at + 32].copy_from_slice(&one);
    let signature = der.len() - 64;
    der[signature..].fill(0);
    der[signature] = 1;
    assert_eq!(CertificateRequest::of_der(&der).unwrap_err(), RequestError::Key);
}

#[test]
fn what_is_too_long_or_no_request_is_refused() {
    let pem = nameless().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let long = format!("{}{pem}", "#\n".repeat(MAX_BYTES / 2));
    assert_eq!(CertificateRequest::parse(&long).unwrap_err(), RequestError::TooLarge);
    let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    for wrong in ["", "x", &certificate.cert.pem(), &pem[..pem.len() / 2]] {
        assert_eq!(CertificateRequest::parse(wrong).unwrap_err(), RequestError::Malformed, "{wrong}");
    }
    let (_, mut der) = request(&nameless(), &PKCS_ED25519);
    der.push(0);
    assert_eq!(CertificateRequest::of_der(&der).unwrap_err(), RequestError::Malformed);
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_and_nothing_else_happens(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(CertificateRequest::of_der(&bytes).is_err());
    }

    #[test]
    fn a_request_with_one_byte_changed_is_refused(at in any::<prop::sample::Index>(), to in 1..=255_u8) {
        let (_, mut der) = request(&nameless(), &PKCS_ED25519);
        let at = at.index(der.len());
        der[at] ^= to;
        prop_assert!(CertificateRequest::of_der(&der).is_err());
    }
}
