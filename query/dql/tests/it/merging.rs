//! What two peers come to that wrote without seeing each other: the reference's table, row by row. Where it leaves husks of
//! deleted documents, documents here are revived whole or stay deleted.

use serde_json::{Value as Json, json};

use crate::store::Store;

/// Two stores with the same document, the second one's clock a second ahead.
fn two(document: Json) -> (Store, Store) {
    let ours = Store::with(json!([document]));
    let mut theirs = Store::of_site_at(8, 2_000_000);
    theirs.documents = ours.documents.clone();
    (ours, theirs)
}

/// Runs a statement on each, exchanges what they did in both orders, and answers with what both then have.
fn merged(document: Json, first: &str, second: &str) -> Vec<Json> {
    let (mut ours, mut theirs) = two(document);
    let run = |store: &mut Store, statement: &str| {
        store.mutate(statement, json!({})).unwrap_or_else(|error| panic!("{statement}: {error}"))
    };
    let (a, b) = (run(&mut ours, first), run(&mut theirs, second));
    ours.apply(&b);
    theirs.apply(&a);
    assert_eq!(ours.documents, theirs.documents, "{first} and {second}");
    ours.run("SELECT * FROM c")
}

#[test]
fn the_table_of_merges() {
    let car = || json!({"_id": 1, "status": "new", "obj": {"a": 1, "b": 1}, "items": {"i1": {"q": 1, "p": 2}}, "tags": [1], "color": "red"});
    // Keys that no row is about.
    let of = |rows: Vec<Json>, key: &str| rows[0].get(key).cloned().unwrap_or(json!("MISSING"));
    for (first, second, key, expected) in [
        ("UPDATE c SET status = 'A'", "UPDATE c SET status = 'B'", "status", json!("B")),
        ("UPDATE c SET obj.a = 2", "UPDATE c SET obj.b = 3", "obj", json!({"a": 2, "b": 3})),
        ("UPDATE c SET obj = {'a': 10}", "UPDATE c SET obj.b = 20", "obj", json!({"a": 10, "b": 20})),
        ("UPDATE c UNSET obj", "UPDATE c SET obj.c = 5", "obj", json!({"c": 5})),
        ("UPDATE c UNSET items.i1", "UPDATE c SET items.i1.q = 5", "items", json!({"i1": {"q": 5}})),
        // The reference keeps {"q": null}: a husk. Here what was removed later is gone.
        ("UPDATE c SET items.i1.q = 5", "UPDATE c UNSET items.i1", "items", json!({})),
        ("UPDATE c SET tags = [1, 2, 3]", "UPDATE c SET tags = [0, 1, 2]", "tags", json!([0, 1, 2])),
        ("UPDATE c SET tags = [0, 1, 2]", "UPDATE c SET tags = [1, 2, 3]", "tags", json!([1, 2, 3])),
    ] {
        assert_eq!(of(merged(car(), first, second), key), expected, "{first} and {second}");
    }
}

#[test]
fn counters_of_the_table() {
    let count = |first: &str, second: &str| {
        let (mut ours, mut theirs) = two(json!({"_id": 1}));
        let counted = ours.mutate("UPDATE c APPLY n INCREMENT BY 3", json!({})).unwrap();
        theirs.apply(&counted);
        let (a, b) = (ours.mutate(first, json!({})).unwrap(), theirs.mutate(second, json!({})).unwrap());
        ours.apply(&b);
        theirs.apply(&a);
        assert_eq!(ours.documents, theirs.documents);
        ours.run("SELECT n FROM c")[0]["n"].clone()
    };
    assert_eq!(count("UPDATE c APPLY n INCREMENT BY 5", "UPDATE c APPLY n INCREMENT BY 7"), 15);
    assert_eq!(count("UPDATE c APPLY n RESTART WITH 100", "UPDATE c APPLY n RESTART WITH 7"), 7);
    // What the restarting peer had not seen is discarded, when it had begun before.
    assert_eq!(count("UPDATE c APPLY n INCREMENT BY 5", "UPDATE c APPLY n RESTART WITH 100"), 100);
}

#[test]
fn deletions_of_the_table_leave_no_husks() {
    let car = || json!({"_id": 1, "color": "red", "doors": 4});
    // The reference: {_id, color}. Here the update that came later brings the whole document back.
    let revived = merged(car(), "DELETE FROM c", "UPDATE c SET color = 'blue'");
    assert_eq!(revived, [json!({"_id": 1, "color": "blue", "doors": 4})]);
    // The reference: {_id, color: null}. Here it is deleted.
    assert_eq!(merged(car(), "UPDATE c SET color = 'blue'", "DELETE FROM c"), Vec::<Json>::new());
}

#[test]
fn insertions_of_the_table() {
    let union = |first: &str, second: &str| {
        let (mut ours, mut theirs) = (Store::new(), Store::of_site_at(8, 2_000_000));
        let (a, b) = (ours.mutate(first, json!({})).unwrap(), theirs.mutate(second, json!({})).unwrap());
        ours.apply(&b);
        theirs.apply(&a);
        assert_eq!(ours.documents, theirs.documents);
        ours.run("SELECT * FROM c")
    };
    assert_eq!(
        union(
            "INSERT INTO c DOCUMENTS ({'_id': 1, 'a': 1, 'x': 'A'})",
            "INSERT INTO c DOCUMENTS ({'_id': 1, 'b': 2, 'x': 'B'})"
        ),
        [json!({"_id": 1, "a": 1, "b": 2, "x": "B"})]
    );
    // By value, not by time: whoever inserts what.
    let (first, second) = (
        "INSERT INTO c INITIAL DOCUMENTS ({'_id': 1, 'a': 1, 'x': 'B'})",
        "INSERT INTO c INITIAL DOCUMENTS ({'_id': 1, 'b': 2, 'x': 'A'})",
    );
    assert_eq!(union(first, second), [json!({"_id": 1, "a": 1, "b": 2, "x": "B"})]);
    assert_eq!(union(second, first), union(first, second));
}
