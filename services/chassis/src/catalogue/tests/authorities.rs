//! Certificates of peers: what they say, what is believed, and the rotation of those who vouch for them.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use webpki::EndEntityCert;

use super::*;
use crate::{CertificateError, CertificateRequest, Holder, IssuedCertificate, MAX_CERTIFICATE_TTL_SECS, User};

const HOUR_MS: u64 = 3600 * 1000;

fn request() -> CertificateRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let made = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    CertificateRequest::parse(&made.pem().unwrap()).unwrap()
}

/// The certificate itself, without its authority's.
fn leaf(issued: &IssuedCertificate) -> CertificateDer<'static> {
    CertificateDer::pem_slice_iter(issued.chain.as_bytes()).next().unwrap().unwrap()
}

fn times(refresh_ttl_secs: u64) -> LoginTimes {
    LoginTimes { token_ttl_secs: 60, refresh_ttl_secs }
}

impl World {
    async fn holder(&self, id: &str) -> Holder {
        let kind = ProviderKind::Anonymous {
            shared_token: self.catalogue.keyring().seal("x", b"shared", &RandomIds).unwrap(),
        };
        let spec =
            ProviderSpec { kind, roles: Vec::new(), permissions: Some(Permissions::all()), session_secs: 1_000_000 };
        self.catalogue.put_provider::<CatalogueError>(&self.app.id, &name("idp"), |_| Ok(spec)).await.unwrap();
        let claims = [("team".to_owned(), "a".into())].into_iter().collect();
        let user = User { provider: name("idp"), id: id.to_owned(), roles: Vec::new(), permissions: None, claims };
        Holder::User(Box::new(user))
    }

    async fn granted(&self, holder: Holder, session_secs: Option<u64>) -> Granted {
        self.catalogue.authority_if_due(&self.app.id).await.unwrap();
        self.catalogue.log_in(&self.app.id, SiteId::new(7), holder, session_secs, times(1_000_000)).await.unwrap()
    }

    fn issue(&self, of: &Catalogue, granted: &Granted, ttl_secs: u64) -> IssuedCertificate {
        let permissions = of.judge(&self.app.id, &granted.token).unwrap();
        of.issue_certificate(granted, &request(), &permissions, ttl_secs).unwrap()
    }

    async fn certificate(&self, ttl_secs: u64) -> CertificateDer<'static> {
        let granted = self.granted(self.holder("anna").await, None).await;
        leaf(&self.issue(&self.catalogue, &granted, ttl_secs))
    }
}

#[tokio::test]
async fn a_certificate_says_who_logged_in_and_never_outlives_the_login() {
    let world = world().await;
    let granted = world.granted(world.holder("anna").await, Some(7200)).await;
    let issued = world.issue(&world.catalogue, &granted, 3600);
    assert_eq!(issued.expires_at_ms, 1_000_000 + HOUR_MS);
    let der = leaf(&issued);
    let read = world.catalogue.verify_certificate(&der).unwrap();
    assert_eq!((&read.login.app, read.login.site), (&world.app.id, SiteId::new(7)));
    assert_eq!((read.account().to_string(), read.expires_at_ms()), ("anna".to_owned(), issued.expires_at_ms));
    let allowed = world.catalogue.judge(&world.app.id, &granted.token).unwrap();
    assert_eq!(read.permissions, crate::certificate::digest(&allowed).unwrap());
    let parsed = EndEntityCert::try_from(&der).unwrap();
    assert_eq!(parsed.issuer(), AUTHORITY_NAME_DER);
    let other = leaf(&world.issue(&world.catalogue, &granted, 3600));
    assert_ne!(parsed.serial(), EndEntityCert::try_from(&other).unwrap().serial());
    // The login ends before the certificate would.
    let short = world.issue(&world.catalogue, &granted, MAX_CERTIFICATE_TTL_SECS);
    assert_eq!(short.expires_at_ms, 1_000_000 + 7_200_000);
    let (key, _) = world.key("ending", Some(1_600_500)).await;
    let granted = world.granted(Holder::Key(key.name), None).await;
    assert_eq!(world.issue(&world.catalogue, &granted, 3600).expires_at_ms, 1_600_000);

    world.clock.set(issued.expires_at_ms - 1000);
    assert!(world.catalogue.verify_certificate(&der).is_ok());
    world.clock.set(issued.expires_at_ms);
    assert_eq!(world.catalogue.verify_certificate(&der).unwrap_err(), CertificateError::Expired);
}

