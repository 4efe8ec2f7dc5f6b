//! An issuer in this process, and tokens of it, of others, and of nobody.

mod rotation;
mod rsa;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_chassis::Algorithm;
use bigpeer_types::ManualClock;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

const NOW_SECS: u64 = 1_700_000_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    format!("{signed}.{}", encode(sign(signed.as_bytes())))
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn jwk(seed: u8, kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": encode(pair(seed).public_key())})
}

/// An issuer on a port of this machine.
struct Idp {
    url: String,
    state: Arc<IdpState>,
    clock: Arc<ManualClock>,
    issuers: Issuers,
}

#[derive(Default)]
struct IdpState {
    configuration: Mutex<Value>,
    keys: Mutex<Value>,
    /// How often keys were asked for.
    asked: AtomicUsize,
}

async fn idp(keys: Value) -> Idp {
    let state = Arc::new(IdpState { keys: Mutex::new(keys), ..IdpState::default() });
    let router =
        Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(|State(state): State<Arc<IdpState>>| async move {
                    axum::Json(state.configuration.lock().unwrap().clone())
                }),
            )
            .route(
                "/keys",
                get(|State(state): State<Arc<IdpState>>| async move {
                    state.asked.fetch_add(1, Ordering::SeqCst);
                    axum::Json(json!({"keys": *state.keys.lock().unwrap()}))
                }),
            )
            .with_state(Arc::clone(&state));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    *state.configuration.lock().unwrap() = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
    let clock = Arc::new(ManualClock::new(NOW_SECS * 1000));
    let issuers = Issuers::new(true, Arc::clone(&clock) as _);
    Idp { url, state, clock, issuers }
}

impl Idp {
    fn oidc(&self) -> Oidc {
        Oidc {
            issuer: self.url.clone(),
            audiences: vec!["our-app".to_owned()],
            algorithms: vec![Algorithm::EdDSA, Algorithm::ES256],
            user_claim: "sub".to_owned(),
            claims: [
                ("store".to_owned(), "https://example.com/store".to_owned()),
                ("city".to_owned(), "address.city".to_owned()),
            ]
            .into(),
            roles_claim: Some("roles".to_owned()),
            permissions_claim: None,
        }
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": ["other", "our-app"], "sub": "anna", "exp": NOW_SECS + 300, "iat": NOW_SECS,
            "nbf": NOW_SECS, "https://example.com/store": "s1", "address": {"city": "Graz"},
            "roles": ["clerk", "not a name!", 7, "boss"]})
    }

    fn token(&self, seed: u8, kid: &str, claims: &Value) -> String {
        signed(&json!({"alg": "EdDSA", "kid": kid}), claims, |text| pair(seed).sign(text).as_ref().to_vec())
    }

    async fn verify(&self, token: &str) -> Result<Vouched, Refusal> {
        self.issuers.verify(&self.oidc(), &"idp".parse().unwrap(), token, 60).await
    }

    fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_says_who_it_is() {
    let idp = idp(json!([jwk(1, "a"), {"kty": "unknown"}, jwk(2, "b")])).await;
    for (seed, kid) in [(1, "a"), (2, "b"), (1, "a")] {
        let vouched = idp.verify(&idp.token(seed, kid, &idp.claims())).await.unwrap();
        assert_eq!((vouched.user.id.as_str(), vouched.session_secs), ("anna", 60));
        assert_eq!(json!(vouched.user.claims), json!({"store": "s1", "city": "Graz"}));
        assert_eq!(vouched.user.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["clerk", "boss"]);
    }
    assert_eq!(idp.asked(), 1, "keys are kept");
    let scopes = json!({"roles": "clerk boss"});
    let mut claims = idp.claims();
    claims.as_object_mut().unwrap().extend(scopes.as_object().unwrap().clone());
    assert_eq!(idp.verify(&idp.token(1, "a", &claims)).await.unwrap().user.roles.len(), 2);
}

#[tokio::test]
async fn claims_of_others_and_of_other_times_are_refused() {
    let idp = idp(json!([jwk(1, "a")])).await;
    let changes = [
        json!({"iss": "https://other.example"}),
        json!({"iss": null}),
        json!({"aud": "other"}),
        json!({"aud": ["our-app-2", "our"]}),
        json!({"aud": {"our-app": true}}),
        json!({"exp": NOW_SECS - 61}),
        json!({"exp": "tomorrow"}),
        json!({"exp": null}),
        json!({"nbf": NOW_SECS + 120}),
        json!({"iat": NOW_SECS + 3600}),
    ];
    for change in &changes {
        let mut claims = idp.claims();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = idp.verify(&idp.token(1, "a", &claims)).await;
        assert!(matches!(refused, Err(Refusal::Denied(_))), "{change}");
    }
    for missing in ["iss", "aud", "exp"] {
        let mut claims = idp.claims();
        claims.as_object_mut().unwrap().remove(missing);
        assert!(matches!(idp.verify(&idp.token(1, "a", &claims)).await, Err(Refusal::Denied(_))), "{missing}");
    }
}

