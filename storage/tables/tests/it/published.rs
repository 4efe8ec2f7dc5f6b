//! Published tables: each version is the documents at its LSN, for readers of ours and of others.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bigpeer_crdt::{Object, Value};
use bigpeer_tables::columns::{ColumnType, Columns};
use bigpeer_tables::manifest::{CollectionSettings, Publication, PublicationMode};
use bigpeer_tables::paths::ObjectPath;
use bigpeer_tables::{DocumentStore, Extent, LocalObjects, PublishedTable, TablesError, Writer};
use bigpeer_types::{CollectionName, ManualClock};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value as Json, json};

use crate::model::{Edit, Truth, World, app, check, collection, id, object};

pub(crate) fn settings(mode: PublicationMode) -> CollectionSettings {
    CollectionSettings { publication: Some(Publication { mode, interval_secs: 60 }), ..CollectionSettings::default() }
}

/// Reads a version as a reader would that knows Parquet and the log: ids and versions of its rows.
async fn rows(objects: &Arc<dyn ObjectStore>, name: &CollectionName, table: &PublishedTable) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    for (ulid, excluded) in &table.files {
        let path = ObjectPath::Segment(app(), name.clone(), *ulid).to_path();
        let bytes = objects.get(&path).await.unwrap().bytes().await.unwrap();
        let mut row = 0_u32;
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let versions = batch.column_by_name("_version").unwrap().as_primitive::<Int64Type>().clone();
            let ids = batch.column_by_name("_id").unwrap();
            for at in 0..batch.num_rows() {
                if !excluded.contains(row) {
                    let id = arrow::util::display::array_value_to_string(ids, at).unwrap();
                    out.push((id, versions.value(at)));
                }
                row += 1;
            }
        }
    }
    out.sort();
    out
}

/// Whether the newest version is what the documents were at its LSN. Ids must be integers.
pub(crate) async fn check_published(
    store: &DocumentStore,
    objects: &Arc<dyn ObjectStore>,
    name: &CollectionName,
    truth: &Truth,
) -> Option<PublishedTable> {
    let table = store.published(name).await.unwrap()?;
    let documents = truth.at(name, table.lsn);
    let visible = documents.into_iter().filter(|(_, (_, document))| document.is_visible());
    let mut expected: Vec<(String, i64)> = visible
        .map(|(id, (lsn, _))| (id.to_value().to_json().to_string(), i64::try_from(lsn.version).unwrap()))
        .collect();
    expected.sort();
    assert_eq!(rows(objects, name, &table).await, expected, "version {} of {name}", table.version);
    Some(table)
}

async fn flush(world: &World, store: &DocumentStore, writer: &Writer) {
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
}

/// Edits of all kinds, some of them of other types than before.
async fn edit(world: &mut World, name: &CollectionName, round: i64) {
    let mut edits = Vec::new();
    for n in 0..20 {
        let key = id((round * 13 + n * 7) % 60);
        let number = if round < 3 { Value::Int(n) } else { Value::Float(0.5 + f64::from(i32::try_from(n).unwrap())) };
        let nested = Object::from_iter([("k", Value::Int(round)), ("t", Value::from("text"))]);
        let edit = match (round * 20 + n) % 9 {
            0 => Edit::Delete,
            1 => Edit::Set("x", number),
            2 => Edit::Set("flag", Value::Bool(n % 2 == 0)),
            3 if round > 4 => Edit::Set("later", Value::from(format!("round {round}"))),
            4 if round == 7 => Edit::Set("mixed", Value::from("no number")),
            _ => Edit::Insert(object([
                ("x", number),
                ("text", Value::from(format!("some text {n}"))),
                ("mixed", Value::Int(round)),
                ("tags", Value::Array(vec![Value::Int(n), Value::Int(round)])),
                ("nested", Value::Object(nested)),
            ])),
        };
        edits.push((name, key, edit));
    }
    world.write(&edits).await;
}

