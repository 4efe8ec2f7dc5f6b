//! What is not about documents: SHOW, ADVISE, PROFILE, advice to planners, the older form of SET, what is refused and how.

use bigpeer_crdt::Value;
use bigpeer_dql::Plan;
use serde_json::json;

use crate::store::Store;

#[test]
fn show() {
    let mut store = Store::new();
    assert_eq!(store.run("SHOW dql_strict_mode"), [json!({"DQL_STRICT_MODE": false})]);
    assert_eq!(Store::strict().run("SHOW DQL_STRICT_MODE"), [json!({"DQL_STRICT_MODE": true})]);
    assert_eq!(store.run("SHOW ALL LIKE 'document%'"), [json!({"DOCUMENT_SIZE_HARD_LIMIT_BYTES": 5_242_880})]);
    assert_eq!(store.run("SHOW ALL ILIKE '%STRICT_%'").len(), 1);
    assert!(store.error("SHOW nonsense").starts_with("unknown parameter 'nonsense'"));
}

#[test]
fn alter_system_is_content_with_what_holds() {
    for (mut store, strict) in [(Store::new(), "false"), (Store::strict(), "true")] {
        for text in [
            format!("ALTER SYSTEM SET DQL_STRICT_MODE = {strict}"),
            format!("alter system set dql_strict_mode to {strict}"),
            "ALTER SYSTEM SET dql_restrict_subscriptions = DEFAULT".to_owned(),
            "ALTER SYSTEM RESET DQL_STRICT_MODE".to_owned(),
            "ALTER SYSTEM RESET ALL".to_owned(),
        ] {
            assert!(store.run(&text).is_empty(), "{text}");
        }
    }
}

#[test]
fn advise_and_profile() {
    let mut store = Store::with(json!([{"_id": 1, "x": 1}, {"_id": 2, "x": 2}, {"_id": 3, "x": 2}]));
    let outcome = |store: &mut Store, text: &str| store.run(text)[0]["advice"]["outcome"].clone();
    assert_eq!(outcome(&mut store, "ADVISE SELECT * FROM c WHERE x = 1"), "optimal indexes already exist");
    assert_eq!(outcome(&mut store, "ADVISE SELECT * FROM c"), "no keys to advise on");
    assert_eq!(outcome(&mut store, "ADVISE INSERT INTO c DOCUMENTS ({})"), "no advice available for statement");
    assert!(store.error("ADVISE AND PROVISION SELECT * FROM c").contains("Unsupported feature"));
    let rows = store.run("PROFILE SELECT _id FROM c WHERE x = 2");
    assert_eq!((rows.len(), &rows[0]), (3, &json!({"_id": 2})));
    assert_eq!(rows[2]["~request_profile"]["#stats"], json!({"documentsIn": 3, "documentsOut": 2}));
    assert!(store.error("PROFILE DELETE FROM c").contains("PROFILE takes a SELECT"));
}

#[test]
fn advice_to_a_planner_is_read_and_not_followed() {
    let mut store = Store::with(json!([{"_id": 1, "x": 1}]));
    for text in [
        "SELECT x FROM c USE INDEX 'by_x' WHERE x = 1",
        "SELECT c.x FROM c AS c USE INDEX '' WHERE x = 1",
        "SELECT /*+ anything */ x FROM c --+ at all\n WHERE x = 1",
        "SELECT x FROM c USE DIRECTIVES {'#max_joins': 3} WHERE x = 1",
        "SELECT a.x FROM c a JOIN c b USE INDEX 'y' ON a._id = b._id",
    ] {
        assert_eq!(store.run(text), [json!({"x": 1})], "{text}");
    }
}

#[test]
fn the_older_form_of_set() {
    let mut store = Store::with(json!([{"_id": 1, "a": 1, "b": 2, "m": {"x": 1, "y": 2, "z": {"p": 1}}}]));
    store.run(
        "UPDATE c SET a -> tombstone(), b -> default(), m -> (x = 5, y -> tombstone(), z -> (q = 7)) WHERE _id = 1",
    );
    assert_eq!(store.run("SELECT * FROM c"), [json!({"_id": 1, "b": null, "m": {"x": 5, "z": {"p": 1, "q": 7}}})]);
    store.run("UPDATE COLLECTION c (m MAP, n COUNTER) SET m -> default(), n -> default()");
    assert_eq!(store.run("SELECT n, m.x FROM c"), [json!({"n": 0, "x": 5})]);
    assert!(store.error("UPDATE COLLECTION c (f ATTACHMENT) SET f -> default()").contains("no default"));
    assert!(store.error("UPDATE c SET f -> other()").contains("Unknown function 'other' after ->"));
}

#[test]
fn what_is_not_here_is_refused_with_its_place_and_a_way_out() {
    let mut store = Store::new();
    for (text, expected, hint) in [
        ("CREATE INDEX IF NOT EXISTS i ON c (x)", "CREATE INDEX and DROP INDEX (line 1, column 1)", "leave it out"),
        ("DROP INDEX i ON c", "CREATE INDEX and DROP INDEX", "leave it out"),
        ("ALTER SYSTEM SET DQL_STRICT_MODE = true", "DQL_STRICT_MODE is false here", "/api/v5"),
        ("ALTER SYSTEM SET speed TO 5", "unknown parameter 'speed'", "SHOW ALL"),
        ("ALTER SYSTEM RESET speed", "unknown parameter 'speed'", "SHOW ALL"),
        ("ALTER SYSTEM SET DQL_STRICT_MODE = x", "takes a value, or DEFAULT (line 1, column 36)", ""),
        ("ALTER TABLE c", "Expected a statement", "ALTER SYSTEM SET"),
        ("SYNC CONTEXT (PEERS WHERE true) SELECT * FROM c", "SYNC CONTEXT", "not on devices"),
        ("UPSERT INTO c", "Expected a statement", "ON ID CONFLICT DO UPDATE"),
        ("BEGIN TRANSACTION", "Expected a statement", "together"),
        ("hello", "Expected a statement, found 'hello' (line 1, column 1)", "begins with SELECT"),
        ("SELECT sqrt(x) FROM c", "Unknown function 'sqrt' (line 1, column 8)", "docs/dql.md"),
    ] {
        let error = store.error(text);
        assert!(error.contains(expected) && error.contains(hint), "{text}: {error}");
    }
}

#[test]
fn rows_of_virtual_collections_are_pushed() {
    let store = Store::new();
    let Plan::Select(plan) = store.bind("SELECT name FROM system:collections WHERE count > 1", json!({})).unwrap()
    else {
        panic!()
    };
    assert_eq!(plan.collection().as_str(), "system:collections");
    let mut run = plan.run();
    for (name, count) in [("a", 1), ("b", 2)] {
        let row = [("name", Value::from(name)), ("count", Value::from(count))].into_iter().collect();
        run.push_row(&row).unwrap();
    }
    assert_eq!(run.finish().unwrap()[0].to_json(), json!({"name": "b"}));
}
