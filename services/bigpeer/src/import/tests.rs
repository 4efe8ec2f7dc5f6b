//! Reading files and cutting them into transactions.

use std::path::PathBuf;
use std::sync::Arc;

use bigpeer_crdt::{Object, Transaction, Value};
use bigpeer_types::{CollectionName, Hlc, HlcClock, ManualClock, SiteId};
use serde_json::json;

use super::rows::{Examined, Reading, RowError, examine};
use super::*;

fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    (dir, path)
}

fn reading() -> Reading {
    Reading { nulls: vec!["NA".to_owned()], format: None }
}

fn read(name: &str, content: &[u8]) -> Result<(Vec<serde_json::Value>, Vec<String>), String> {
    let (_dir, path) = file(name, content);
    let Examined { source, rows, bad } = examine(&path, &reading()).map_err(|error| error.to_string())?;
    let objects: Vec<_> =
        source.rows().unwrap().filter_map(Result::ok).map(|row| Value::Object(row.fields).to_json()).collect();
    assert_eq!(rows, objects.len() as u64, "examining counts what reading gives");
    Ok((objects, bad.iter().map(ToString::to_string).collect()))
}

#[test]
fn a_csv_column_has_the_narrowest_type_that_all_its_values_fit() {
    let csv = "i,f,b,t,code,mixed,none\n1,1,true,x,007,1,\n-2,2.5,FALSE,\"a, b\",010,x,NA\n,,,,,,\n";
    let (rows, bad) = read("a.csv", csv.as_bytes()).unwrap();
    assert_eq!(bad, Vec::<String>::new());
    assert_eq!(
        rows,
        [
            json!({"i": 1, "f": 1.0, "b": true, "t": "x", "code": "007", "mixed": "1"}),
            json!({"i": -2, "f": 2.5, "b": false, "t": "a, b", "code": "010", "mixed": "x"}),
            json!({}),
        ]
    );
}

#[test]
fn big_and_odd_numbers_stay_what_they_were() {
    let (rows, _) = read("a.csv", b"big,exp,inf,plus\n9223372036854775808,1e5,inf,+1\n").unwrap();
    assert_eq!(rows, [json!({"big": 9_223_372_036_854_775_808_f64, "exp": 100_000.0, "inf": "inf", "plus": "+1"})]);
}

#[test]
fn malformed_csv_rows_are_named_with_their_line() {
    let (rows, bad) = read("a.csv", b"a,b\n1,2\n1,2,3\n\"x\ny\",4\n5\n\xff,1\n6,7\n").unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(bad.len(), 3, "{bad:?}");
    for (error, line) in bad.iter().zip(["line 3", "line 6", "line 7"]) {
        assert!(error.contains(line) && error.contains("a.csv"), "{error}");
    }
    assert!(bad[2].contains("UTF-8"), "{}", bad[2]);
}

#[test]
fn headers_must_name_every_column_once() {
    for (content, expected) in [("", "empty"), ("a,a\n1,2\n", "'a' twice"), ("a,\n1,2\n", "column 2 has no name")] {
        let error = read("a.csv", content.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(read("a.txt", b"x").unwrap_err().contains("--format"));
}

#[test]
fn ndjson_lines_are_objects() {
    let text = b"{\"a\": 1, \"n\": {\"x\": [1, 2.5, null]}}\n\n[1]\n{\"a\": \n{\"a\": 18446744073709551615}";
    let (rows, bad) = read("a.ndjson", text).unwrap();
    assert_eq!(rows, [json!({"a": 1, "n": {"x": [1, 2.5, null]}}), json!({"a": u64::MAX})]);
    assert_eq!(bad.len(), 2);
    assert!(bad[0].contains("line 3") && bad[1].contains("line 4"), "{bad:?}");
}

#[test]
fn parquet_columns_become_fields() {
    use arrow::array::{ArrayRef, Date32Array, Int32Array, RecordBatch, StringArray};
    let columns: [(&str, ArrayRef); 3] = [
        ("n", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ("t", Arc::new(StringArray::from(vec!["x", "y"]))),
        ("d", Arc::new(Date32Array::from(vec![0, 1]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (rows, _) = read("a.parquet", &bytes).unwrap();
    assert_eq!(rows, [json!({"n": 1, "t": "x", "d": "1970-01-01"}), json!({"t": "y", "d": "1970-01-02"})]);
    assert!(read("a.parquet", b"not parquet").unwrap_err().contains("a.parquet"));
}

fn encoded(content: &str, id: &[String], durable: u64) -> Result<Vec<Encoded>, String> {
    let (_dir, path) = file("rows.csv", content.as_bytes());
    let examined = examine(&path, &reading()).unwrap();
    let (sender, mut receiver) = mpsc::channel(10_000);
    let collection = CollectionName::new("rows").unwrap();
    encode(vec![Prepared { examined, content: 7 }], id, &collection, SiteId::new(1), durable, &sender)?;
    drop(sender);
    Ok(std::iter::from_fn(|| receiver.blocking_recv()).collect())
}

#[test]
fn a_resumed_import_has_the_same_transactions() {
    let content: String = std::iter::once("k,v\n".to_owned()).chain((0..1_200).map(|n| format!("{n},{n}\n"))).collect();
    for id in [vec![], vec!["k".to_owned()], vec!["k".to_owned(), "v".to_owned()]] {
        let ids = |encoded: &Encoded| -> Vec<_> {
            let transaction = Transaction::decode(encoded.bytes.clone()).unwrap();
            transaction.changes().iter().map(|change| change.id.clone()).collect()
        };
        let (whole, resumed) = (encoded(&content, &id, 0).unwrap(), encoded(&content, &id, 2).unwrap());
        assert_eq!(whole.iter().map(|one| (one.seq, one.rows)).collect::<Vec<_>>(), [(1, 500), (2, 1_000), (3, 1_200)]);
        assert_eq!(resumed.iter().map(|one| one.bytes.is_empty()).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(ids(&whole[2]), ids(&resumed[2]));
    }
}

#[test]
fn a_row_without_its_id_is_named() {
    let error = encoded("k,v\n1,1\n,2\n", &["k".to_owned()], 0).err().unwrap();
    assert!(error.contains("line 3") && error.contains("'k'"), "{error}");
}

#[test]
fn a_batch_is_cut_by_weight_too() {
    let row = |n: u64| rows::Row {
        place: rows::Place { file: PathBuf::new(), line: n },
        fields: [("k", Value::from(n)), ("v", Value::from("x".repeat(400_000)))].into_iter().collect::<Object>(),
    };
    let mut batch = Batch::default();
    let ids = Ids::Fields(vec!["k".to_owned()]);
    let mut added = 0;
    while !batch.is_full() {
        added += 1;
        batch.add(row(added), added, &ids).unwrap();
    }
    assert_eq!(added, 3);
    let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1)));
    assert!(batch.encode(&CollectionName::new("c").unwrap(), &mut clock).is_ok());
    assert!(matches!(batch_error(), RowError::Row { .. }));
}

fn batch_error() -> RowError {
    let fields = [("_id", Value::from(1_u64))].into_iter().collect::<Object>();
    let row = rows::Row { place: rows::Place { file: PathBuf::new(), line: 1 }, fields };
    Batch::default().add(row, 1, &Ids::Generated { content: 1 }).unwrap_err()
}
