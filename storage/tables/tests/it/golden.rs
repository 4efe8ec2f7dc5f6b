//! Files of earlier versions stay readable: `tests/golden/1` was written by the first version, `2` by the one that has
//! settings and moments in manifests, `4` by the one that has sums of what was written; all are frozen.
//!
//! To make the files of a new format: change `NEWEST`, add it to `VERSIONS`, and `BIGPEER_BLESS=1 cargo test -p bigpeer-tables golden`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_crdt::{Object, Value};
use bigpeer_log::MemoryLog;
use bigpeer_tables::{DocumentStore, Extent};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::model::{Edit, World, app, check, collection, id, object, small_settings};

const VERSIONS: [u32; 3] = [1, 2, 4];
const NEWEST: u32 = 4;

fn dir(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{version}"))
}

/// What the files hold. Do not change.
async fn history(world: &mut World) {
    let (c, odd) = (collection("flights"), collection("a/b ü"));
    let nested = Object::from_iter([("k", Value::Array(vec![Value::Int(1), Value::Null])), ("b", Value::Bool(true))]);
    for n in 0..20_i64 {
        let fields = object([
            ("n", Value::Int(n)),
            ("x", Value::Float(0.25)),
            ("text", Value::from(format!("text {n}"))),
            ("nested", Value::Object(nested.clone())),
            ("_key", Value::from("reserved")),
        ]);
        world
            .write(&[(&c, id(n), Edit::Insert(fields)), (&odd, id(format!("id {n}")), Edit::Increment("hits", n))])
            .await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    writer.compact(&c, Extent::Full).await.unwrap();
    let big = object([("n", Value::UInt(u64::MAX)), ("blob", Value::Bytes(Box::from(&b"\x00\xff"[..])))]);
    world.write(&[(&c, id(3), Edit::Set("n", Value::from("mixed"))), (&c, id(4), Edit::Delete)]).await;
    world.write(&[(&c, id(100), Edit::Insert(big)), (&odd, id("id 7"), Edit::Delete)]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    store.shutdown().await;
}

#[tokio::test]
async fn files_of_every_version_are_read() {
    let mut world = World::new();
    if std::env::var_os("BIGPEER_BLESS").is_some() {
        std::fs::create_dir_all(dir(NEWEST)).unwrap();
        world = World::on(Arc::new(LocalFileSystem::new_with_prefix(dir(NEWEST)).unwrap()));
    }
    history(&mut world).await;
    for version in VERSIONS {
        let golden: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir(version)).unwrap());
        let files: Vec<_> = golden.list(None).try_collect().await.unwrap();
        assert!(files.len() >= 5, "the golden files are missing: {files:?}");
        let store = DocumentStore::open(app(), golden, Arc::new(MemoryLog::default()), small_settings()).await.unwrap();
        assert_eq!(store.applied(), world.truth.last());
        check(&store.snapshot(), &world.truth).await;
    }
}

#[tokio::test]
async fn a_manifest_of_today_is_the_golden_one() {
    let mut world = World::new();
    history(&mut world).await;
    let path = object_store::path::Path::from("apps/app/manifests/00000000000000000003");
    let golden = LocalFileSystem::new_with_prefix(dir(NEWEST)).unwrap();
    let read = |bytes: bytes::Bytes| bigpeer_tables::manifest::decode(&bytes).unwrap();
    let bytes_of = |objects: Arc<dyn ObjectStore>| {
        let path = path.clone();
        async move { objects.get_opts(&path, Default::default()).await.unwrap().bytes().await.unwrap() }
    };
    let (ours, frozen) = (bytes_of(world.objects.clone()).await, bytes_of(Arc::new(golden)).await);
    // The bytes of the golden manifest come out again: the encoding has not changed.
    assert_eq!(bigpeer_tables::manifest::encode(&read(frozen.clone())).unwrap(), frozen);
    let (ours, frozen) = (read(ours), read(frozen));
    assert_eq!((ours.lsn, ours.number, ours.epoch), (frozen.lsn, frozen.number, frozen.epoch));
    for (name, collection) in &ours.collections {
        assert_eq!(collection.columns, frozen.collections.get(name).unwrap().columns);
    }
}