#[tokio::test]
async fn what_the_apps_own_authority_did_not_issue_is_not_believed() {
    let world = world().await;
    let der = world.certificate(3600).await;
    // Another app with the same names and an authority of its own: what it issues names itself.
    let other = world.catalogue.create_app(&name("acme"), &name("other")).await.unwrap();
    world.catalogue.authority_if_due(&other.id).await.unwrap();
    assert!(world.catalogue.verify_certificate(&der).is_ok());
    // One that claims to be of this app and is issued by the other's authority, which has the same name.
    let stored = async |app: &AppId| {
        let key = Key::Authorities(app.clone()).encode();
        world.log.metadata().get(&key).await.unwrap().unwrap().value
    };
    let put = async |value| {
        let op = MetaOp::Put { key: Key::Authorities(world.app.id.clone()).encode(), value };
        world.log.metadata().commit(vec![op]).await.unwrap();
        open(&world.log, &world.clock).await
    };
    let (own, foreign) = (stored(&world.app.id).await, stored(&other.id).await);
    let swapped = put(foreign).await;
    let granted = world.granted(world.holder("anna").await, None).await;
    let cross = leaf(&world.issue(&swapped, &granted, 60));
    assert!(swapped.verify_certificate(&cross).is_ok());
    let back = put(own).await;
    assert_eq!(back.verify_certificate(&cross).unwrap_err(), CertificateError::Foreign);
    assert!(back.verify_certificate(&der).is_ok());
    // Its own key does not make it one, whatever it says.
    let named = EndEntityCert::try_from(&der).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.subject_alt_names =
        named.valid_uri_names().map(|uri| rcgen::SanType::URI(uri.try_into().unwrap())).collect();
    let forged = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(world.catalogue.verify_certificate(forged.der()).unwrap_err(), CertificateError::Foreign);
    let nameless = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    assert_eq!(world.catalogue.verify_certificate(nameless.cert.der()).unwrap_err(), CertificateError::Unreadable);
    // Nor is the authority's own certificate that of a peer.
    let published = world.catalogue.published_authorities(&world.app.id)[0].certificate.clone();
    let authority = CertificateDer::from_pem_slice(published.as_bytes()).unwrap();
    assert_eq!(world.catalogue.verify_certificate(&authority).unwrap_err(), CertificateError::Unreadable);
}

#[tokio::test]
async fn a_new_authority_is_published_before_it_issues_and_the_old_one_verifies_until_its_certificates_ended() {
    let world = world().await;
    let other = open(&world.log, &world.clock).await;
    assert!(world.catalogue.published_authorities(&world.app.id).is_empty(), "made when it is needed");
    let old = world.certificate(MAX_CERTIFICATE_TTL_SECS).await;
    world.catalogue.rotate_authority(&world.app.id, false).await.unwrap();
    let all = world.catalogue.published_authorities(&world.app.id);
    assert_eq!((all.len(), all[1].issues_from_ms), (2, 1_000_000 + AUTHORITY_PUBLISHED_BEFORE_MS));
    let issuer = |der: &CertificateDer<'_>| world.catalogue.verify_certificate(der).unwrap().authority.unwrap();
    let between = world.certificate(3600).await;
    assert_eq!(issuer(&between), all[0].id);
    world.clock.advance(AUTHORITY_PUBLISHED_BEFORE_MS);
    let new = world.certificate(3600).await;
    assert_eq!(issuer(&new), all[1].id);
    let mut changes = other.changes();
    while other.published_authorities(&world.app.id).len() < 2 {
        changes.changed().await.unwrap();
    }
    assert!(other.verify_certificate(&old).is_ok() && other.verify_certificate(&new).is_ok());
    // Until the last second of the last certificate of the old one.
    world.clock.advance(MAX_CERTIFICATE_TTL_SECS * 1000 - AUTHORITY_PUBLISHED_BEFORE_MS - 1000);
    assert!(world.catalogue.verify_certificate(&old).is_ok());
    world.clock.advance(AUTHORITY_PUBLISHED_BEFORE_MS + 1000);
    assert_eq!(world.catalogue.published_authorities(&world.app.id).len(), 1);
    assert!(world.catalogue.verify_certificate(&old).is_err());
}

#[tokio::test]
async fn at_once_means_that_no_certificate_of_before_is_good() {
    let world = world().await;
    let old = world.certificate(3600).await;
    let shown = world.catalogue.verify_certificate(&old).unwrap();
    assert!(world.catalogue.certificate_holds(&shown).is_ok());
    world.catalogue.rotate_authority(&world.app.id, true).await.unwrap();
    assert_eq!(world.catalogue.verify_certificate(&old).unwrap_err(), CertificateError::Foreign);
    assert!(world.catalogue.certificate_holds(&shown).is_err(), "nor in open sessions");
    let new = world.certificate(3600).await;
    assert!(world.catalogue.verify_certificate(&new).is_ok());
    let mut refused = None;
    for _ in 0..20 {
        refused = world.catalogue.rotate_authority(&world.app.id, false).await.err();
    }
    assert!(matches!(refused, Some(CatalogueError::Rejected { .. })), "{refused:?}");
    assert!(world.catalogue.verify_certificate(&new).is_ok());
    let nobody = AppId::new("nobody").unwrap();
    for at_once in [false, true] {
        let refused = world.catalogue.rotate_authority(&nobody, at_once).await;
        assert!(matches!(refused, Err(CatalogueError::NotFound { what: "app", .. })));
    }
    assert!(world.catalogue.authority_if_due(&nobody).await.is_err());
}

