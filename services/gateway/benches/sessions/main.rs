//! Sync sessions at scale, on the loopback: the server is this process with its log and its segments on disk; the peers are a
//! second process that speaks the protocol and does nothing with what it gets, so that memory and CPU time of the two are
//! told apart. Prints lines `name value unit beside`, separated by tabs.
//!
//! `BIGPEER_BENCH_DIR` says on which disk (default: the system's temporary directory), `BIGPEER_BENCH_PEERS` how many are
//! connected at most (default 10,000; both processes need as many file descriptors), `BIGPEER_BENCH_DOCUMENTS` how many the
//! first sync brings (default 1,000,000), `BIGPEER_BENCH_ONLY` names one part.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a benchmark"
)]

mod peers;
mod server;
mod wire;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use server::{Server, cpu, percentile, resident};
use wire::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("peers") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(peers::run());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let most = number("BIGPEER_BENCH_PEERS", 10_000);
    let documents = number("BIGPEER_BENCH_DOCUMENTS", 1_000_000);
    let only = std::env::var("BIGPEER_BENCH_ONLY").ok();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("idle") {
        // The most first: what comes later finds memory that was given back, and measures too little of it.
        runtime.block_on(idle_and_fan_out(most, true));
        runtime.block_on(idle_and_fan_out(1_000.min(most), false));
    }
    if wanted("match") {
        runtime.block_on(one_among_many());
    }
    if wanted("propagation") {
        runtime.block_on(propagation());
    }
    if wanted("push") {
        runtime.block_on(pushes(1_000.min(most)));
    }
    if wanted("first_sync") {
        runtime.block_on(first_sync(documents));
    }
    if wanted("storm") {
        runtime.block_on(storm(1_000.min(most)));
    }
    if wanted("resume") {
        runtime.block_on(resume());
    }
}

fn say(name: &str, value: f64, unit: &str, beside: &str) {
    println!("{name}\t{value:.3}\t{unit}\t{beside}");
}

fn met(is: bool) -> &'static str {
    if is { "met" } else { "MISSED" }
}

/// Many subscribed to the same document: what one costs while nothing happens, and what a change costs.
async fn idle_and_fan_out(peers: usize, first: bool) {
    let server = Server::start().await;
    let mut document = server.author(1);
    server.append(1, &mut document, &["board"]).await;
    let mut clients = server.peers();
    // Whatever is made once is there before it is measured.
    clients
        .tell(&Command::Connect { sites: (100, 50), query: "SELECT * FROM board".to_owned(), each: 1 }, &server)
        .await;
    let before = resident();
    clients
        .tell(&Command::Connect { sites: (1000, peers), query: "SELECT * FROM board".to_owned(), each: 1 }, &server)
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    if first {
        let each = (resident() - before) / peers as f64 / 1024.0;
        say(&format!("memory_per_idle_peer_{peers}"), each, "KiB", &format!("target ≤ 10: {}", met(each <= 10.0)));
    }
    let (mut latencies, mut spent, mut deliveries) = (Vec::new(), 0.0, 0);
    for round in 0..20 {
        let expected = peers + 50;
        clients.begin(&Command::Expect { changes: expected as u64 }).await;
        let cpu_before = cpu();
        let durable = server.append(2 + round, &mut document, &["board"]).await;
        latencies.extend(clients.latencies(durable).await);
        // What is still to be cleaned up counts, too.
        tokio::time::sleep(Duration::from_millis(50)).await;
        spent += cpu() - cpu_before;
        deliveries += expected;
    }
    let (p50, p99) = (percentile(&mut latencies, 50.0), percentile(&mut latencies, 99.0));
    let target = if peers == 1_000 { format!("target ≤ 25: {}", met(p99 <= 25.0)) } else { String::new() };
    say(&format!("fan_out_p50_{peers}"), p50, "ms", "after it is durable");
    say(&format!("fan_out_p99_{peers}"), p99, "ms", &target);
    let each = spent * 1e6 / deliveries as f64;
    say(&format!("cpu_per_delivery_{peers}"), each, "µs", &format!("target ≤ 10: {}", met(each <= 10.0)));
    if peers == 1_000 {
        let bare = bare_sends(peers);
        say("cpu_per_bare_send_1000", bare, "µs", &format!("same run; a delivery costs {:.1} of them", each / bare));
    }
}

