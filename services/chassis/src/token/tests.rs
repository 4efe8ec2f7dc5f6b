//! Tokens and what passes itself off as one.

use ring::signature::KeyPair as _;

use super::*;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> [u8; 32] {
    pair(seed).public_key().as_ref().try_into().unwrap()
}

fn token() -> AccessToken {
    AccessToken {
        app: AppId::new("app").unwrap(),
        site: SiteId::new(9),
        holder: Holder::Key("dev".parse().unwrap()),
        issued_at_secs: 1,
        expires_at_secs: 2,
        logged_in_ms: 1500,
        login: None,
    }
}

fn verify(text: &str) -> Option<AccessToken> {
    let (one, two) = (public(1), public(2));
    AccessToken::verify(text, [("aa", &one), ("bb", &two)]).map(|(token, _)| token)
}

#[test]
fn only_what_was_signed_with_the_key_is_read() {
    let text = token().sign("aa", &pair(1)).unwrap();
    assert_eq!(verify(&text), Some(token()));
    assert_eq!(verify(&token().sign("bb", &pair(2)).unwrap()), Some(token()));
    // A key under another's name, one that nobody knows, a name that nobody knows.
    assert_eq!(verify(&token().sign("aa", &pair(2)).unwrap()), None);
    assert_eq!(verify(&token().sign("aa", &pair(3)).unwrap()), None);
    assert_eq!(verify(&token().sign("cc", &pair(1)).unwrap()), None);
    for at in 0..text.len() {
        let mut broken = text.clone().into_bytes();
        broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
        let broken = String::from_utf8(broken).unwrap();
        if let Some(read) = verify(&broken) {
            panic!("changing byte {at} was not noticed: {read:?}");
        }
    }
    assert_eq!(verify(&"a.".repeat(9000)), None);
}

#[test]
fn a_user_and_what_was_said_of_them_reads_back() {
    let claims = serde_json::json!({"store": "s1", "levels": [1, 2], "nested": {"a": null}});
    let user = User {
        provider: "idp".parse().unwrap(),
        id: "anna@example.com".to_owned(),
        roles: vec!["clerk".parse().unwrap()],
        permissions: Some(Permissions::read_only()),
        claims: claims.as_object().unwrap().clone(),
    };
    let token = AccessToken { holder: Holder::User(Box::new(user)), login: Some("l".to_owned()), ..token() };
    assert_eq!(verify(&token.sign("aa", &pair(1)).unwrap()), Some(token));
}

#[test]
fn other_algorithms_and_key_ids_that_lead_elsewhere_are_refused() {
    let text = token().sign("aa", &pair(1)).unwrap();
    let mut parts = text.split('.').skip(1);
    let (claims, signature) = (parts.next().unwrap(), parts.next().unwrap());
    let headers = [
        r#"{"alg":"none"}"#,
        r#"{"alg":"none","typ":"JWT","kid":"aa"}"#,
        r#"{"alg":"HS256","typ":"JWT","kid":"aa"}"#,
        r#"{"alg":"EdDSA","typ":"JWT"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":""}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":"../../dev/null"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":"aa","jku":"https://evil.example/keys"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":"aa","jwk":{"kty":"OKP","crv":"Ed25519","x":""}}"#,
        r#"{"typ":"JWT","alg":"EdDSA","kid":"aa"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":"aa'; --"}"#,
        "",
    ];
    for header in headers {
        let header = URL_SAFE_NO_PAD.encode(header);
        // Without a signature, with the one of the good header, signed anew with a key of one's own, and with the public key
        // as the secret of a MAC.
        let signed = format!("{header}.{claims}");
        let own = URL_SAFE_NO_PAD.encode(pair(7).sign(signed.as_bytes()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public(1));
        let mac = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
        for tail in ["", signature, &own, &mac] {
            assert_eq!(verify(&format!("{signed}.{tail}")), None, "{header}");
        }
    }
}

#[test]
fn it_is_an_ordinary_json_web_token() {
    // Signed by another implementation (OpenSSL over RFC 7515's signing input).
    let text = concat!(
        "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6ImFhIn0.",
        "eyJhdWQiOiJhcHAiLCJzdWIiOiIwMDAwMDAwMDAwMDAwMDA5Iiwia2V5IjoiZGV2IiwiaWF0IjoxLCJleHAiOjIsImF1dGhfbXMiOjE1MDB9.",
        "TbomaDD-vHHWDAKrbkS0C7LyB-a4Ni4bIkzTUGlesh2vr0XJrSDjnuvvXF8MSt5jSHvJgvlFqCleE5kFMZO0Aw"
    );
    assert_eq!(token().sign("aa", &pair(1)).unwrap(), text);
}