#[tokio::test]
async fn authorities_are_replaced_by_age_and_their_keys_go_with_their_work() {
    let world = world().await;
    let mut last = None;
    for _ in 0..12 {
        let der = world.certificate(3600).await;
        assert!(world.catalogue.verify_certificate(&der).is_ok());
        last = Some(der);
        world.clock.advance(100 * 24 * HOUR_MS);
    }
    // Nobody asks for years.
    world.clock.advance(4 * 365 * 24 * HOUR_MS);
    assert!(world.catalogue.verify_certificate(&last.unwrap()).is_err());
    let der = world.certificate(3600).await;
    assert!(world.catalogue.verify_certificate(&der).is_ok());
    let key = Key::Authorities(world.app.id.clone()).encode();
    let stored = world.log.metadata().get(&key).await.unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    let all = record["authorities"].as_array().unwrap();
    assert!(all.len() <= 3 && all.iter().filter(|one| !one["key"].is_null()).count() <= 2, "{record}");
}

#[tokio::test]
async fn revoked_logins_take_their_certificates_with_them() {
    for what in ["user", "site", "condition", "login", "provider"] {
        let world = world().await;
        let granted = world.granted(world.holder("anna").await, None).await;
        let der = leaf(&world.issue(&world.catalogue, &granted, 3600));
        let shown = world.catalogue.verify_certificate(&der).unwrap();
        assert!(world.catalogue.certificate_holds(&shown).is_ok());
        let revoked = match what {
            "user" => Some(Revoked::User("anna".to_owned())),
            "site" => Some(Revoked::Site(SiteId::new(7))),
            "condition" => Some(Revoked::Condition("team = 'a'".to_owned())),
            "login" => Some(Revoked::Login(granted.token.login.clone().unwrap())),
            _ => None,
        };
        match revoked {
            Some(revoked) => drop(world.catalogue.revoke(&world.app.id, revoked).await.unwrap()),
            None => world.catalogue.delete_provider(&world.app.id, &name("idp")).await.unwrap(),
        }
        assert!(world.catalogue.certificate_holds(&shown).is_err(), "{what}");
        world.clock.advance(1);
        if what != "provider" {
            let again = world.granted(world.holder("anna").await, None).await;
            let der = leaf(&world.issue(&world.catalogue, &again, 3600));
            let shown = world.catalogue.verify_certificate(&der).unwrap();
            assert!(world.catalogue.certificate_holds(&shown).is_ok(), "{what}: who logged in again");
        }
    }
    let world = world().await;
    let (key, _) = world.key("k", None).await;
    let granted = world.granted(Holder::Key(key.name.clone()), None).await;
    let shown = world.catalogue.verify_certificate(&leaf(&world.issue(&world.catalogue, &granted, 60))).unwrap();
    world.catalogue.revoke(&world.app.id, Revoked::Key(key.name)).await.unwrap();
    assert!(world.catalogue.certificate_holds(&shown).is_err());
}

#[tokio::test]
async fn the_keys_of_authorities_are_sealed_and_follow_the_master_key() {
    let (old, new) = (Keyring::generate(&RandomIds), Keyring::generate(&RandomIds));
    let ring = |lines: &[&str]| Keyring::parse(&lines.join("\n")).unwrap();
    let (log, clock) = (Arc::new(MemoryLog::new()), Arc::new(ManualClock::new(1_000_000)));
    let open = |ring: Keyring| {
        Catalogue::open_sealed(Arc::clone(&log) as _, Arc::clone(&clock) as _, Arc::new(RandomIds), ring)
    };
    let first = open(ring(&[&old])).await.unwrap();
    first.create_tenant(&name("t")).await.unwrap();
    let app = first.create_app(&name("t"), &name("a")).await.unwrap();
    first.authority_if_due(&app.id).await.unwrap();
    assert!(open(ring(&[&new])).await.is_err());
    let both = open(ring(&[&new, &old])).await.unwrap();
    assert_eq!(both.reseal().await.unwrap(), 2, "signing keys and authorities");
    let last = open(ring(&[&new])).await.unwrap();
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
    let (key, _) = last.put_api_key(&app.id, &name("k"), spec).await.unwrap();
    let granted = last.log_in(&app.id, SiteId::new(1), Holder::Key(key.name), None, times(60)).await.unwrap();
    let issued = last.issue_certificate(&granted, &request(), &Permissions::all(), 60).unwrap();
    assert!(last.verify_certificate(&leaf(&issued)).is_ok());
}
