//! Tables for SQL: read the way that SQL reads them, they are the visible documents.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::Int64Type;
use bigpeer_crdt::{Object, Value};
use bigpeer_tables::columns::{self, ColumnType, widen};
use bigpeer_tables::{SegmentPart, Snapshot, TableSnapshot};
use bigpeer_types::CollectionName;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::model::{Documents, Edit, World, collection, id, object};

/// Reads a whole segment as SQL would: excluded rows left out, columns widened to the table's.
async fn read_part(snapshot: &Snapshot, table: &TableSnapshot, part: &SegmentPart) -> Vec<RecordBatch> {
    let bytes = snapshot.objects().get(&part.path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, part.size);
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).unwrap().build().unwrap();
    let mut first = 0_u32;
    let mut out = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let keep: arrow::array::BooleanArray =
            (first..).take(batch.num_rows()).map(|row| Some(!part.excluded.contains(row))).collect();
        first += u32::try_from(batch.num_rows()).unwrap();
        let batch = arrow::compute::filter_record_batch(&batch, &keep).unwrap();
        let mut arrays: Vec<ArrayRef> =
            vec![widen(batch.column_by_name("_id").unwrap(), &part.columns.id, &table.columns.id).unwrap()];
        for (name, kind) in &table.columns.fields {
            arrays.push(match (batch.column_by_name(name), part.columns.get(name)) {
                (Some(array), Some(from)) => {
                    assert_eq!(array.data_type(), &from.data_type(), "{name}");
                    widen(array, from, kind).unwrap()
                }
                _ => new_null_array(&kind.data_type(), batch.num_rows()),
            });
        }
        if table.columns.rest {
            let none = || new_null_array(&ColumnType::Json.data_type(), batch.num_rows());
            arrays.push(batch.column_by_name(columns::REST).cloned().unwrap_or_else(none));
        }
        arrays.push(batch.column_by_name(columns::VERSION).unwrap().clone());
        out.push(RecordBatch::try_new(table.schema.clone(), arrays).unwrap());
    }
    assert_eq!(u64::from(first), part.rows);
    out
}

pub(crate) async fn read_table(snapshot: &Snapshot, name: &CollectionName) -> (TableSnapshot, Vec<RecordBatch>) {
    let table = snapshot.table(name).await.unwrap();
    let mut batches = table.overlay_batches().await.unwrap();
    for part in &table.segments {
        assert_eq!(part.metadata().await.unwrap().file_metadata().num_rows(), i64::try_from(part.rows).unwrap());
        batches.extend(read_part(snapshot, &table, part).await);
    }
    (table, batches)
}

/// The rows of a table are the visible documents: `_id`, `_transaction`, and scalar fields of their own type.
pub(crate) async fn check_table(snapshot: &Snapshot, name: &CollectionName, visible: &Documents) {
    let (table, batches) = read_table(snapshot, name).await;
    assert_eq!(table.rows(), visible.len() as u64);
    // A typed column does not tell null from a missing field, so that two ids can look alike.
    let nested = visible.keys().any(|id| matches!(id.to_value(), Value::Object(_) | Value::Array(_)));
    let mut rows: Vec<(String, i64, Option<i64>)> = Vec::new();
    for batch in &batches {
        assert_eq!(batch.schema(), table.schema);
        let versions = batch.columns().last().unwrap().as_primitive::<Int64Type>();
        let numbers = batch.column_by_name("n").filter(|_| table.columns.get("n") == Some(&ColumnType::Int));
        for row in 0..batch.num_rows() {
            let mut id = arrow::util::display::array_value_to_string(batch.column(0), row).unwrap();
            if nested {
                id.clear();
            }
            let number = numbers.map(|numbers| numbers.as_primitive::<Int64Type>()).filter(|n| n.is_valid(row));
            rows.push((id, versions.value(row), number.map(|number| number.value(row))));
        }
    }
    let json = table.columns.id == ColumnType::Json;
    let int = table.columns.get("n") == Some(&ColumnType::Int);
    let mut expected: Vec<(String, i64, Option<i64>)> = visible
        .iter()
        .map(|(id, (lsn, document))| {
            let id = match id.to_value() {
                _ if nested => String::new(),
                Value::String(text) if !json => text.into(),
                Value::Null => String::new(),
                Value::Bytes(bytes) if !json => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                value => value.to_json().to_string(),
            };
            let number = match document.to_object().get("n") {
                Some(Value::Int(number)) if int => Some(*number),
                _ => None,
            };
            (id, i64::try_from(lsn.version).unwrap(), number)
        })
        .collect();
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected, "table {name}");
}

