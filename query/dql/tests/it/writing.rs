//! INSERT, UPDATE, DELETE, EVICT and RETURNING.

use serde_json::{Value as Json, json};

use crate::store::Store;

fn all(store: &mut Store) -> Vec<Json> {
    store.run("SELECT * FROM c ORDER BY _id")
}

#[test]
fn insert_several_documents() {
    let mut store = Store::new();
    let mutation = store
        .mutate(
            "INSERT INTO c DOCUMENTS ({'_id': 'a', 'x': {'y': 1}}), (:one), (:more)",
            json!({"one": {"_id": 2}, "more": [{"_id": [1]}, {"v": 1}]}),
        )
        .unwrap();
    assert_eq!(mutation.mutated.len(), 4);
    // The generated id needs no precondition.
    assert_eq!(mutation.must_be_unchanged.len(), 3);
    assert_eq!(store.run("SELECT COUNT(*) AS n FROM c"), [json!({"n": 4})]);
    assert_eq!(store.run("SELECT x.y FROM c WHERE _id = 'a'"), [json!({"y": 1})]);
    assert!(
        store
            .error("INSERT INTO c DOCUMENTS ({'_id': 1}), ({'_id': 1.0})")
            .contains("Expected unique document identifiers")
    );
    assert!(store.error("INSERT INTO c DOCUMENTS ({'_id': null})").contains("cannot be null"));
    assert!(store.error("INSERT INTO c DOCUMENTS (5)").contains("must be an object"));
    assert!(store.error("INSERT INTO c DOCUMENTS (a)").contains("must be a constant"));
    assert!(store.error("INSERT INTO __devices DOCUMENTS ({})").contains("cannot be written to"));
}

#[test]
fn conflict_policies() {
    let fresh = || Store::with(json!([{"_id": "a", "x": 1, "m": {"p": 1}}]));
    let mut store = fresh();
    for clause in ["", "ON ID CONFLICT FAIL", "ON ID CONFLICT DO FAIL"] {
        let error =
            store.error(&format!("INSERT INTO c DOCUMENTS ({{'_id': 'b'}}), ({{'_id': 'a', 'x': 2}}) {clause}"));
        assert!(error.starts_with("Identifier conflict on document \"a\": using FAIL conflict policy"), "{error}");
        assert_eq!(all(&mut store), [json!({"_id": "a", "x": 1, "m": {"p": 1}})]);
    }
    let insert =
        |policy: &str| format!("INSERT INTO c DOCUMENTS ({{'_id': 'a', 'x': 1, 'y': 3, 'm': {{'q': 2}}}}) {policy}");
    let mutation = store.mutate(&insert("ON ID CONFLICT DO NOTHING"), json!({})).unwrap();
    assert_eq!((mutation.changes.len(), mutation.mutated.len(), mutation.must_be_unchanged.len()), (0, 0, 1));
    for policy in ["ON ID CONFLICT DO UPDATE", "ON ID CONFLICT DO UPDATE_LOCAL_DIFF"] {
        let mut store = fresh();
        let mutation = store.mutate(&insert(policy), json!({})).unwrap();
        assert_eq!((mutation.mutated.len(), mutation.must_be_unchanged.len()), (1, 0), "{policy}");
        assert_eq!(all(&mut store), [json!({"_id": "a", "x": 1, "y": 3, "m": {"p": 1, "q": 2}})], "{policy}");
        let again = store.mutate(&insert(policy), json!({})).unwrap();
        assert_eq!(again.mutated.is_empty(), policy.ends_with("DIFF"), "{policy}");
    }
    assert!(
        store
            .error("INSERT INTO c INITIAL DOCUMENTS ({'_id': 'a'}) ON ID CONFLICT DO NOTHING")
            .contains("cannot be combined")
    );
}

