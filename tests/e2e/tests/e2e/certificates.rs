//! Peers with certificates of their app, over TLS: given with the login, shown to a server that insists on them, replaced when
//! their authority is, and worth nothing after a revocation.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bigpeer_e2e::{Server, binary, wait_until};
use bigpeer_peer::{ConnectSettings, Connection, Params, Peer, PeerSettings, SystemNetwork};
use bigpeer_types::AppId;
use serde_json::json;

struct World {
    server: Server,
    dir: tempfile::TempDir,
}

async fn world(args: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let made = Command::new(binary()).args(["dev-cert", "--dir"]).arg(&tls).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Server::start_tls(&dir.path().join("data"), &tls, args).await;
    World { server, dir }
}

impl World {
    fn ca(&self) -> std::path::PathBuf {
        self.dir.path().join("tls/ca.pem")
    }

    fn settings(&self) -> ConnectSettings {
        let dev = self.server.credentials();
        let mut settings = ConnectSettings::new(dev.url, AppId::new(&dev.app).unwrap(), dev.api_key);
        settings.network = Arc::new(SystemNetwork::trusting(&std::fs::read(self.ca()).unwrap()).unwrap());
        settings
    }

    async fn admin(&self, path: &str, body: serde_json::Value) {
        let dev = self.server.credentials();
        let path = format!("/admin/v1/apps/{}/{path}", dev.app);
        let (status, answer) = self.server.post_as(&dev.admin_token, &path, &body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
    }

    /// What openssl says of a connection that shows this, and asks for the server's health.
    fn openssl(&self, certificate: &Path, key: &Path) -> String {
        let address = self.server.url().replace("https://", "");
        let ca = self.ca();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "printf 'GET /healthz HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' | \
             openssl s_client -quiet -connect \"$1\" -CAfile \"$2\" -cert \"$3\" -key \"$4\" 2>&1",
            "sh",
        ]);
        let output = command.arg(address).args([&*ca, certificate, key]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

async fn open(store: &Path) -> Peer {
    Peer::open(PeerSettings::new(store)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_show_their_certificates_and_get_others_when_those_are_replaced() {
    let world = world(&["--require-client-certificates"]).await;
    let peer = open(&world.dir.path().join("phone")).await;
    peer.connect(world.settings()).await.unwrap();
    peer.wait_connected().await.unwrap();
    peer.execute("INSERT INTO cars DOCUMENTS ({'_id': 1})", Params::new()).await.unwrap();
    peer.wait_pushed().await.unwrap();
    let first = peer.certificate().await.unwrap().unwrap();
    assert_eq!(first.chain.matches("BEGIN CERTIFICATE").count(), 2);

    // In time: nobody notices. At once: the session ends, and the peer comes back with another certificate.
    world.admin("authorities/rotate", json!({})).await;
    peer.execute("INSERT INTO cars DOCUMENTS ({'_id': 2})", Params::new()).await.unwrap();
    peer.wait_pushed().await.unwrap();
    assert_eq!(peer.certificate().await.unwrap().as_ref(), Some(&first));
    world.admin("authorities/rotate", json!({"at_once": true})).await;
    let replaced = || async { peer.certificate().await.unwrap().filter(|one| *one != first) };
    let second = wait_until("another certificate", 30, replaced).await;
    peer.execute("INSERT INTO cars DOCUMENTS ({'_id': 3})", Params::new()).await.unwrap();
    peer.wait_pushed().await.unwrap();

    // While it was away: the handshake is refused, and the next one is not.
    peer.disconnect().await;
    world.admin("authorities/rotate", json!({"at_once": true})).await;
    peer.connect(world.settings()).await.unwrap();
    peer.wait_connected().await.unwrap();
    assert_ne!(peer.certificate().await.unwrap().unwrap(), second);
    assert_eq!(world.server.sql("SELECT count(*) AS n FROM cars").await, [json!({"n": 3})]);

    world.admin("revocations", json!({"site": peer.status().site.unwrap().to_string()})).await;
    let refused = || async { matches!(peer.status().connection, Connection::Refused { .. }).then_some(()) };
    wait_until("the peer is refused", 30, refused).await;
    // Without a certificate nobody gets a session.
    let (ca, file) = (world.ca().display().to_string(), world.dir.path().join("cars.ndjson").display().to_string());
    std::fs::write(&file, "{\"_id\": 4}\n").unwrap();
    let bare = world.server.command(&["import", "--ca-file", &ca, "--collection", "cars", &file]);
    let said = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(!bare.status.success() && said.contains("client certificate"), "{said}");
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_ends_with_a_certificate_that_nobody_vouches_for() {
    let world = world(&[]).await;
    let (key, csr, cert) =
        (world.dir.path().join("key.pem"), world.dir.path().join("csr.pem"), world.dir.path().join("cert.pem"));
    let run = |args: &[&str]| {
        let made = Command::new("openssl").args(args).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let path = |path: &Path| path.display().to_string();
    run(&["req", "-new", "-newkey", "ed25519", "-nodes", "-keyout", &path(&key), "-subj", "/", "-out", &path(&csr)]);
    let dev = world.server.credentials();
    let csr = std::fs::read_to_string(csr).unwrap();
    let login = format!("/{}/auth/login", dev.app);
    let (status, session) = world.server.post_as(&dev.api_key, &login, &json!({"csr": csr})).await;
    assert_eq!(status, 200, "{session}");
    std::fs::write(&cert, session["certificate"].as_str().unwrap()).unwrap();
    let answer = world.openssl(&cert, &key);
    assert!(answer.contains("200 OK"), "{answer}");
    run(&["req", "-x509", "-key", &path(&key), "-subj", "/CN=somebody", "-days", "1", "-out", &path(&cert)]);
    let answer = world.openssl(&cert, &key);
    assert!(!answer.contains("200 OK"), "{answer}");
}
