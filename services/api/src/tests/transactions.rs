//! Several statements as one transaction: atomic, serializable, and what comes of conflicts.

use super::*;

impl World {
    pub(super) async fn transact(&self, statements: Value) -> (u16, Value) {
        let path = format!("/{}/api/v1/transaction", self.app);
        let body = json!({ "statements": statements }).to_string().into_bytes();
        let (status, _, json) = self.ask(&path, &self.key, None, body).await;
        (status.as_u16(), json)
    }
}

fn say(statement: &str, args: Value) -> Value {
    json!({"statement": statement, "args": args})
}

#[tokio::test]
async fn statements_see_those_before_them_and_are_committed_together() {
    let world = world(short()).await;
    world.ok("INSERT INTO c DOCUMENTS ({'_id': 2, 'n': 2}), ({'_id': 5, 'n': 5})", json!({})).await;
    let (status, answer) = world
        .transact(json!([
            say("INSERT INTO c DOCUMENTS ({'_id': 1, 'n': 1}), ({'_id': 3, 'n': 3})", json!({})),
            say("UPDATE c SET n = n * 10 WHERE n < 3", json!({})),
            say("DELETE FROM c WHERE _id = 5", json!({})),
            say("UPDATE c APPLY k INCREMENT BY 1 WHERE n >= :n", json!({"n": 3})),
            say("UPDATE c APPLY k INCREMENT BY 2 WHERE _id = 1", json!({})),
            say("SELECT _id, n, k FROM c ORDER BY _id", json!({})),
            say("INSERT INTO totals SELECT 'all' AS _id, SUM(n) AS n FROM c", json!({})),
            say("SELECT n FROM totals WHERE _id = 'all'", json!({})),
        ]))
        .await;
    assert_eq!(status, 200, "{answer}");
    let rows = json!([{"_id": 1, "n": 10, "k": 3}, {"_id": 2, "n": 20, "k": 1}, {"_id": 3, "n": 3, "k": 1}]);
    assert_eq!(answer["results"][5]["items"], rows);
    assert_eq!(answer["results"][7]["items"], json!([{"n": 33}]));
    assert_eq!(answer["results"][2]["mutatedDocumentIds"], json!([5]));
    // One transaction in the log, and its id in every answer.
    let head = world.log.head(&world.app).await.unwrap();
    assert_eq!(answer["transactionId"], head.version);
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["transactionId"] == head.version));
    assert_eq!(world.ok("SELECT _id, n, k FROM c ORDER BY _id", json!({})).await["items"], rows);
}

#[tokio::test]
async fn one_that_fails_leaves_nothing() {
    let world = world(short()).await;
    world.ok("INSERT INTO c DOCUMENTS ({'_id': 1})", json!({})).await;
    let head = world.log.head(&world.app).await.unwrap();
    for (statement, status) in [
        ("INSERT INTO c DOCUMENTS ({'_id': 1})", 400),
        ("SELECT nonsense(", 400),
        ("SELECT * FROM c WHERE x = :missing", 400),
        ("EVICT FROM c", 400),
        ("INSERT INTO `__devices` DOCUMENTS ({})", 400),
    ] {
        let (got, json) = world
            .transact(json!([say("INSERT INTO c DOCUMENTS ({'_id': 2})", json!({})), say(statement, json!({}))]))
            .await;
        assert_eq!(got, status, "{json}");
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("statement 2 of 2: ") && message.contains("nothing was written"), "{message}");
    }
    assert_eq!(world.log.head(&world.app).await.unwrap(), head);
    assert_eq!(world.transact(json!([])).await.0, 400);
    assert_eq!(
        world.transact(json!([say("SELECT * FROM c", json!({}))])).await.1["results"][0]["items"],
        json!([{"_id": 1}])
    );
}

/// Money that is moved around stays the same amount, in every snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_bank_keeps_its_money() {
    const ACCOUNTS: i64 = 6;
    let world = Arc::new(world(short()).await);
    let accounts: Vec<Value> = (0..ACCOUNTS).map(|id| json!({"_id": id, "balance": 100})).collect();
    world.ok("INSERT INTO accounts DOCUMENTS (:d)", json!({"d": accounts})).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8_i64 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let mut moved = 0;
            for round in 0..6_i64 {
                let (from, to) = ((n + round) % ACCOUNTS, (n * 3 + round * 2 + 1) % ACCOUNTS);
                if from == to {
                    continue;
                }
                let transfer = json!([
                    say(
                        "UPDATE accounts SET balance = balance - 30 WHERE _id = :id AND balance >= 30",
                        json!({"id": from})
                    ),
                    // Only if there was enough: the first statement is seen.
                    say(
                        "INSERT INTO moves SELECT :move AS _id, balance AS rest FROM accounts WHERE _id = :id",
                        json!({"id": from, "move": format!("{n}-{round}")})
                    ),
                    say("SELECT SUM(balance) AS sum FROM accounts", json!({})),
                ]);
                let (status, answer) = world.transact(transfer).await;
                assert!(status == 200 || status == 409, "{answer}");
                if status == 409 {
                    continue;
                }
                let taken = answer["results"][0]["mutatedDocumentIds"].as_array().unwrap().len();
                if taken == 0 {
                    continue;
                }
                // What is under way is put back in a transaction of its own, until it is.
                loop {
                    let put =
                        json!([say("UPDATE accounts SET balance = balance + 30 WHERE _id = :id", json!({"id": to}))]);
                    let (status, answer) = world.transact(put).await;
                    assert!(status == 200 || status == 409, "{answer}");
                    if status == 200 {
                        break;
                    }
                }
                moved += 1;
            }
            moved
        });
    }
    let moved: i64 = tasks.join_all().await.into_iter().sum();
    assert!(moved > 0);
    let sum = world.ok("SELECT SUM(balance) AS sum, MIN(balance) AS least FROM accounts", json!({})).await;
    assert_eq!(sum["items"][0]["sum"], 100 * ACCOUNTS);
    assert!(sum["items"][0]["least"].as_i64().unwrap() >= 0, "{sum}");
}