#[tokio::test]
async fn a_column_widens_over_segments_and_overlay() {
    let mut world = World::new();
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    world.put(&c, "a", object([("x", Value::Int(1)), ("only", Value::Bool(true))])).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    let (table, _) = read_table(&store.snapshot(), &c).await;
    assert_eq!(table.columns.get("x"), Some(&ColumnType::Int));

    world.put(&c, "b", object([("x", Value::Float(0.5))])).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let (table, batches) = read_table(&store.snapshot(), &c).await;
    assert_eq!(table.columns.get("x"), Some(&ColumnType::Float));
    let names: Vec<_> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["_id", "only", "x", "_transaction"]);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);

    writer.flush().await.unwrap();
    let nested = Object::from_iter([("k", Value::Array(vec![Value::Int(1), Value::Null]))]);
    world.put(&c, "c", object([("x", Value::String("text".into())), ("deep", Value::Object(nested))])).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let (table, batches) = read_table(&store.snapshot(), &c).await;
    let field = table.schema.field_with_name("x").unwrap();
    assert_eq!(field.metadata().get(columns::JSON_MARK.0).map(String::as_str), Some(columns::JSON_MARK.1));
    let mut texts: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("x").unwrap().as_string::<i32>().iter().flatten())
        .map(str::to_owned)
        .collect();
    texts.sort();
    assert_eq!(texts, ["\"text\"", "0.5", "1"]);
    let deep = table.columns.get("deep").unwrap();
    assert_eq!(*deep, ColumnType::Struct(vec![("k".into(), ColumnType::List(Box::new(ColumnType::Int)))]));
}

#[tokio::test]
async fn a_table_is_made_once_while_nothing_changes_and_again_when_something_does() {
    let mut world = World::new();
    let c = collection("c");
    world.put(&c, 1, object([("x", Value::Int(1))])).await;
    let store = world.caught_up().await;
    let first = store.snapshot().table(&c).await.unwrap();
    let again = store.snapshot().table(&c).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&first.schema, &again.schema));
    world.write(&[(&c, id(1), Edit::Set("y", Value::Int(2)))]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let changed = store.snapshot().table(&c).await.unwrap();
    assert!(changed.columns.get("y").is_some());
    assert_eq!(changed.rows(), 1);
}

#[tokio::test]
async fn a_table_follows_many_small_changes() {
    let mut world = World::new();
    let c = collection("c");
    for n in 0..20 {
        world.put(&c, n, object([("n", Value::Int(n))])).await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    let mut old = None;
    for round in 0..120_i64 {
        let key = id(round * 7 % 31);
        let edit = match round % 5 {
            0 => Edit::Delete,
            1 => Edit::Set("later", Value::from(format!("text {round}"))),
            _ => Edit::Set("n", Value::Int(round)),
        };
        world.write(&[(&c, key, edit)]).await;
        store.wait_for(world.truth.last()).await.unwrap();
        let snapshot = store.snapshot();
        let visible = |lsn| {
            let all = world.truth.at(&c, lsn);
            all.into_iter().filter(|(_, (_, document))| document.is_visible()).collect()
        };
        check_table(&snapshot, &c, &visible(snapshot.lsn())).await;
        if round == 60 {
            old = Some(snapshot);
        } else if let Some(old) = old.as_ref().filter(|_| round == 100) {
            check_table(old, &c, &visible(old.lsn())).await;
        }
    }
}

#[tokio::test]
async fn a_collection_that_nobody_wrote_is_an_empty_table() {
    let world = World::new();
    let store = world.open().await;
    let table = store.snapshot().table(&collection("nothing")).await.unwrap();
    assert_eq!((table.rows(), table.schema.fields().len()), (0, 2));
    let batches: Vec<_> =
        store.snapshot().scan(&collection("nothing"), Default::default()).try_collect().await.unwrap();
    assert!(batches.is_empty());
}
