//! `bigpeer feed`: what an administrator does with a feed, and following an app's changes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use bigpeer_e2e::{Server, wait_until};
use serde_json::{Value, json};

fn said(server: &Server, args: &[&str]) -> String {
    let output = server.command(args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out}{err}");
    out.into_owned()
}

fn refused(server: &Server, args: &[&str]) -> String {
    let output = server.command(args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn write(server: &Server, id: i64) {
    let car = json!({"d": {"_id": id, "color": "blue"}});
    server.dql("INSERT INTO cars DOCUMENTS (:d) ON ID CONFLICT DO UPDATE", car).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_made_listed_paused_resumed_rewound_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(&dir.path().join("data"), &["--allow-private-receivers"]).await;
    write(&server, 1).await;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret that is long enough\n").unwrap();
    let secret = secret.to_str().unwrap();
    // Nobody listens there.
    let hook = ["--webhook", "http://127.0.0.1:9/hook", "--secret-file", secret];
    let made = said(&server, &[&["feed", "create", "hook", "--collection", "cars"][..], &hook].concat());
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&made["name"], &made["spec"]["sink"]["secrets"][0]), (&json!("hook"), &json!("(hidden)")));
    let listed = said(&server, &["feed", "list"]);
    assert!(listed.starts_with("hook\twebhook\trunning\tcursor "), "{listed}");
    assert!(said(&server, &["feed", "pause", "hook"]).contains("paused: an administrator"));
    assert!(said(&server, &["feed", "resume", "hook"]).contains("\trunning\t"));
    said(&server, &["feed", "rewind", "hook", "0.0"]);
    let rewound = wait_until("the feed is rewound", 30, || async {
        let feed: Value = serde_json::from_str(&said(&server, &["feed", "show", "hook"])).unwrap();
        (feed["pending"].is_null() && feed["cursor"] == "0.0").then_some(feed)
    })
    .await;
    assert!(rewound["lag"]["transactions"].as_u64() >= Some(1), "{rewound}");
    said(&server, &["feed", "snapshot", "hook", "cars"]);
    let all: Value = serde_json::from_str(&said(&server, &["feed", "list", "--json"])).unwrap();
    assert_eq!(all["feeds"].as_array().map(Vec::len), Some(1));
    said(&server, &["feed", "delete", "hook"]);
    assert_eq!(said(&server, &["feed", "list"]), "");

    assert_eq!(said(&server, &["feed", "retention"]), "86400 s\t4294967296 bytes\n");
    assert_eq!(said(&server, &["feed", "retention", "--secs", "3600"]), "3600 s\t4294967296 bytes\n");
    assert_eq!(said(&server, &["feed", "retention"]), "3600 s\t4294967296 bytes\n");

    for (args, word) in [
        (&["feed", "show", "nothing"][..], "no feed 'nothing'"),
        (&["feed", "pause", "../x"], "no name of a feed"),
        (&["feed", "rewind", "hook", "here"], "cursor"),
        (&["feed", "create", "f", "--owner", "nobody", "--kafka", "127.0.0.1:9", "--topic", "t"], "owner"),
        (&["feed", "create", "f", "--kafka", "127.0.0.1:9", "--topic", "a b"], "not a topic"),
        (&["feed", "create", "f"], "where does it go"),
        (&["feed", "retention", "--secs", "99999999999"], "90 days"),
    ] {
        let why = refused(&server, args);
        assert!(why.contains(word) && !why.contains("panicked"), "{args:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    write(&server, 1).await;
    let mut tail = server
        .client(&["feed", "tail", "--snapshot", "--collection", "cars"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = move || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["type"], "snapshotBegin");
    assert_eq!(next()["documentId"], 1);
    let end = next();
    assert_eq!(end["type"], "snapshotEnd");
    write(&server, 2).await;
    let change = next();
    assert_eq!((&change["documentId"], &change["change"]["method"]), (&json!(2), &json!("upsert")));
    tail.kill().unwrap();
    tail.wait().unwrap();
    let why = refused(&server, &["feed", "tail", "--cursor", "nowhere"]);
    assert!(why.contains("cursor"), "{why}");
}
