//! Certificates with logins, and what is asked to believe them.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_chassis::{AUTHORITY_PUBLISHED_BEFORE_MS, PeerCertificate, Revoked, TokenAge};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::*;

const HOUR_MS: u64 = 3600 * 1000;

fn csr_with(pair: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(pair).unwrap().pem().unwrap()
}

fn csr() -> String {
    csr_with(&KeyPair::generate().unwrap(), |_| ())
}

fn chain(session: &Value) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text(session, "certificate").as_bytes()).map(Result::unwrap).collect()
}

impl World {
    async fn get(&self, path: &str, credential: Option<&str>, accept: &str) -> (StatusCode, String) {
        let mut request = Request::get(format!("/{}/auth/{path}", self.app)).header(header::ACCEPT, accept);
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        let response = router(self.context()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn shown(&self, session: &Value) -> PeerCertificate {
        self.catalogue.verify_certificate(&chain(session)[0]).unwrap()
    }
}

#[tokio::test]
async fn a_login_and_each_refresh_give_a_certificate_for_the_peers_own_key() {
    let world = world().await;
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let body = json!({"csr": csr_with(&pair, |_| ())}).to_string();
    let (status, session) = world.send("login", Some(&world.key), &body).await;
    assert_eq!((status, &session["certificate_expires_at"]), (StatusCode::OK, &json!(5_000_000 + HOUR_MS)));
    let shown = world.shown(&session);
    assert_eq!(
        (shown.login.site.to_string(), shown.account().to_string()),
        (text(&session, "site").into(), "k".into())
    );
    let chain = chain(&session);
    let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
    assert_eq!(leaf.subject_public_key_info().as_ref(), pair.subject_public_key_info());
    // Whoever has what is published believes it, in both directions.
    let (_, pem) = world.get("certs?format=pem", None, "").await;
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    assert_eq!(authorities, chain[1..]);
    let anchors = [anchor_from_trusted_cert(&authorities[0]).unwrap()];
    let now = UnixTime::since_unix_epoch(Duration::from_secs(5000));
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        assert!(leaf.verify_for_usage(algorithms, &anchors, &[], now, usage, None, None).is_ok());
    }

    world.clock.advance(1000);
    let refresh = text(&session, "refresh_token").to_owned();
    let (status, next) = world.send("refresh", Some(&refresh), &body).await;
    assert_eq!((status, &next["certificate_expires_at"]), (StatusCode::OK, &json!(5_001_000 + HOUR_MS)));
    assert_eq!(world.shown(&next).login.site, shown.login.site);
    // Nobody gets one who does not ask.
    let (status, last) = world.send("refresh", Some(text(&next, "refresh_token")), "").await;
    assert_eq!((status, last.get("certificate")), (StatusCode::OK, None));
    assert_eq!(world.send("login", Some(&world.key), "{}").await.1.get("certificate"), None);
}

#[tokio::test]
async fn a_request_that_is_refused_costs_neither_login_nor_refresh_token() {
    let world = world().await;
    let pair = KeyPair::generate().unwrap();
    let (status, session) = world.send("login", Some(&world.key), "{}").await;
    assert_eq!(status, StatusCode::OK);
    let refresh = text(&session, "refresh_token");
    let good = csr();
    let uri = SanType::URI(format!("bigpeer://{}/site/0000000000000001", world.app).try_into().unwrap());
    let foreign = csr_with(&pair, |params| params.subject_alt_names = vec![uri]);
    let named = csr_with(&pair, |params| params.distinguished_name.push(DnType::CommonName, "somebody else"));
    // Somebody else's key, with a signature of one's own.
    let broken = {
        let der = pem_bytes(&good);
        let mut der = der;
        *der.last_mut().unwrap() ^= 1;
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64::engine::general_purpose::STANDARD.encode(der)
        )
    };
    let weak = include_str!("../../../chassis/src/certificate/request/openssl-rsa.pem");
    for (csr, reason) in [
        (foreign.as_str(), "names nothing"),
        (&named, "names nothing"),
        (&broken, "signature"),
        (weak, "Ed25519 or P-256"),
        (&"x".repeat(3000), "more than"),
        ("", "PKCS#10"),
    ] {
        for (what, credential) in [("login", &*world.key), ("refresh", refresh)] {
            let (status, answer) = world.send(what, Some(credential), &json!({"csr": csr}).to_string()).await;
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{what} {reason}: {answer}");
            assert!(message.contains(reason) && message.contains("'csr'"), "{message}");
        }
    }
    let large = json!({"csr": "x".repeat(MAX_BODY_BYTES)}).to_string();
    for (what, credential) in [("login", &*world.key), ("refresh", refresh)] {
        assert_eq!(world.send(what, Some(credential), &large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }
    // Strangers hear that they are strangers.
    let body = json!({"csr": good}).to_string();
    for (what, credential) in [("login", None), ("login", Some("wrong")), ("refresh", Some("bpr_x_y"))] {
        assert_eq!(world.send(what, credential, &body).await.0, StatusCode::UNAUTHORIZED, "{what}");
    }
    let (status, next) = world.send("refresh", Some(refresh), &body).await;
    assert_eq!(status, StatusCode::OK, "{next}");
    assert!(world.shown(&next).expires_at_ms() > 5_000_000);
}

fn pem_bytes(pem: &str) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn a_certificate_ends_with_the_login_and_with_its_revocation() {
    let world = world().await;
    let provider = json!({"type": "anonymous", "shared_token": "a token that all share", "session_secs": 600,
        "permissions": {"read": {"everything": true}}});
    assert!(world.admin(Method::PUT, "providers/p", provider).await.0.is_success());
    let body = json!({"provider": "p", "token": "a token that all share", "csr": csr()}).to_string();
    let (status, session) = world.send("login", None, &body).await;
    assert_eq!((status, &session["certificate_expires_at"]), (StatusCode::OK, &json!(5_600_000)));
    let shown = world.shown(&session);
    assert!(world.catalogue.certificate_holds(&shown).is_ok());
    world.catalogue.revoke(&world.app, Revoked::Site(shown.login.site)).await.unwrap();
    assert!(world.catalogue.certificate_holds(&shown).is_err());
}

#[tokio::test]
async fn authorities_are_published_and_replaced_by_administrators() {
    let world = world().await;
    let list = async |accept: &str| world.get("certs", None, accept).await;
    assert_eq!(list("").await, (StatusCode::OK, r#"{"authorities":[]}"#.to_owned()));
    let body = json!({"csr": csr()}).to_string();
    let (_, before) = world.send("login", Some(&world.key), &body).await;
    let (status, rotated) = world.admin(Method::POST, "authorities/rotate", Value::Null).await;
    assert_eq!((status, rotated["authorities"].as_array().unwrap().len()), (StatusCode::OK, 2));
    assert_eq!(rotated["authorities"][1]["issues_from"], 5_000_000 + AUTHORITY_PUBLISHED_BEFORE_MS);
    let (_, json) = list("application/json").await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), rotated);
    let pem = list("application/x-pem-file").await.1;
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!json.contains("key") && !pem.contains("PRIVATE"));
    assert!(world.shown(&before).expires_at_ms() > 5_000_000);
    assert_eq!(world.get("certs?format=der", None, "").await.0, StatusCode::BAD_REQUEST);
    let (_, at_once) = world.admin(Method::POST, "authorities/rotate", json!({"at_once": true})).await;
    assert_eq!(at_once["authorities"].as_array().unwrap().len(), 1);
    assert!(world.catalogue.verify_certificate(&chain(&before)[0]).is_err());
    let (status, next) = world.send("refresh", Some(text(&before, "refresh_token")), &body).await;
    assert_eq!(status, StatusCode::OK, "whoever has a refresh token goes on");
    assert!(world.shown(&next).expires_at_ms() > 5_000_000);
}

#[tokio::test]
async fn what_was_revoked_is_told_to_who_is_let_in_signed_and_is_no_token() {
    let world = world().await;
    world.catalogue.revoke(&world.app, Revoked::User("anna".to_owned())).await.unwrap();
    assert_eq!(world.get("revocations", None, "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("revocations", Some("wrong"), "").await.0, StatusCode::UNAUTHORIZED);
    let (_, session) = world.send("login", Some(&world.key), "{}").await;
    for credential in [text(&session, "access_token"), &world.key] {
        let (status, list) = world.get("revocations", Some(credential), "").await;
        assert_eq!(status, StatusCode::OK);
        let parts: Vec<&str> = list.split('.').collect();
        let [head, claims, signature] = parts.as_slice() else { panic!("{list}") };
        let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let (head, claims) = (read(head), read(claims));
        let key = world.catalogue.published_keys(&world.app)[0].clone();
        assert_eq!((&head["typ"], &head["kid"]), (&json!("bigpeer-revocations+jwt"), &json!(key.kid)));
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(5000), &json!(5000 + 24 * 3600)));
        assert_eq!((&claims["aud"], &claims["revocations"][0]["user"]), (&json!(world.app), &json!("anna")));
        let signed = list.rsplit_once('.').unwrap().0;
        ::ring::signature::UnparsedPublicKey::new(&::ring::signature::ED25519, key.public)
            .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
            .unwrap();
        assert!(world.catalogue.verify_token(&world.app, &list, TokenAge::MayHaveEnded).is_err());
    }
}