async fn history(mode: PublicationMode) {
    let mut world = World::new();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    world.settings.clock = Arc::clone(&clock) as _;
    let name = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    writer.configure(&name, settings(mode)).await.unwrap();
    assert_eq!(store.collection_settings(), BTreeMap::from([(name.clone(), settings(mode))]));
    let mut versions = 0;
    for round in 0..26 {
        edit(&mut world, &name, round).await;
        flush(&world, &store, &writer).await;
        if round % 4 == 3 {
            let extent = [Extent::Minor, Extent::Major, Extent::Full][usize::try_from(round / 4 % 3).unwrap()];
            writer.compact(&name, extent).await.unwrap();
        }
        let published = writer.publish(&name).await.unwrap().unwrap();
        assert_eq!((published.version, published.lsn), (versions, world.truth.last()));
        versions += 1;
        let read = check_published(&store, &world.objects, &name, &world.truth).await.unwrap();
        assert_eq!(read, published, "what is read is what was written");
        if mode == PublicationMode::Compatible {
            assert!(published.files.iter().all(|(_, excluded)| excluded.is_empty()));
        }
        assert_eq!(writer.publish(&name).await.unwrap(), None, "nothing has changed");
        clock.advance(1000);
        writer.collect_garbage().await.unwrap();
        check_published(&store, &world.objects, &name, &world.truth).await.unwrap();
        check(&store.snapshot(), &world.truth).await;
    }
    let commit = |version| ObjectPath::DeltaCommit(app(), name.clone(), version).to_path();
    assert!(world.objects.head(&commit(19)).await.is_err(), "what a checkpoint holds goes");
    assert!(world.objects.head(&commit(20)).await.is_ok());
    // Another process goes on with the log, from its checkpoint.
    let other = world.caught_up().await;
    let writer = other.writer().await.unwrap();
    edit(&mut world, &name, 100).await;
    flush(&world, &other, &writer).await;
    assert_eq!(writer.publish(&name).await.unwrap().unwrap().version, versions);
    check_published(&other, &world.objects, &name, &world.truth).await.unwrap();
}

#[tokio::test]
async fn every_version_for_all_readers_is_the_documents_at_its_lsn() {
    history(PublicationMode::Compatible).await;
}

#[tokio::test]
async fn every_version_with_deletion_vectors_is_the_documents_at_its_lsn() {
    history(PublicationMode::DeletionVectors).await;
}

