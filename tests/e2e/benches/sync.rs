//! First sync and propagation through a running server that holds the flights: `BIGPEER_CREDENTIALS` names its
//! credentials file. Prints `name<TAB>value<TAB>unit<TAB>beside` lines. `BIGPEER_BENCH_FIRST_SYNC`: one first sync, and nothing else.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark measures time and prints it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot go on says so by panicking"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bigpeer_peer::{ConnectSettings, Params, Peer, PeerSettings};
use bigpeer_types::AppId;

const FLIGHTS: u64 = 336_776;
const WRITES: usize = 500;

fn settings() -> ConnectSettings {
    let path = std::env::var("BIGPEER_CREDENTIALS").expect("BIGPEER_CREDENTIALS names a credentials file");
    let text = std::fs::read_to_string(path).expect("the credentials can be read");
    let json: serde_json::Value = serde_json::from_str(&text).expect("the credentials are JSON");
    let field = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
    ConnectSettings::new(field("url"), AppId::new(&field("app")).expect("an app id"), field("api_key"))
}

async fn count(peer: &Peer, collection: &str) -> i64 {
    let query = format!("SELECT COUNT(*) AS n FROM {collection}");
    let items = peer.execute(&query, Params::new()).await.expect("the query runs").items;
    items[0].to_json()["n"].as_i64().expect("a count")
}

/// The device's own cost: an overwrite of 4 kB in a preallocated file, and fdatasync.
fn sync_costs(dir: &Path) -> Vec<Duration> {
    let file = File::create(dir.join("raw")).expect("a file");
    file.write_all_at(&vec![1; 1 << 22], 0).expect("written");
    file.sync_all().expect("synced");
    let block = [7_u8; 4096];
    (0..WRITES as u64)
        .map(|n| {
            let begun = Instant::now();
            file.write_all_at(&block, (n % 1024) * 4096).expect("written");
            file.sync_data().expect("synced");
            begun.elapsed()
        })
        .collect()
}

fn percentile_ms(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

async fn first_sync(dir: &Path) {
    let peer = Peer::open(PeerSettings::new(dir)).await.expect("the store opens");
    let subscription = peer.subscribe("SELECT * FROM flights", Params::new()).await.expect("subscribed");
    let begun = Instant::now();
    peer.connect(settings()).await.expect("connected");
    peer.wait_caught_up(subscription).await.expect("caught up");
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(count(&peer, "flights").await, i64::try_from(FLIGHTS).expect("fits"), "every flight arrived");
    println!("first sync\t{:.0}\tdocuments/s\tincluding the peer's store", 336_776.0 / seconds);
    peer.close().await;
}

/// From before the writer's commit until the reader's live query shows it.
async fn propagation(dir: &Path) {
    let mut peers = Vec::new();
    for name in ["writer", "reader"] {
        let peer = Peer::open(PeerSettings::new(dir.join(name))).await.expect("the store opens");
        let subscription = peer.subscribe("SELECT * FROM pings", Params::new()).await.expect("subscribed");
        peer.connect(settings()).await.expect("connected");
        peer.wait_caught_up(subscription).await.expect("caught up");
        peers.push(peer);
    }
    let (writer, reader) = (&peers[0], &peers[1]);
    writer
        .execute("INSERT INTO pings DOCUMENTS ({'_id': 1, 'n': -1}) ON ID CONFLICT DO UPDATE", Params::new())
        .await
        .expect("inserted");
    let mut live = reader.observe("SELECT n FROM pings WHERE _id = 1", Params::new()).expect("observed");
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let begun = Instant::now();
        let update = format!("UPDATE pings SET n = {n} WHERE _id = 1");
        writer.execute(&update, Params::new()).await.expect("updated");
        loop {
            let result = live.next().await.expect("the live query answers");
            if result.items.first().is_some_and(|row| row.to_json()["n"] == n) {
                break;
            }
        }
        times.push(begun.elapsed());
    }
    let (mut raw, half) = (sync_costs(dir), WRITES / 2);
    let (p50, p99) = (percentile_ms(&mut times, 50), percentile_ms(&mut times, 99));
    let (raw50, raw99) = (percentile_ms(&mut raw, 50), percentile_ms(&mut raw, 99));
    let target = 2.0 * raw50 + 2.0;
    let met = if p50 <= target { "met" } else { "MISSED" };
    println!(
        "propagation p50\t{p50:.3}\tms\ttarget ≤ two commits + 2 ms = {target:.2}: {met}; writer's and reader's stores included"
    );
    println!("propagation p99\t{p99:.3}\tms\t{half} of {WRITES} writes took at most the p50");
    println!("raw overwrite and fdatasync p50\t{raw50:.3}\tms\tsame run");
    println!("raw overwrite and fdatasync p99\t{raw99:.3}\tms\tsame run");
    for peer in peers {
        peer.close().await;
    }
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    if std::env::var_os("BIGPEER_BENCH_FIRST_SYNC").is_some() {
        return first_sync(&dir.path().join("first")).await;
    }
    for round in 0..3 {
        first_sync(&dir.path().join(format!("first-{round}"))).await;
    }
    propagation(dir.path()).await;
}
