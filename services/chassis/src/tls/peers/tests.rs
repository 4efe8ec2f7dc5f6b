//! Clients with certificates, without, and with wrong ones.

use axum::routing::get;
use axum::{Extension, Router};
use bigpeer_log::MemoryLog;
use bigpeer_types::{ManualClock, RandomIds, SiteId, SystemClock};
use rcgen::{CertificateParams, DistinguishedName as Subject, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::tls::Tls;
use crate::tls::tests::{Files, localhost};
use crate::{ApiKeySpec, CertificateRequest, ClientCertificate, Holder, LoginTimes, Permissions, Shutdown, serve_http};

struct World {
    catalogue: Arc<Catalogue>,
    clock: Arc<ManualClock>,
    app: crate::App,
    files: Files,
    address: std::net::SocketAddr,
}

/// A certificate and its key.
type Shown = (Vec<CertificateDer<'static>>, KeyPair);

async fn world() -> World {
    use bigpeer_types::Clock;
    let clock = Arc::new(ManualClock::new(SystemClock.now_ms()));
    let catalogue =
        Catalogue::open(Arc::new(MemoryLog::new()), Arc::clone(&clock) as _, Arc::new(RandomIds)).await.unwrap();
    catalogue.create_tenant(&"t".parse().unwrap()).await.unwrap();
    let app = catalogue.create_app(&"t".parse().unwrap(), &"a".parse().unwrap()).await.unwrap();
    let files = Files::new();
    let tls = Tls::open(&files.settings()).unwrap().unwrap().with_peers(Arc::clone(&catalogue));
    let who = |certificate: Option<Extension<ClientCertificate>>| async move {
        certificate.map_or("nobody".to_owned(), |Extension(ClientCertificate(shown))| shown.login.site.to_string())
    };
    let router = Router::new().route("/who", get(who));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve_http(listener, Some(&tls), router, &Shutdown::new()).await });
    World { catalogue, clock, app, files, address }
}

impl World {
    async fn certificate(&self) -> Shown {
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
        let (key, _) = self.catalogue.put_api_key(&self.app.id, &"k".parse().unwrap(), spec).await.unwrap();
        let times = LoginTimes { token_ttl_secs: 60, refresh_ttl_secs: 60_000 };
        self.catalogue.authority_if_due(&self.app.id).await.unwrap();
        let holder = Holder::Key(key.name);
        let granted = self.catalogue.log_in(&self.app.id, SiteId::new(7), holder, None, times).await.unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = Subject::new();
        let pair = KeyPair::generate().unwrap();
        let request = CertificateRequest::parse(&params.serialize_request(&pair).unwrap().pem().unwrap()).unwrap();
        let issued = self.catalogue.issue_certificate(&granted, &request, &Permissions::all(), 3600).unwrap();
        let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        (chain, pair)
    }

    /// What the server knows of a client that shows this, if it lets it in.
    async fn ask(
        &self,
        shown: Option<&Shown>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Option<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.files.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match shown {
            Some((chain, pair)) => {
                let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
                // As it is, whether or not the two belong together.
                let signer = rustls::crypto::ring::sign::any_supported_type(&key.into()).unwrap();
                let certified = rustls::sign::CertifiedKey::new(chain.clone(), signer);
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(localhost(), stream).await.ok()?;
        stream.write_all(b"GET /who HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        let _unfriendly = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        answer.starts_with("HTTP/1.1 200").then(|| answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    }
}

#[tokio::test]
async fn a_peers_certificate_is_known_to_requests_and_none_is_needed() {
    let world = world().await;
    let shown = world.certificate().await;
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        assert_eq!(world.ask(None, versions).await.as_deref(), Some("nobody"));
        assert_eq!(world.ask(Some(&shown), versions).await.as_deref(), Some("0000000000000007"));
    }
}

#[tokio::test]
async fn what_is_shown_and_not_believed_ends_the_handshake() {
    let world = world().await;
    let (shown, other) = (world.certificate().await, world.certificate().await);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let own = (vec![made.cert.der().clone()], made.signing_key);
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        assert_eq!(world.ask(Some(&own), versions).await, None, "its own");
        // Somebody else's certificate, with a key of one's own.
        let stolen = (shown.0.clone(), KeyPair::try_from(other.1.serialize_der()).unwrap());
        assert_eq!(world.ask(Some(&stolen), versions).await, None, "somebody else's");
    }
    world.catalogue.rotate_authority(&world.app.id, true).await.unwrap();
    let new = world.certificate().await;
    let both = &[&rustls::version::TLS13, &rustls::version::TLS12];
    assert_eq!(world.ask(Some(&shown), both).await, None, "of an authority that was replaced at once");
    assert_eq!(world.ask(Some(&new), both).await.as_deref(), Some("0000000000000007"));
    world.clock.advance(3600 * 1000);
    assert_eq!(world.ask(Some(&new), both).await, None, "expired");
}

#[tokio::test]
async fn an_authority_is_replaced_while_peers_connect_and_none_is_turned_away() {
    let world = world().await;
    let mut shown = vec![world.certificate().await];
    for round in 0..6_u64 {
        if round % 2 == 0 {
            world.catalogue.rotate_authority(&world.app.id, false).await.unwrap();
        }
        for one in &shown {
            let answer = world.ask(Some(one), &[&rustls::version::TLS13]).await;
            assert_eq!(answer.as_deref(), Some("0000000000000007"), "round {round}");
        }
        // A certificate lives for an hour, and is renewed before its end.
        world.clock.advance(20 * 60 * 1000);
        shown.push(world.certificate().await);
        if shown.len() > 2 {
            shown.remove(0);
        }
        if round == 2 {
            world.clock.advance(crate::AUTHORITY_PUBLISHED_BEFORE_MS);
            shown = vec![world.certificate().await];
        }
    }
}