/// What the kernel alone takes for a small message to each of many connections, in microseconds of processor time: nobody reads,
/// so that nobody is woken.
fn bare_sends(connections: usize) -> f64 {
    const ROUNDS: usize = 50;
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| {
        let peer = TcpStream::connect(address).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nodelay(true).unwrap();
        (ours, peer)
    };
    let mut pairs: Vec<_> = (0..connections).map(connect).collect();
    let before = cpu();
    for _ in 0..ROUNDS {
        for (ours, _) in &mut pairs {
            ours.write_all(&[0x5a; 120]).unwrap();
        }
    }
    (cpu() - before) * 1e6 / (ROUNDS * connections) as f64
}

/// A hundred thousand equality subscriptions; each change matches one.
async fn one_among_many() {
    const PEERS: usize = 1000;
    const CHANGES: u64 = 4000;
    // What connecting leaves behind is done when it is measured.
    const WARM_UP: u64 = 500;
    let mut costs = Vec::new();
    for each in [1, 100] {
        let server = Server::start().await;
        let mut clients = server.peers();
        let query = "SELECT * FROM tasks WHERE owner = '{}'".to_owned();
        clients.tell(&Command::Connect { sites: (1000, PEERS), query, each }, &server).await;
        let mut author = server.author(1);
        let mut latencies = Vec::new();
        let mut before = cpu();
        for change in 1..=WARM_UP + CHANGES {
            if change == WARM_UP + 1 {
                before = cpu();
            }
            clients.begin(&Command::Expect { changes: 1 }).await;
            let owner = format!("{}", 1000 + (change as usize * 7919) % PEERS);
            let durable = server.append_owned(change, &mut author, &format!("t{change}"), &format!("{owner}-0")).await;
            latencies.extend(clients.latencies(durable).await);
        }
        let spent = (cpu() - before) * 1e6 / CHANGES as f64;
        costs.push(spent);
        let name = format!("one_among_{}_subscriptions", PEERS * each);
        say(&format!("{name}_p50"), percentile(&mut latencies, 50.0), "ms", "after it is durable");
        say(&format!("{name}_cpu"), spent, "µs", "append, tail, match, deliver");
    }
    let more = costs[1] - costs[0];
    say("matching_100000_over_1000_subscriptions", more, "µs", &format!("target ≤ 20: {}", met(more <= 20.0)));
}

/// From a push to what another peer gets, beside a bare commit of the same log.
async fn propagation() {
    let server = Server::start().await;
    let commit = server.commits(1, Duration::from_secs(2)).await.1;
    let mut clients = server.peers();
    clients
        .tell(&Command::Connect { sites: (1000, 2), query: "SELECT * FROM board".to_owned(), each: 1 }, &server)
        .await;
    let mut latencies = clients.ping_pong(500).await;
    let commit_again = server.commits(1, Duration::from_secs(2)).await.1;
    let commit = commit.min(commit_again);
    let (p50, p99) = (percentile(&mut latencies, 50.0), percentile(&mut latencies, 99.0));
    say("commit_p50", commit, "ms", "a bare append to the same log");
    let target = commit + 0.5;
    say(
        "propagation_p50",
        p50,
        "ms",
        &format!("push to delivery; target ≤ commit + 0.5 = {target:.2}: {}", met(p50 <= target)),
    );
    say("propagation_p99", p99, "ms", "");
}

