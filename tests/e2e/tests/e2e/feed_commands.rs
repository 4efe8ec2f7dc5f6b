//! `bigpeer feed`: what an administrator does with a feed, and following an app's changes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bigpeer_e2e::{Server, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

/// A receiver that answers every request with a status that may be changed; its address.
async fn receiver(status: Arc<AtomicU16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = Arc::clone(&status);
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                // A small request comes in one piece, or in two; each connection takes one.
                let mut read = 0;
                while !String::from_utf8_lossy(&request[..read]).contains("\r\n\r\n{") || request[read - 1] != b'}' {
                    match stream.read(&mut request[read..]).await {
                        Ok(0) | Err(_) => return,
                        Ok(more) => read += more,
                    }
                }
                let status = status.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _gone = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_refused_is_listed_shown_delivered_again_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(&dir.path().join("data"), &["--allow-private-receivers"]).await;
    let status = Arc::new(AtomicU16::new(400));
    let sink = json!({"type": "webhook", "url": receiver(Arc::clone(&status)).await,
        "secrets": ["a secret that is long enough"], "maxAttempts": 2});
    let spec = dir.path().join("feed.json");
    let feed = json!({"owner": "dev", "sources": [{"collection": "cars"}], "sink": sink});
    std::fs::write(&spec, feed.to_string()).unwrap();
    said(&server, &["feed", "create", "hook", "--spec", spec.to_str().unwrap()]);
    assert_eq!(said(&server, &["feed", "dead-letters", "list", "hook"]), "");
    for id in 1..=3 {
        write(&server, id).await;
    }
    let letters = |server: &Server| -> Vec<Value> {
        let listed: Value =
            serde_json::from_str(&said(server, &["feed", "dead-letters", "list", "hook", "--json"])).unwrap();
        listed["deadLetters"].as_array().unwrap().clone()
    };
    wait_until("all are given up", 60, || async { (letters(&server).len() == 3).then_some(()) }).await;
    let deliveries = |server: &Server| -> Vec<Value> {
        let told: Value = serde_json::from_str(&said(server, &["feed", "deliveries", "hook", "--json"])).unwrap();
        told["deliveries"].as_array().unwrap().clone()
    };
    // Each is tried twice; attempts are kept a little later than they are made.
    wait_until("the attempts are kept", 60, || async { (deliveries(&server).len() == 6).then_some(()) }).await;
    // What is kept is kept with the app, not with the process.
    server.restart().await;
    let kept = letters(&server);
    let ids: Vec<&str> = kept.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    let lines = said(&server, &["feed", "dead-letters", "list", "hook"]);
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.contains(ids[0]) && lines.contains("it answered 400") && lines.contains("2 attempts"), "{lines}");
    let whole: Value = serde_json::from_str(&said(&server, &["feed", "dead-letters", "show", "hook", ids[0]])).unwrap();
    assert_eq!(whole["body"]["change"]["newValue"]["color"], "blue");

    let why = refused(&server, &["feed", "dead-letters", "redeliver", "hook", ids[0]]);
    assert!(why.contains("does not take it") && why.contains("400"), "{why}");
    status.store(204, Ordering::SeqCst);
    assert_eq!(said(&server, &["feed", "dead-letters", "redeliver", "hook", ids[0]]), "delivered 1 events\n");
    assert_eq!(said(&server, &["feed", "dead-letters", "drop", "hook", ids[1]]), "dropped 1 dead letters\n");
    assert_eq!(said(&server, &["feed", "dead-letters", "redeliver", "hook", "--all"]), "delivered 1 events\n");
    assert_eq!(letters(&server), Vec::<Value>::new());

    write(&server, 4).await;
    let attempts = wait_until("the attempt is kept", 60, || async {
        let attempts = deliveries(&server);
        (attempts[0]["status"] == 204).then_some(attempts)
    })
    .await;
    assert_eq!(attempts.iter().filter(|attempt| attempt["status"] == 400).count(), 6, "{attempts:?}");
    let lines = said(&server, &["feed", "deliveries", "hook", "--limit", "2"]);
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.lines().next().unwrap().contains("\t204\t") && lines.contains("it answered 400"), "{lines}");

    for (args, word) in [
        (&["feed", "dead-letters", "list", "nothing"][..], "no feed 'nothing'"),
        (&["feed", "dead-letters", "show", "hook", "../x"], "no dead letter"),
        (&["feed", "dead-letters", "drop", "hook", ids[0]], "no such dead letter"),
        (&["feed", "dead-letters", "drop", "hook"], "required"),
        (&["feed", "deliveries", "nothing"], "no feed 'nothing'"),
    ] {
        let why = refused(&server, args);
        assert!(why.contains(word) && !why.contains("panicked"), "{args:?}: {why}");
    }
    for command in ["dead-letters", "deliveries"] {
        assert!(said(&server, &["feed", command, "--help"]).contains("Examples:"));
    }
}
