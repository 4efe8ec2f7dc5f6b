//! A process that is killed in the middle of committing: what it said to be committed is there, whole.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bigpeer_peer::Params;

use super::offline::open_with_site;
use super::{open, run};

const STORE: &str = "BIGPEER_PEER_CRASH_STORE";

/// Not a test of its own: what the child does. Says "committed N" after each commit, for ever.
#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn child() {
    let Ok(dir) = std::env::var(STORE) else { return };
    let peer = open_with_site(dir.as_ref()).await;
    let mut next = peer.status().committed;
    loop {
        next += 1;
        let (_, seq) = peer
            .transaction(move |tx| {
                for collection in ["debits", "credits"] {
                    let statement = format!("INSERT INTO {collection} DOCUMENTS ({{'_id': {next}, 'n': {next}}})");
                    tx.execute(&statement, &Params::new())?;
                }
                Ok(())
            })
            .await
            .expect("commits");
        println!("committed {}", seq.expect("a transaction"));
    }
}

#[tokio::test]
async fn acknowledged_commits_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0_u64;
    for round in 0..6_usize {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["crash::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(STORE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut heard = 0;
        while heard < 3 + 5 * round {
            let line = lines.next().expect("the child goes on").expect("text");
            if let Some((_, seq)) = line.split_once("committed ") {
                acknowledged = seq.parse().expect("a number");
                heard += 1;
            }
        }
        child.kill().expect("killed");
        // What was in the pipe was said before the kill, too.
        for line in lines.map_while(Result::ok) {
            if let Some((_, seq)) = line.split_once("committed ") {
                acknowledged = seq.parse().unwrap_or(acknowledged);
            }
        }
        child.wait().expect("ends");

        let peer = open(dir.path()).await;
        let status = peer.status();
        assert!(status.committed >= acknowledged, "{status:?} after {acknowledged} were acknowledged");
        assert_eq!(status.unpushed, status.committed);
        for collection in ["debits", "credits"] {
            let found = run(&peer, &format!("SELECT * FROM {collection}")).await.items.len();
            assert_eq!(found as u64, status.committed, "a transaction is whole");
        }
        peer.close().await;
    }
}