#[tokio::test]
async fn versions_outlive_the_manifests_that_they_were_made_from() {
    let mut world = World::new();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    world.settings.clock = Arc::clone(&clock) as _;
    world.settings.keep_manifests = 1;
    world.settings.keep_for = Duration::from_secs(60);
    let name = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    writer.configure(&name, settings(PublicationMode::Compatible)).await.unwrap();
    edit(&mut world, &name, 0).await;
    flush(&world, &store, &writer).await;
    let first = writer.publish(&name).await.unwrap().unwrap();
    for round in 1..6 {
        edit(&mut world, &name, round).await;
        flush(&world, &store, &writer).await;
        writer.compact(&name, Extent::Full).await.unwrap();
        clock.advance(3_600_000);
        writer.collect_garbage().await.unwrap();
        let read = check_published(&store, &world.objects, &name, &world.truth).await.unwrap();
        assert_eq!(read, first);
    }
    // Who opened it just before the next version can still read it to its end, for a time.
    writer.publish(&name).await.unwrap().unwrap();
    writer.collect_garbage().await.unwrap();
    rows(&world.objects, &name, &first).await;
    clock.advance(61_000);
    assert!(writer.collect_garbage().await.unwrap() > 0);
    let path = ObjectPath::Segment(app(), name.clone(), first.files[0].0).to_path();
    assert!(world.objects.head(&path).await.is_err(), "and then it goes");
    check_published(&store, &world.objects, &name, &world.truth).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_not_published_any_more_goes_and_begins_anew() {
    let mut world = World::new();
    let name = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    for mode in [PublicationMode::DeletionVectors, PublicationMode::Compatible] {
        writer.configure(&name, settings(mode)).await.unwrap();
        for round in 0..12 {
            edit(&mut world, &name, round).await;
            flush(&world, &store, &writer).await;
            assert_eq!(writer.publish(&name).await.unwrap().unwrap().version, u64::try_from(round).unwrap());
            check_published(&store, &world.objects, &name, &world.truth).await.unwrap();
        }
        writer.configure(&name, CollectionSettings::default()).await.unwrap();
        assert_eq!(writer.publish(&name).await.unwrap(), None);
        assert!(writer.collect_garbage().await.unwrap() >= 12);
        assert_eq!(store.published(&name).await.unwrap(), None);
    }
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn versions_never_go_back_to_an_earlier_manifest() {
    let mut world = World::new();
    let name = collection("c");
    let old = world.open().await;
    let sleeper = old.writer().await.unwrap();
    sleeper.configure(&name, settings(PublicationMode::DeletionVectors)).await.unwrap();
    edit(&mut world, &name, 0).await;
    flush(&world, &old, &sleeper).await;
    let new = world.caught_up().await;
    let writer = new.writer().await.unwrap();
    edit(&mut world, &name, 1).await;
    flush(&world, &new, &writer).await;
    let published = writer.publish(&name).await.unwrap().unwrap();
    assert_eq!(sleeper.publish(&name).await.unwrap(), None);
    assert_eq!(check_published(&new, &world.objects, &name, &world.truth).await.unwrap(), published);
}

#[tokio::test]
async fn there_is_no_version_before_there_is_something_in_it() {
    for mode in [PublicationMode::Compatible, PublicationMode::DeletionVectors] {
        let mut world = World::new();
        let name = collection("c");
        let store = world.open().await;
        let writer = store.writer().await.unwrap();
        writer.configure(&name, settings(mode)).await.unwrap();
        assert_eq!(writer.publish(&name).await.unwrap(), None, "its columns would be of no type");
        assert_eq!(store.published(&name).await.unwrap(), None);
        // What was deleted before anybody saw it is nothing, either.
        world.put(&name, 1, object([("n", Value::Int(1))])).await;
        world.write(&[(&name, id(1), Edit::Delete)]).await;
        flush(&world, &store, &writer).await;
        assert_eq!(writer.publish(&name).await.unwrap(), None);

        world.put(&name, 2, object([("n", Value::Int(1))])).await;
        flush(&world, &store, &writer).await;
        assert_eq!(writer.publish(&name).await.unwrap().unwrap().version, 0);
        check_published(&store, &world.objects, &name, &world.truth).await.unwrap();
        // A table whose last document goes is an empty one.
        world.write(&[(&name, id(2), Edit::Delete)]).await;
        flush(&world, &store, &writer).await;
        let empty = writer.publish(&name).await.unwrap().unwrap();
        assert_eq!((empty.version, empty.files), (1, Vec::new()));
    }
}

#[tokio::test]
async fn a_writer_that_was_replaced_publishes_nothing() {
    let mut world = World::new();
    let name = collection("c");
    let old = world.open().await;
    let replaced = old.writer().await.unwrap();
    replaced.configure(&name, settings(PublicationMode::DeletionVectors)).await.unwrap();
    let new = world.caught_up().await;
    let writer = new.writer().await.unwrap();
    edit(&mut world, &name, 0).await;
    flush(&world, &new, &writer).await;
    old.refresh().await.unwrap();
    assert!(matches!(replaced.publish(&name).await, Err(TablesError::Fenced { .. })));
    writer.publish(&name).await.unwrap().unwrap();
}

/// A value as a reader finds it in a column.
fn expected(value: Option<&Value>, kind: &ColumnType) -> Json {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Json::Null };
    match (kind, value) {
        (ColumnType::Json, value) => json!(value.to_json().to_string()),
        (ColumnType::Float, Value::Int(number)) => json!(f64::from(i32::try_from(*number).unwrap())),
        (ColumnType::Struct(fields), Value::Object(object)) => {
            let field = |(name, kind): &(Box<str>, ColumnType)| (name.to_string(), expected(object.get(name), kind));
            Json::Object(fields.iter().map(field).collect())
        }
        (_, value) => value.to_json(),
    }
}

fn expected_rows(columns: &Columns, name: &CollectionName, truth: &Truth) -> Vec<Json> {
    let visible = truth.at(name, truth.last()).into_iter().filter(|(_, (_, document))| document.is_visible());
    let rows = visible.map(|(id, (lsn, document))| {
        let document = document.to_object();
        let mut row = serde_json::Map::new();
        row.insert("_id".to_owned(), expected(Some(&id.to_value()), &columns.id));
        for (name, kind) in &columns.fields {
            row.insert(name.to_string(), expected(document.get(name), kind));
        }
        row.insert("_version".to_owned(), json!(lsn.version));
        Json::Object(row)
    });
    sorted(rows.collect())
}

fn sorted(mut rows: Vec<Json>) -> Vec<Json> {
    rows.sort_by_key(|row| row["_id"].as_i64());
    rows
}

/// What another reader finds, and the LSN that the table's newest commit names.
fn outside(reader: &str, table: &Path) -> (String, Vec<Json>) {
    let python =
        std::env::var("BIGPEER_TEST_PYTHON").unwrap_or_else(|_| panic!("BIGPEER_TEST_PYTHON: `make unit` sets it"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/read_delta.py");
    let out = Command::new(python).arg(script).arg(reader).arg(table).output().unwrap();
    assert!(out.status.success(), "{reader}: {}", String::from_utf8_lossy(&out.stderr));
    let read: Json = serde_json::from_slice(&out.stdout).unwrap();
    (read["lsn"].as_str().unwrap().to_owned(), sorted(read["rows"].as_array().unwrap().clone()))
}

async fn outside_readers(mode: PublicationMode, readers: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::on(Arc::new(LocalObjects::open(dir.path()).unwrap()));
    let name = collection("odd name.");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    writer.configure(&name, settings(mode)).await.unwrap();
    let path = dir.path().join(bigpeer_tables::paths::table(&app(), &name).as_ref());
    for round in 0..13 {
        edit(&mut world, &name, round).await;
        let odd = object([("a b.c", Value::from("x")), ("A B.C", Value::Int(1)), ("_key", Value::Int(2))]);
        world.put(&name, 1000 + round, odd).await;
        flush(&world, &store, &writer).await;
        writer.publish(&name).await.unwrap().unwrap();
        writer.collect_garbage().await.unwrap();
        if ![0, 4, 8, 10, 12].contains(&round) {
            continue;
        }
        let columns = store.snapshot().table(&name).await.unwrap().columns;
        let mut rows = expected_rows(&columns, &name, &world.truth);
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            // Of names that differ in case only the first is published.
            row.remove("a b.c");
            let rest = (row["_id"].as_i64() >= Some(1000)).then(|| json!(r#"{"_key":2}"#));
            row.insert("_rest".to_owned(), rest.unwrap_or(Json::Null));
        }
        for reader in readers {
            let (lsn, read) = outside(reader, &path);
            assert_eq!(lsn, world.truth.last().to_string());
            assert_eq!(read.len(), rows.len(), "{reader} after round {round}");
            for (read, expected) in read.iter().zip(&rows) {
                assert_eq!(read, expected, "{reader} after round {round}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs the readers that `make unit` installs"]
async fn outside_readers_of_all_kinds_find_the_documents() {
    outside_readers(PublicationMode::Compatible, &["deltalake", "polars", "duckdb"]).await;
}

#[tokio::test]
#[ignore = "needs the readers that `make unit` installs"]
async fn outside_readers_that_know_deletion_vectors_find_the_documents() {
    outside_readers(PublicationMode::DeletionVectors, &["duckdb"]).await;
}
