//! TLS on every listener: HTTP, sync, PostgreSQL's protocol and Arrow Flight, with a certificate of `bigpeer dev-cert`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};

use bigpeer_e2e::{Server, binary, free_port, python, wait_until};
use serde_json::json;

const CLIENT: &str = "tests/e2e/tests/e2e/tls_client.py";

fn dev_cert(dir: &Path) {
    let made = Command::new(binary()).args(["dev-cert", "--dir"]).arg(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_is_open_below_tls_to_those_who_trust_it_and_to_nobody_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, phone) = (dir.path().join("tls"), dir.path().join("phone"));
    dev_cert(&tls);
    let (pg, flight) = (free_port(), free_port());
    let (pg_at, flight_at) = (format!("127.0.0.1:{pg}"), format!("127.0.0.1:{flight}"));
    let doors = ["--listen-pg", &pg_at, "--listen-flight", &flight_at];
    let server = Server::start_tls(&dir.path().join("data"), &tls, &doors).await;
    let credentials = server.credentials();
    assert!(credentials.url.starts_with("https://"), "{}", credentials.url);
    server.dql("INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red'})", json!({})).await;

    // Commands, and a peer over WebSocket.
    let ca = tls.join("ca.pem").display().to_string();
    let store = phone.display().to_string();
    let peer = |args: &[&str]| server.command(&[&["peer", "--store", &store, "--ca-file", &ca], args].concat());
    let _number = stdout(&peer(&["subscribe", "SELECT * FROM cars"]));
    let _done = stdout(&peer(&["sync"]));
    assert!(stdout(&peer(&["query", "SELECT * FROM cars"])).contains("red"));
    let select = ["dql", "SELECT color FROM cars"];
    assert!(stdout(&server.command(&[&select[..], &["--ca-file", &ca]].concat())).contains("red"));
    let untrusting = server.command(&select);
    assert!(!untrusting.status.success());
    let said = String::from_utf8_lossy(&untrusting.stderr).into_owned();
    assert!(said.contains("certificate") && said.contains("--ca-file"), "{said}");

    // PostgreSQL's protocol.
    let psql = |ssl: &str| {
        let address = format!("host=127.0.0.1 port={pg} dbname={} user=analyst {ssl}", credentials.app);
        let query = ["--no-psqlrc", "--tuples-only", "--no-align", "--command", "SELECT color FROM cars"];
        Command::new("psql").arg(address).args(query).env("PGPASSWORD", &credentials.api_key).output().unwrap()
    };
    assert_eq!(stdout(&psql(&format!("sslmode=verify-full sslrootcert={ca}"))).trim(), "red");
    let clear = psql("sslmode=disable");
    assert!(String::from_utf8_lossy(&clear.stderr).contains("encrypted connections only"), "{clear:?}");

    // What is slipped in before the handshake is not taken for something said below it.
    let mut slipping = std::net::TcpStream::connect(&pg_at).unwrap();
    slipping.write_all(&[0, 0, 0, 8, 4, 210, 22, 47, b'Q']).unwrap();
    let mut answer = Vec::new();
    let _reset = slipping.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&b'E'), "{answer:?}");

    // Arrow Flight.
    let color = ["color", &flight_at, &credentials.app, &credentials.api_key, &ca];
    assert_eq!(python(CLIENT, &color).trim(), "red");

    // Nothing is said in the clear.
    let clear = reqwest::get(server.url().replace("https:", "http:")).await;
    assert!(clear.is_err(), "{clear:?}");

    // A renewed certificate is shown without a restart.
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let shown = || async {
        let port = port.clone();
        tokio::task::spawn_blocking(move || python(CLIENT, &["certificate", "127.0.0.1", &port])).await.unwrap()
    };
    let before = shown().await;
    dev_cert(&tls);
    let changed = || async { Some(shown().await).filter(|certificate| *certificate != before) };
    let after = wait_until("the renewed certificate is shown", 30, changed).await;
    let file = std::fs::read_to_string(tls.join("cert.pem")).unwrap();
    let words = |pem: &str| pem.split_whitespace().collect::<String>();
    assert_eq!(words(&after), words(&file));
    server.dql("INSERT INTO cars DOCUMENTS ({'_id': 2, 'color': 'blue'})", json!({})).await;
}