/// Everybody pushes as fast as it is acknowledged.
async fn pushes(peers: usize) {
    let server = Server::start().await;
    let (alone, _) = server.commits(peers, Duration::from_secs(4)).await;
    let mut clients = server.peers();
    let query = "SELECT * FROM nothing WHERE owner = '{}'".to_owned();
    clients.tell(&Command::Connect { sites: (1_000_000, peers), query, each: 1 }, &server).await;
    let before = cpu();
    let pushed = clients.push(Duration::from_secs(4)).await;
    let spent = (cpu() - before) * 1e6 / (pushed * 4.0);
    say("log_appends", alone, "1/s", &format!("{peers} appenders, no peers, both cores"));
    let part = pushed / alone;
    say(
        "pushes",
        pushed,
        "1/s",
        &format!("{peers} peers beside the server on the same cores, {spent:.1} µs of the server's CPU each"),
    );
    say("pushes_of_log", part, "ratio", &format!("target ≥ 0.6: {}", met(part >= 0.6)));
}

/// A million small documents, from segments, to a peer that only decodes. The first of the rounds finds the store as it was opened.
async fn first_sync(documents: usize) {
    let server = Server::with_segments(documents).await;
    let mut clients = server.peers();
    for round in 0..3 {
        let begun = Instant::now();
        let before = cpu();
        let sites = (1000 + round, 1);
        let got =
            clients.tell(&Command::Connect { sites, query: "SELECT * FROM small".to_owned(), each: 1 }, &server).await;
        let (took, spent) = (begun.elapsed().as_secs_f64(), cpu() - before);
        assert_eq!(got.documents, documents as u64, "all of them");
        let rate = documents as f64 / took;
        say(
            "first_sync",
            rate,
            "documents/s",
            &format!(
                "target ≥ 250,000: {}; {:.2} µs of the server's CPU each",
                met(rate >= 250_000.0),
                spent * 1e6 / documents as f64
            ),
        );
    }
}

/// All come back at once, after a hundred changes.
async fn storm(peers: usize) {
    let server = Server::start().await;
    let mut author = server.author(1);
    let names: Vec<String> = (0..100).map(|number| format!("d{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    server.append(1, &mut author, &names).await;
    let mut clients = server.peers();
    let connect = Command::Connect { sites: (1000, peers), query: "SELECT * FROM board".to_owned(), each: 1 };
    clients.tell(&connect, &server).await;
    clients.tell(&Command::Drop, &server).await;
    for (name, seq) in names.iter().zip(2..) {
        server.append(seq, &mut author, &[name]).await;
    }
    let begun = Instant::now();
    let got = clients.tell(&Command::Reconnect, &server).await;
    let took = begun.elapsed().as_secs_f64();
    let fine = took <= 3.0 && got.refused == 0;
    say("storm", took, "s", &format!("{peers} peers caught up, {} refused; target ≤ 3: {}", got.refused, met(fine)));
}

/// Away during 50,000 changes to other documents and 50 to its own.
async fn resume() {
    let server = Server::start().await;
    let mut author = server.author(1);
    let mut seq = 0;
    for owner in ["1000-0", "other"] {
        for chunk in 0..if owner == "other" { 50 } else { 1 } {
            seq += 1;
            let count = if owner == "other" { 1000 } else { 50 };
            server.append_many(seq, &mut author, &format!("{owner}-{chunk}"), count, owner).await;
        }
    }
    let mut clients = server.peers();
    let query = "SELECT * FROM tasks WHERE owner = '{}'".to_owned();
    clients.tell(&Command::Connect { sites: (1000, 1), query, each: 1 }, &server).await;
    clients.tell(&Command::Drop, &server).await;
    for owner in ["other", "1000-0"] {
        for chunk in 0..if owner == "other" { 50 } else { 1 } {
            seq += 1;
            let count = if owner == "other" { 1000 } else { 50 };
            server.append_many(seq, &mut author, &format!("{owner}-{chunk}"), count, owner).await;
        }
    }
    let begun = Instant::now();
    let got = clients.tell(&Command::Reconnect, &server).await;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    assert_eq!(got.documents, 50);
    say(
        "resume_bytes",
        got.bytes as f64,
        "bytes",
        "both directions, Hello included; 50 of 50,050 changed documents are the peer's",
    );
    say("resume_time", took, "ms", "");
}