#[test]
fn a_local_diff_writes_only_what_differs() {
    let mut ours = Store::with(json!([{"_id": "a", "x": 1, "y": 1}]));
    let mut theirs = Store::of_site(8);
    theirs.documents = ours.documents.clone();
    // Later than all that ours has written: wins wherever ours does not write again.
    let update = theirs.mutate("UPDATE c SET x = 9 WHERE _id = 'a'", json!({})).unwrap();
    ours.run("INSERT INTO c DOCUMENTS ({'_id': 'a', 'x': 1, 'y': 2}) ON ID CONFLICT DO UPDATE_LOCAL_DIFF");
    ours.apply(&update);
    assert_eq!(all(&mut ours), [json!({"_id": "a", "x": 9, "y": 2})]);
}

#[test]
fn initial_documents_are_the_same_everywhere_and_lose_to_everything() {
    let insert = "INSERT INTO c INITIAL DOCUMENTS ({'_id': 'a', 'x': 0, 'y': {'z': 0}})";
    let (mut ours, mut theirs) = (Store::new(), Store::of_site(8));
    let first = ours.mutate(insert, json!({})).unwrap();
    let second = theirs.mutate(insert, json!({})).unwrap();
    assert_eq!(first.changes, second.changes);
    let update = theirs.mutate("UPDATE c SET x = 1 WHERE _id = 'a'", json!({})).unwrap();
    assert!(theirs.mutate(insert, json!({})).unwrap().changes.is_empty());
    ours.apply(&update);
    assert_eq!(all(&mut ours), [json!({"_id": "a", "x": 1, "y": {"z": 0}})]);
    // A deleted document stays deleted.
    ours.run("DELETE FROM c");
    assert!(ours.mutate(insert, json!({})).unwrap().changes.is_empty());
    assert!(all(&mut ours).is_empty());
}

#[test]
fn insert_over_a_deletion_starts_empty() {
    let mut store = Store::with(json!([{"_id": "a", "x": 1}]));
    store.run("DELETE FROM c WHERE _id = 'a'");
    store.run("INSERT INTO c DOCUMENTS ({'_id': 'a', 'y': 2})");
    assert_eq!(all(&mut store), [json!({"_id": "a", "y": 2})]);
}

#[test]
fn insert_the_rows_of_a_select() {
    let mut store =
        Store::with(json!([{"_id": 1, "k": "a", "v": 1}, {"_id": 2, "k": "a", "v": 2}, {"_id": 3, "k": "b", "v": 5}]));
    store.run("INSERT INTO sums SELECT k AS _id, SUM(v) AS total FROM c GROUP BY k");
    assert_eq!(
        store.run("SELECT * FROM sums ORDER BY _id"),
        [json!({"_id": "a", "total": 3}), json!({"_id": "b", "total": 5})]
    );
}

