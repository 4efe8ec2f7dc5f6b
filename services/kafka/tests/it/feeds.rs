//! Whole feeds to a real broker (`BIGPEER_TEST_KAFKA`), of processes over one log, more than one of which believes that the feed
//! is its own.

use std::collections::BTreeSet;
use std::time::Duration;

use bigpeer_changefeed::{ChangefeedContext, ChangefeedSettings, run_feeds};
use bigpeer_crdt::{Object, Value};
use bigpeer_log::{MetaOp, TransactionLog};
use bigpeer_tables::TablesSettings;
use serde_json::json;

use crate::app::App;
use crate::world::read;

const PARTITIONS: i32 = 3;

/// An app with a feed `f`.
struct World {
    app: App,
    written: u64,
}

impl World {
    /// Another process, which renews what it owns once in ten seconds.
    fn process(&self) -> ChangefeedContext {
        self.app.process(ChangefeedSettings { lease: Duration::from_secs(30), ..ChangefeedSettings::default() })
    }

    /// Changes seven documents in turn.
    async fn write(&mut self, count: u64) {
        for _ in 0..count {
            self.written += 1;
            let mut fields = Object::new();
            fields.insert("n", Value::Int(self.written as i64));
            self.app.write("cars", [(self.written % 7, fields)]).await;
        }
        self.app.applied().await;
    }

    fn lease(&self) -> String {
        format!("lease/feeds/{}/f", self.app.id)
    }

    /// Lets others take the feed over while its owner believes in it.
    async fn forget_owner(&self) {
        let key = self.lease().into();
        self.app.log.metadata().commit(vec![MetaOp::Delete { key }]).await.unwrap();
    }

    async fn until(&self, what: &str, check: impl AsyncFn() -> bool) {
        for _ in 0..12_000 {
            if check().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still not: {what}");
    }

    async fn owned(&self) {
        let lease = self.lease();
        let owned = async || self.app.log.metadata().get(lease.as_bytes()).await.unwrap().is_some();
        self.until("somebody owns it", owned).await;
    }

    async fn delivered(&self) {
        let process = self.process();
        self.until("everything is delivered", async || self.app.is_delivered(&process, "f").await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: scripts/test_kafka.py"]
async fn processes_that_all_believe_they_own_a_feed_deliver_each_event_once() {
    let brokers = std::env::var("BIGPEER_TEST_KAFKA").expect("BIGPEER_TEST_KAFKA names no broker");
    let mut world = World { app: App::new(TablesSettings::default()).await, written: 0 };
    let sink = json!({"type": "kafka", "brokers": brokers, "topic": "owned", "create": {"partitions": PARTITIONS}});
    world.app.make_feed("f", sink, &"0.0".parse().unwrap()).await;
    let mut running = tokio::task::JoinSet::new();
    for round in 0..6 {
        running.spawn(run_feeds(world.process()));
        world.owned().await;
        world.write(50).await;
        if round % 2 == 0 {
            world.delivered().await;
        }
        world.forget_owner().await;
        world.write(50).await;
    }
    world.delivered().await;
    running.abort_all();
    let got = read(&brokers, "owned", PARTITIONS);
    let ids: BTreeSet<&str> = got.iter().map(|got| got.json["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), got.len()), (600, 600), "each event is there, and once");
    for document in 0..7 {
        let of = |key: &str| key == format!("cars:{document}");
        let mut last = json!(null);
        for event in got.iter().filter(|got| got.key.as_deref().is_some_and(of)) {
            assert_eq!(event.json["change"]["oldValue"], last, "in order: {}", event.json);
            last = event.json["change"]["newValue"].clone();
        }
    }
}
