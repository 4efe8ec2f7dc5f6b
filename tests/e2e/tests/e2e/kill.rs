//! `kill -9` at random moments of an import and of two peers' editing: every acknowledged transaction is there exactly
//! once, the peers converge, and nothing else is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bigpeer_e2e::{Flights, Server, wait_until};
use bigpeer_peer::{ConnectSettings, Params, Peer, PeerSettings, Value};
use bigpeer_types::AppId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::watch;

const KILLS: usize = 20;
const NOTES: i64 = 7;

/// What a peer has committed, by its own count.
#[derive(Debug, Default, Clone, PartialEq)]
struct Committed {
    /// Times that each note's counter was incremented.
    increments: BTreeMap<i64, i64>,
    /// Documents that it inserted into its own collection.
    inserted: i64,
}

async fn open(server: &Server, dir: &Path) -> Peer {
    let peer = Peer::open(PeerSettings::new(dir)).await.unwrap();
    for collection in ["notes", "made-by-a", "made-by-b"] {
        peer.subscribe(&format!("SELECT * FROM `{collection}`"), Params::new()).await.unwrap();
    }
    let credentials = server.credentials();
    let app = AppId::new(&credentials.app).unwrap();
    let mut settings = ConnectSettings::new(server.url(), app, credentials.api_key.as_str());
    settings.backoff_max = Duration::from_millis(200);
    peer.connect(settings).await.unwrap();
    peer
}

/// Edits until told to stop; answers what was committed.
async fn edit(peer: Peer, name: &'static str, stop: watch::Receiver<bool>) -> Committed {
    let mut committed = Committed::default();
    let mut number = 0;
    while !*stop.borrow() {
        let note = number % NOTES;
        let statement =
            format!("UPDATE notes APPLY edits INCREMENT BY 1 SET last = '{name} {number}' WHERE _id = {note}");
        let result = peer.execute(&statement, Params::new()).await.unwrap();
        // The note may not have arrived yet; then nothing was changed, and nothing is expected.
        *committed.increments.entry(note).or_default() += i64::try_from(result.mutated.len()).unwrap();
        let document = format!("INSERT INTO `made-by-{name}` DOCUMENTS ({{'_id': {number}, 'n': {number}}})");
        peer.execute(&document, Params::new()).await.unwrap();
        committed.inserted += 1;
        number += 1;
    }
    committed
}

async fn rows(peer: &Peer, collection: &str) -> Vec<Value> {
    peer.execute(&format!("SELECT * FROM `{collection}` ORDER BY _id"), Params::new()).await.unwrap().items
}

fn as_json(rows: &[Value]) -> serde_json::Value {
    rows.iter().map(Value::to_json).collect()
}

/// Every peer comes to hold exactly these documents.
async fn converged(peers: &[&Peer], collection: &str, expected: &serde_json::Value) {
    for peer in peers {
        let same = || async { (as_json(&rows(peer, collection).await) == *expected).then_some(()) };
        wait_until(&format!("{collection} is the same at a peer as at the server"), 60, same).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_and_repeat_nothing() {
    let seed: u64 =
        std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| rand::rng().random());
    eprintln!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data")).await;
    let flights = Flights::get();
    for note in 0..NOTES {
        server
            .dql("INSERT INTO notes DOCUMENTS (:note)", json!({"note": {"_id": note, "title": format!("note {note}")}}))
            .await;
    }

    let state = dir.path().join("import-state.json");
    let import =
        ["import", "--collection", "flights", "--id", "id", "--null", "NA", "--state", state.to_str().unwrap()];
    let csv = flights.csv("flights");
    let start_import = |server: &Server| {
        let mut command = server.client(&import);
        command.arg(&csv).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut importing = start_import(&server);

    let a = open(&server, &dir.path().join("a")).await;
    let b = open(&server, &dir.path().join("b")).await;
    let (stop, stopped) = watch::channel(false);
    let a_edits = tokio::spawn(edit(a.clone(), "a", stopped.clone()));
    let b_edits = tokio::spawn(edit(b.clone(), "b", stopped));

    let mut during_import = 0;
    for kill in 0..KILLS {
        // The random moment, not a synchronization: whatever is going on then is killed.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        during_import += usize::from(importing.try_wait().unwrap().is_none());
        server.kill();
        // Every fourth time the importer dies, too, and is started again.
        if kill % 4 == 3 {
            importing.kill().unwrap();
            importing.wait().unwrap();
            server.restart().await;
            importing = start_import(&server);
        } else {
            server.restart().await;
        }
    }

    stop.send(true).unwrap();
    let (a_committed, b_committed) = (a_edits.await.unwrap(), b_edits.await.unwrap());
    // The test has tested something: there was an import to break, and there were edits.
    assert!(during_import >= 3, "only {during_import} kills came during the import");
    assert!(a_committed.inserted > 20 && b_committed.inserted > 20, "{a_committed:?} {b_committed:?}");
    let imported = tokio::task::spawn_blocking(move || importing.wait_with_output().unwrap()).await.unwrap();
    assert!(imported.status.success(), "{}\n{}", String::from_utf8_lossy(&imported.stderr), server.log());
    a.wait_pushed().await.unwrap();
    b.wait_pushed().await.unwrap();

    let notes = server.dql("SELECT * FROM notes ORDER BY _id", json!({})).await["items"].clone();
    for note in notes.as_array().unwrap() {
        let id = note["_id"].as_i64().unwrap();
        let edits =
            [&a_committed, &b_committed].iter().filter_map(|committed| committed.increments.get(&id)).sum::<i64>();
        assert_eq!(note["edits"].as_i64().unwrap_or(0), edits, "each increment counts once: {note}");
    }
    for (name, committed) in [("a", &a_committed), ("b", &b_committed)] {
        let collection = format!("made-by-{name}");
        let rows_of =
            server.dql(&format!("SELECT * FROM `{collection}` ORDER BY _id"), json!({})).await["items"].clone();
        let expected: serde_json::Value = (0..committed.inserted).map(|n| json!({"_id": n, "n": n})).collect();
        assert_eq!(rows_of, expected, "{collection}");
        converged(&[&a, &b], &collection, &expected).await;
    }
    converged(&[&a, &b], "notes", &notes).await;

    let all = server.sql("SELECT count(*) AS n, count(DISTINCT _id) AS ids, min(_id) AS lo, max(_id) AS hi, sum(distance) AS distance FROM flights").await;
    let count = Flights::COUNT;
    assert_eq!(all[0], json!({"n": count, "ids": count, "lo": 1, "hi": count, "distance": flights.distance_sum()}));
    assert!(!server.log().contains("panicked"), "{}", server.log());
    a.close().await;
    b.close().await;
}