#[test]
fn update_sets_and_unsets() {
    let mut store = Store::with(json!([{"_id": "a", "x": 1, "m": {"p": 1, "q": 2}}, {"_id": "b", "x": 2}]));
    let mutation = store
        .mutate("UPDATE c SET x = x + 10, n.e.w = 'v', m = {'r': 3} UNSET m.p WHERE x = 1", json!({}))
        .unwrap_err();
    assert!(mutation.message.starts_with("More than one modification specified for the path"), "{mutation}");
    let mutation =
        store.mutate("UPDATE c SET x = x + 10, n.e.w = 'v', m.r = 3 UNSET m.p WHERE x = 1", json!({})).unwrap();
    assert_eq!((mutation.mutated.len(), mutation.must_be_unchanged.len()), (1, 1));
    assert_eq!(
        store.run("SELECT * FROM c WHERE _id = 'a'"),
        [json!({"_id": "a", "x": 11, "m": {"q": 2, "r": 3}, "n": {"e": {"w": "v"}}})]
    );
    // Assigning an object merges; assigning {} changes nothing.
    store.run("UPDATE c SET m = {'s': 4} WHERE _id = 'a'");
    store.run("UPDATE c SET m = {} WHERE _id = 'a'");
    assert_eq!(store.run("SELECT m FROM c WHERE _id = 'a'"), [json!({"m": {"q": 2, "r": 3, "s": 4}})]);
    store.run("UPDATE c UNSET m WHERE _id = 'a'");
    assert_eq!(store.run("SELECT m FROM c WHERE _id = 'a'"), [json!({})]);
    // A constant written by id depends on nothing.
    let blind = store.mutate("UPDATE c SET x = :v WHERE _id = 'b'", json!({"v": 5})).unwrap();
    assert!(blind.must_be_unchanged.is_empty());
    let missing = store.mutate("UPDATE c SET y = nothing WHERE _id = 'b'", json!({})).unwrap();
    assert_eq!((missing.changes.len(), missing.warnings.len()), (0, 1));
    for (statement, error) in [
        ("UPDATE c SET _id = 1", "The document id `_id` cannot be modified"),
        ("UPDATE c UNSET _id.x", "The document id `_id` cannot be modified"),
        ("UPDATE c SET a = 1, a = 2", "More than one modification specified for the path a"),
        ("UPDATE c SET x.y = 1 WHERE _id = 'b'", "Unsupported DML operation on REGISTER field \"x\""),
        ("UPDATE c WHERE x = 1", "Missing SET and/or UNSET clause"),
        ("UPDATE c (x COUNTER) SET x = 1", "Missing SET and/or UNSET clause"),
    ] {
        assert!(store.error(statement).contains(error), "{statement}: {}", store.error(statement));
    }
}

#[test]
fn counters_add_up_and_restart() {
    let mut ours = Store::with(json!([{"_id": "a"}]));
    let mut theirs = Store::of_site(8);
    theirs.documents = ours.documents.clone();
    let a = ours.mutate("UPDATE c APPLY n INCREMENT BY 5 WHERE _id = 'a'", json!({})).unwrap();
    let b = theirs
        .mutate("UPDATE c APPLY n INCREMENT BY 7, m.k PN_INCREMENT BY -2 SET s = 'x' WHERE _id = 'a'", json!({}))
        .unwrap();
    assert!(a.must_be_unchanged.is_empty() && b.must_be_unchanged.is_empty());
    ours.apply(&b);
    assert_eq!(all(&mut ours), [json!({"_id": "a", "n": 12, "m": {"k": -2}, "s": "x"})]);
    ours.run("UPDATE c APPLY n RESTART WITH 100 WHERE n = 12");
    ours.run("UPDATE c APPLY n INCREMENT BY 1");
    assert_eq!(ours.run("SELECT n FROM c"), [json!({"n": 101})]);
    ours.run("UPDATE c APPLY n RESTART");
    assert_eq!(ours.run("SELECT n, n + 1 AS m FROM c WHERE n = 0"), [json!({"n": 0, "m": 1})]);
    assert!(ours.error("UPDATE c APPLY n INCREMENT BY 1.5").contains("Expected 1.5 to be an integer value"));
    assert!(ours.error("UPDATE c SET n.x = 1").contains("Unsupported DML operation on COUNTER field \"n\""));
}

#[test]
fn delete_and_evict() {
    let five =
        json!([{"_id": 1, "v": 5}, {"_id": 2, "v": 4}, {"_id": 3, "v": 3}, {"_id": 4, "v": 2}, {"_id": 5, "v": 1}]);
    let mut store = Store::with(five.clone());
    assert_eq!(
        store.run("DELETE FROM c WHERE v > 1 ORDER BY v LIMIT 2 RETURNING COUNT(*) AS removed"),
        [json!({"removed": 2})]
    );
    assert_eq!(store.run("SELECT _id FROM c ORDER BY _id"), [json!({"_id": 1}), json!({"_id": 2}), json!({"_id": 5})]);
    assert_eq!(store.run("DELETE FROM c USE IDS (1) RETURNING v"), [json!({"v": 5})]);
    let blind = store.mutate("DELETE FROM c WHERE _id = 2", json!({})).unwrap();
    assert!(blind.must_be_unchanged.is_empty());
    assert_eq!(store.run("SELECT COUNT(*) AS n FROM c"), [json!({"n": 1})]);
    assert_eq!(store.documents.len(), 5, "tombstones stay");
    let mut store = Store::with(five);
    assert_eq!(store.run("EVICT FROM c WHERE v < 3 RETURNING _id").len(), 2);
    assert_eq!(store.documents.len(), 3);
}