/// Both see one doctor on call more than needed, and both want to go home: with snapshots alone, both would.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_write_skew_and_no_phantom() {
    for round in 0..5 {
        let world = Arc::new(world(ApiSettings { max_transaction_attempts: 200, ..short() }).await);
        world
            .ok("INSERT INTO doctors DOCUMENTS ({'_id': 'a', 'duty': true}), ({'_id': 'b', 'duty': true})", json!({}))
            .await;
        let mut tasks = tokio::task::JoinSet::new();
        for id in ["a", "b"] {
            let world = Arc::clone(&world);
            tasks.spawn(async move {
                // A row is there only while there are two; the update is of its own document.
                let home = json!([
                    say("INSERT INTO gone SELECT :id AS _id, COUNT(*) AS seen FROM doctors WHERE duty = true HAVING COUNT(*) > 1", json!({"id": id})),
                    say("SELECT _id FROM gone WHERE _id = :id", json!({"id": id})),
                    say("UPDATE doctors SET duty = false WHERE _id = :id", json!({"id": id})),
                ]);
                world.transact(home).await
            });
        }
        for (status, answer) in tasks.join_all().await {
            assert_eq!(status, 200, "{answer}");
        }
        // Whoever came second saw one, and was not let go.
        let gone = world.ok("SELECT COUNT(*) AS n FROM gone", json!({})).await;
        assert_eq!(gone["items"], json!([{"n": 1}]), "round {round}");
    }
}

/// Everybody inserts only if the collection is empty: what a scan did not find is checked, too.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_found_nothing_one_inserts() {
    let world = Arc::new(world(ApiSettings { max_transaction_attempts: 200, ..short() }).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let first = "INSERT INTO leader SELECT :n AS _id FROM leader HAVING COUNT(*) = 0";
            world.transact(json!([say(first, json!({"n": n}))])).await
        });
    }
    for (status, answer) in tasks.join_all().await {
        assert_eq!(status, 200, "{answer}");
    }
    let leaders = world.ok("SELECT COUNT(*) AS n FROM leader", json!({})).await;
    assert_eq!(leaders["items"], json!([{"n": 1}]));
}

#[tokio::test]
async fn a_conflict_that_stays_is_409_and_nothing_is_written() {
    // The log knows of a write that this process has not seen: each attempt meets it.
    let world = world(ApiSettings { max_transaction_attempts: 0, ..short() }).await;
    let (status, json) = world.transact(json!([say("UPDATE c SET x = 1 WHERE y = 1", json!({}))])).await;
    assert_eq!((status, json["error"]["code"].as_str()), (409, Some("conflict")), "{json}");
    assert!(json["error"]["message"].as_str().unwrap().contains("try again"));
    assert_eq!(world.log.head(&world.app).await.unwrap(), bigpeer_types::Lsn::ZERO);
}

#[tokio::test]
async fn permissions_hold_in_transactions() {
    let world = world(short()).await;
    world.ok("INSERT INTO cars DOCUMENTS ({'_id': 1, 'lot': 'a'}), ({'_id': 2, 'lot': 'b'})", json!({})).await;
    let access = || Access {
        everything: false,
        queries_by_collection: BTreeMap::from([("cars".to_owned(), vec!["lot = 'a'".to_owned()])]),
    };
    let permissions = Permissions { ql_version: 1, remote_query: false, read: access(), write: access() };
    let key = world.new_key(&world.app, "row", permissions).await;
    let path = format!("/{}/api/v1/transaction", world.app);
    for (statements, status) in [
        (json!([say("UPDATE cars SET n = 1", json!({})), say("SELECT _id FROM cars", json!({}))]), 200),
        (json!([say("UPDATE cars SET n = 1", json!({})), say("UPDATE cars SET lot = 'b'", json!({}))]), 403),
        (json!([say("SELECT * FROM trucks", json!({}))]), 403),
        (json!([say("SELECT a._id FROM cars a JOIN trucks b ON a._id = b._id", json!({}))]), 403),
        (json!([say("INSERT INTO cars SELECT 9 AS _id, 'a' AS lot FROM trucks", json!({}))]), 403),
    ] {
        let body = json!({ "statements": statements }).to_string().into_bytes();
        let (got, _, json) = world.ask(&path, &key, None, body).await;
        assert_eq!(got.as_u16(), status, "{statements}: {json}");
        if status == 200 {
            assert_eq!(json["results"][1]["items"], json!([{"_id": 1}]));
        }
    }
}