#[tokio::test]
async fn signatures_of_others_and_other_algorithms_are_refused() {
    let idp = idp(json!([jwk(1, "a"), jwk(2, "b")])).await;
    let claims = idp.claims();
    let public = pair(1).public_key().as_ref().to_vec();
    let mac =
        |text: &[u8]| ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public), text).as_ref().to_vec();
    let own = |text: &[u8]| pair(9).sign(text).as_ref().to_vec();
    let good = |text: &[u8]| pair(1).sign(text).as_ref().to_vec();
    let attacks = [
        signed(&json!({"alg": "none"}), &claims, |_| Vec::new()),
        signed(&json!({"alg": "None", "kid": "a"}), &claims, |_| Vec::new()),
        signed(&json!({"alg": "HS256", "kid": "a"}), &claims, mac),
        signed(&json!({"alg": "EdDSA", "kid": "a"}), &claims, mac),
        signed(&json!({"alg": "EdDSA", "kid": "a"}), &claims, own),
        signed(&json!({"alg": "EdDSA", "kid": "b"}), &claims, good),
        signed(&json!({"alg": "EdDSA", "kid": "../a"}), &claims, good),
        signed(&json!({"alg": "RS256", "kid": "a"}), &claims, good),
        signed(&json!({"alg": "EdDSA", "kid": "a", "crit": ["exp"]}), &claims, good),
        signed(&json!({"alg": "EdDSA", "jwk": jwk(9, "x"), "kid": "x"}), &claims, own),
        signed(&json!({"alg": "EdDSA", "jku": "http://127.0.0.1:1/keys", "kid": "x"}), &claims, own),
        idp.token(1, "a", &claims).replace('.', ".."),
        "a.b".to_owned(),
        String::new(),
    ];
    for token in &attacks {
        assert!(matches!(idp.verify(token).await, Err(Refusal::Denied(_))), "{token}");
    }
    assert!(idp.verify(&idp.token(1, "a", &claims)).await.is_ok());
    let only_es = Oidc { algorithms: vec![Algorithm::ES256], ..idp.oidc() };
    let refused = idp.issuers.verify(&only_es, &"idp".parse().unwrap(), &idp.token(1, "a", &claims), 60).await;
    assert!(matches!(refused, Err(Refusal::Denied(_))), "an algorithm that the provider does not allow");
}

#[tokio::test]
async fn new_keys_are_found_and_strangers_cannot_make_it_ask_again_and_again() {
    let idp = idp(json!([jwk(1, "a")])).await;
    assert!(idp.verify(&idp.token(1, "a", &idp.claims())).await.is_ok());
    *idp.state.keys.lock().unwrap() = json!([jwk(2, "b")]);
    for _ in 0..50 {
        assert!(idp.verify(&idp.token(2, "b", &idp.claims())).await.is_err());
    }
    assert_eq!(idp.asked(), 1);
    idp.clock.advance(30_000);
    assert!(idp.verify(&idp.token(2, "b", &idp.claims())).await.is_ok());
    assert!(idp.verify(&idp.token(1, "a", &idp.claims())).await.is_err(), "a key that the issuer took away");
    assert_eq!(idp.asked(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_believed_for_a_day() {
    let idp = idp(json!([jwk(1, "a")])).await;
    let claims = |secs: u64| {
        let mut claims = idp.claims();
        claims["exp"] = json!(NOW_SECS + secs);
        claims
    };
    assert!(idp.verify(&idp.token(1, "a", &claims(300))).await.is_ok());
    *idp.state.configuration.lock().unwrap() =
        json!({"issuer": "https://other.example", "jwks_uri": format!("{}/keys", idp.url)});
    idp.clock.advance(2 * 3_600_000);
    assert!(idp.verify(&idp.token(1, "a", &claims(3 * 3600))).await.is_ok());
    idp.clock.advance(24 * 3_600_000);
    let refused = idp.verify(&idp.token(1, "a", &claims(48 * 3600))).await;
    assert!(matches!(&refused, Err(Refusal::Failed(reason)) if reason.contains("another issuer")), "{refused:?}");
}

#[tokio::test]
async fn issuers_on_private_addresses_are_not_asked_unless_allowed() {
    let idp = idp(json!([jwk(1, "a")])).await;
    let guarded = Issuers::new(false, Arc::clone(&idp.clock) as _);
    let token = idp.token(1, "a", &idp.claims());
    let refused = guarded.verify(&idp.oidc(), &"idp".parse().unwrap(), &token, 60).await;
    assert!(matches!(&refused, Err(Refusal::Failed(reason)) if reason.contains("private")), "{refused:?}");
    assert_eq!(idp.asked(), 0);
}

#[test]
fn other_kinds_of_keys_verify_what_others_signed() {
    let key = Jwk::read(&json!({"kty": "RSA", "kid": "rsa", "n": rsa::MODULUS, "e": "AQAB"})).unwrap();
    for (algorithm, token) in rsa::TOKENS {
        let unverified = jwt::Unverified::parse(token).unwrap();
        assert_eq!(format!("{:?}", unverified.algorithm), algorithm);
        assert_eq!(unverified.verify(std::slice::from_ref(&key)).unwrap()["sub"], "anna");
        let broken = token.replacen("eyJzdWIiOiJhbm5hIn0", &encode(r#"{"sub":"bert"}"#), 1);
        assert!(jwt::Unverified::parse(&broken).unwrap().verify(std::slice::from_ref(&key)).is_none());
    }
    let only = Jwk::read(&json!({"kty": "RSA", "kid": "rsa", "alg": "RS512", "n": rsa::MODULUS, "e": "AQAB"})).unwrap();
    let verified = rsa::TOKENS
        .map(|(_, token)| jwt::Unverified::parse(token).unwrap().verify(std::slice::from_ref(&only)).is_some());
    assert_eq!(verified, [false, true, false], "a key that says what it is for is for nothing else");

    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])});
    let key = Jwk::read(&jwk).unwrap();
    let token = signed(&json!({"alg": "ES256"}), &json!({"sub": "anna"}), |text| {
        pair.sign(&random, text).unwrap().as_ref().to_vec()
    });
    assert!(jwt::Unverified::parse(&token).unwrap().verify(&[key]).is_some());

    for none in [
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "RSA", "n": rsa::MODULUS, "e": "AQAB", "use": "enc"}),
        json!("key"),
    ] {
        assert!(Jwk::read(&none).is_none(), "{none}");
    }
}