#[test]
fn returning() {
    let mut store = Store::with(json!([{"_id": 1, "v": 5}]));
    assert_eq!(store.run("INSERT INTO c DOCUMENTS ({'_id': 2, 'v': 7}) RETURNING *"), [json!({"_id": 2, "v": 7})]);
    assert_eq!(
        store.run("UPDATE c SET v = v * 2 RETURNING _id, v"),
        [json!({"_id": 1, "v": 10}), json!({"_id": 2, "v": 14})]
    );
    assert_eq!(store.run("UPDATE c SET v = 0 RETURNING SUM(v) AS s"), [json!({"s": 0})]);
}

#[test]
fn strict_mode() {
    let mut store = Store::strict();
    store.run("INSERT INTO c DOCUMENTS ({'_id': 'r', 'o': {'a': 1, 'b': 2}})");
    store.run("INSERT INTO COLLECTION c (o MAP, n COUNTER) DOCUMENTS ({'_id': 'm', 'o': {'a': 1}, 'n': 5})");
    assert_eq!(all(&mut store), [json!({"_id": "m"}), json!({"_id": "r", "o": {"a": 1, "b": 2}})]);
    assert_eq!(store.run("SELECT o.a FROM c WHERE o.a = 1"), [json!({"a": 1})]);
    assert_eq!(
        store.run("SELECT o.a, n FROM COLLECTION c (o MAP, n COUNTER) WHERE _id = 'm'"),
        [json!({"a": 1, "n": 5})]
    );
    // A register is replaced, a map merges.
    store.run("UPDATE c SET o = {'c': 3} WHERE _id = 'r'");
    assert_eq!(store.run("SELECT o FROM c WHERE _id = 'r'"), [json!({"o": {"c": 3}})]);
    store.run("UPDATE COLLECTION c (o MAP) SET o.c = 3 WHERE _id = 'm'");
    assert_eq!(store.run("SELECT o FROM COLLECTION c (o MAP) WHERE _id = 'm'"), [json!({"o": {"a": 1, "c": 3}})]);
    store.run("UPDATE COLLECTION c (n COUNTER) APPLY n INCREMENT BY 2 WHERE _id = 'm'");
    assert_eq!(store.run("SELECT n FROM COLLECTION c (n COUNTER) WHERE n = 7"), [json!({"n": 7})]);
    assert!(
        store
            .error("UPDATE c SET o.z = 1 WHERE _id = 'r'")
            .contains("Unsupported DML operation on REGISTER field \"o\"")
    );
    assert!(store.error("SELECT * FROM COLLECTION c (o MAP, o COUNTER)").contains("declared twice"));
}

#[test]
fn attachments() {
    let token = json!({"id": "ab".repeat(32), "len": 5, "metadata": {"name": "a.jpg"}});
    for mut store in [Store::new(), Store::strict()] {
        let typed = "COLLECTION c (photo ATTACHMENT)";
        let insert = format!("INSERT INTO {typed} DOCUMENTS (:d)");
        store.run_with(&insert, json!({"d": {"_id": 1, "photo": token}})).unwrap();
        let parts = format!("SELECT photo.id, photo.len, photo.metadata.name FROM {typed} WHERE photo.len < 6");
        assert_eq!(store.run(&parts), [json!({"id": "ab".repeat(32), "len": 5, "name": "a.jpg"})]);
        assert_eq!(store.run(&format!("SELECT photo FROM {typed}")), [json!({"photo": token})]);
        assert!(store.error(&format!("UPDATE {typed} SET photo = 'x'")).contains("expected a token"));
    }
}
