//! Certificates from files: what is shown, what is refused, and what happens when they change.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

/// A certificate for localhost with its key, in files.
pub(crate) struct Files {
    dir: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.renew();
        files
    }

    pub(crate) fn settings(&self) -> TlsSettings {
        TlsSettings { tls_cert: Some(self.path("cert.pem")), tls_key: Some(self.path("key.pem")) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another certificate in the same place.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(self.path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path("cert.pem")).unwrap()
    }

    /// A client that trusts nothing but the certificate that is there now.
    pub(crate) fn client(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

pub(crate) fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Whether a client gets through to a server that echoes.
async fn echoes(tls: &Tls, client: TlsConnector) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.acceptor(&[]).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    });
    let mut stream = client.connect(localhost(), TcpStream::connect(address).await.unwrap()).await?;
    stream.write_u8(7).await?;
    assert_eq!(stream.read_u8().await?, 7);
    server.await.unwrap()
}

#[tokio::test]
async fn a_changed_certificate_is_shown_and_a_wrong_one_is_not() {
    let files = Files::new();
    let tls = Tls::open(&files.settings()).unwrap().unwrap();
    let old = files.client();
    echoes(&tls, old.clone()).await.unwrap();
    assert!(!tls.look().unwrap(), "nothing changed");

    files.renew();
    assert!(echoes(&tls, files.client()).await.is_err(), "not looked at yet");
    assert!(tls.look().unwrap());
    echoes(&tls, files.client()).await.unwrap();
    assert!(echoes(&tls, old).await.is_err(), "the certificate of before is not shown any more");

    let good = files.client();
    let key = std::fs::read(files.path("key.pem")).unwrap();
    std::fs::write(files.path("key.pem"), &key[..key.len() / 2]).unwrap();
    assert!(tls.look().unwrap_err().to_string().contains("key.pem"));
    echoes(&tls, good).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_taken_up_within_seconds_until_the_end() {
    let files = Files::new();
    let tls = Tls::open(&files.settings()).unwrap().unwrap();
    let shutdown = Shutdown::new();
    let following = tokio::spawn(tls.clone().follow(shutdown.clone()));
    files.renew();
    let is_new = || {
        let shown = tls.current.0.read().unwrap().0.0.clone();
        shown == std::fs::read(files.path("cert.pem")).unwrap()
    };
    assert!(!is_new());
    tokio::time::sleep(LOOK_EVERY + Duration::from_millis(1)).await;
    assert!(is_new());
    shutdown.cancel();
    following.await.unwrap();
}

#[test]
fn what_is_no_pair_is_refused_by_name() {
    assert!(Tls::open(&TlsSettings::default()).unwrap().is_none());
    let (files, other) = (Files::new(), Files::new());
    let refused = |cert: PathBuf, key: PathBuf| {
        let settings = TlsSettings { tls_cert: Some(cert), tls_key: Some(key) };
        Tls::open(&settings).unwrap_err().to_string()
    };
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    for (message, parts) in [
        (refused(files.path("none.pem"), key.clone()), ["none.pem", "cannot read"]),
        (refused(key.clone(), key.clone()), ["key.pem is no certificate chain", "there is no certificate"]),
        (refused(cert.clone(), cert.clone()), ["cert.pem is no private key", "PEM"]),
        (refused(cert.clone(), other.path("key.pem")), ["cannot be used together", "cert.pem"]),
    ] {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let large = files.path("large.pem");
    std::fs::write(&large, vec![b'x'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
    assert!(refused(large, key).contains("more than"));
}
