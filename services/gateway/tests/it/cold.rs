//! Documents that have to be read from segments before a change can be matched: who does not need them goes on, who does
//! gets everything in order.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_crdt::Value;
use bigpeer_gateway::GatewaySettings;
use bigpeer_protocol::pb::{self, FromGateway};
use bigpeer_tables::TablesSettings;
use bigpeer_types::Lsn;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

use crate::world::{Author, Edit, Replica, World, flights};

/// Objects that are only read while the gate is open.
#[derive(Debug)]
struct Gate {
    inner: InMemory,
    open: watch::Sender<bool>,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // The sender is here: it cannot be gone.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn lsns(message: &FromGateway) -> Vec<Lsn> {
    match message {
        FromGateway::Changes(changes) => changes.transactions.iter().map(|one| one.lsn.unwrap().into()).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_documents_hold_up_only_those_who_need_them_and_nothing_comes_out_of_order() {
    let gate = Arc::new(Gate { inner: InMemory::new(), open: watch::Sender::new(true) });
    let world = World::on(GatewaySettings::default(), Arc::clone(&gate) as _, TablesSettings::default()).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let lsn = writer.write(1, author.edit(&flights(), &[("a", Edit::flight("UA")), ("b", Edit::flight("UA"))])).await;
    world.store.wait_for(lsn).await.unwrap();
    world.store.writer().await.unwrap().flush().await.unwrap();
    let (mut cold, mut hot, mut both) = (world.client().await, world.client().await, world.client().await);
    let (mut of_cold, mut of_hot, mut of_both) = (Replica::default(), Replica::default(), Replica::default());
    cold.subscribe(1, "SELECT * FROM flights", None).await;
    cold.catch_up(&mut of_cold).await;
    hot.subscribe(1, "SELECT * FROM other", None).await;
    hot.catch_up(&mut of_hot).await;
    for (id, query) in [(1, "SELECT * FROM flights"), (2, "SELECT * FROM other")] {
        both.subscribe(id, query, None).await;
        both.catch_up(&mut of_both).await;
    }

    gate.open.send_replace(false);
    let first = writer.write(2, author.set("a", "gate", "B2")).await;
    let second = writer.write(3, author.elsewhere("x")).await;
    let third = writer.write(4, author.set("b", "gate", "C3")).await;
    let fourth = writer.write(5, author.elsewhere("y")).await;
    // Who does not listen to flights does not wait for them.
    hot.until(&mut of_hot, |replica| replica.through >= fourth).await;
    assert_eq!(of_hot.ids(), ["x", "y"]);
    // One that waits subscribes to something else: it is caught up when it has what came before.
    both.send(pb::Subscribe { id: 3, query: "SELECT * FROM third".to_owned(), ..Default::default() }).await;
    assert!(matches!(both.next().await, FromGateway::Subscribed(_)), "nothing else may come before the gate is open");

    gate.open.send_replace(true);
    let mut seen = Vec::new();
    while of_both.through < fourth {
        let message = both.next().await;
        seen.extend(lsns(&message));
        of_both.apply(&message);
    }
    assert_eq!(seen, [first, second, third, fourth]);
    let mut seen = Vec::new();
    while of_cold.through < third {
        let message = cold.next().await;
        seen.extend(lsns(&message));
        of_cold.apply(&message);
    }
    assert_eq!(seen, [first, third]);
    for replica in [&of_cold, &of_both] {
        assert_eq!(replica.field("a", "gate"), Some(Value::String("B2".into())));
        assert_eq!(replica.field("a", "carrier"), Some(Value::String("UA".into())));
        assert_eq!(replica.field("b", "gate"), Some(Value::String("C3".into())));
    }
    // What was read stays in memory: now nobody waits.
    gate.open.send_replace(false);
    writer.write(6, author.set("b", "gate", "D4")).await;
    cold.until(&mut of_cold, |replica| replica.field("b", "gate") == Some(Value::String("D4".into()))).await;
    gate.open.send_replace(true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_with_cold_documents_holds_up_only_their_collection() {
    let gate = Arc::new(Gate { inner: InMemory::new(), open: watch::Sender::new(true) });
    let world = World::on(GatewaySettings::default(), Arc::clone(&gate) as _, TablesSettings::default()).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let lsn = writer.write(1, author.insert("a", "UA")).await;
    world.store.wait_for(lsn).await.unwrap();
    world.store.writer().await.unwrap().flush().await.unwrap();
    let (mut cold, mut hot) = (world.client().await, world.client().await);
    let (mut of_cold, mut of_hot) = (Replica::default(), Replica::default());
    cold.subscribe(1, "SELECT * FROM flights", None).await;
    cold.catch_up(&mut of_cold).await;
    hot.subscribe(1, "SELECT * FROM other", None).await;
    hot.catch_up(&mut of_hot).await;

    gate.open.send_replace(false);
    // One message becomes one append, and that one batch of the feed.
    let transactions = [author.set("a", "gate", "B2"), author.elsewhere("x")].into_iter().zip(2..);
    let transactions = transactions
        .map(|(transaction, seq)| pb::PushedTransaction { seq, transaction, basis: seq - 1, more: false })
        .collect();
    writer.send(pb::Push { transactions }).await;
    hot.until(&mut of_hot, |replica| replica.ids() == ["x"]).await;
    gate.open.send_replace(true);
    cold.until(&mut of_cold, |replica| replica.field("a", "gate") == Some(Value::String("B2".into()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_cold_document_and_leaves_is_not_waited_for() {
    let gate = Arc::new(Gate { inner: InMemory::new(), open: watch::Sender::new(true) });
    let world = World::on(GatewaySettings::default(), Arc::clone(&gate) as _, TablesSettings::default()).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let lsn = writer.write(1, author.insert("a", "UA")).await;
    world.store.wait_for(lsn).await.unwrap();
    world.store.writer().await.unwrap().flush().await.unwrap();
    let mut client = world.client().await;
    let mut replica = Replica::default();
    client.subscribe(1, "SELECT * FROM flights", None).await;
    client.catch_up(&mut replica).await;
    gate.open.send_replace(false);
    writer.write(2, author.set("a", "gate", "B2")).await;
    let lsn = writer.write(3, author.elsewhere("x")).await;
    let mut other = world.client().await;
    let mut of_other = Replica::default();
    other.subscribe(1, "SELECT * FROM other", None).await;
    other.catch_up(&mut of_other).await;
    other.until(&mut of_other, |replica| replica.through >= lsn).await;
    // Out of what it waits for, and into what is there.
    client.send(pb::Unsubscribe { id: 1 }).await;
    client.subscribe(2, "SELECT * FROM other", None).await;
    client.catch_up(&mut replica).await;
    let lsn = writer.write(4, author.elsewhere("y")).await;
    client.until(&mut replica, |replica| replica.through >= lsn).await;
    gate.open.send_replace(true);
    let lsn = writer.write(5, author.set("a", "gate", "C3")).await;
    let last = writer.write(6, author.elsewhere("z")).await;
    client.until(&mut replica, |replica| replica.through >= last.max(lsn)).await;
    assert_eq!(replica.field("a", "gate"), Some(Value::String("A1".into())), "not subscribed any more");
}
