//! All flights, counted and summed by every way out: DQL, SQL, DuckDB over the Parquet files, and a Small Peer that
//! subscribed to everything.

use bigpeer_e2e::{Flights, Server, python};
use serde_json::{Value, json};

const DQL: &str = "SELECT COUNT(*) AS flights, SUM(distance) AS distance FROM flights";
const SQL: &str = "SELECT count(*) AS flights, sum(distance) AS distance FROM flights";

fn number(row: &Value, field: &str) -> i64 {
    let value = &row[field];
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
        .unwrap_or_else(|| panic!("{field}: {row}"))
}

#[track_caller]
fn assert_all(source: &str, row: &Value, distance: i64) {
    assert_eq!(number(row, "flights"), i64::try_from(Flights::COUNT).unwrap(), "{source}");
    assert_eq!(number(row, "distance"), distance, "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_out_gives_the_same_flights() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data")).await;
    let flights = Flights::get();
    let distance = flights.distance_sum();

    let imported = server.command(&[
        "import",
        "--collection",
        "flights",
        "--id",
        "id",
        "--null",
        "NA",
        flights.csv("flights").to_str().unwrap(),
    ]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));

    assert_all("DQL", &server.dql(DQL, json!({})).await["items"][0], distance);
    assert_all("SQL", &server.sql(SQL).await[0], distance);

    let store = dir.path().join("peer");
    let peer = |args: &[&str]| {
        let mut all = vec!["peer", "--store", store.to_str().unwrap()];
        all.extend(args);
        let output = server.command(&all);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    peer(&["subscribe", "SELECT * FROM flights"]);
    peer(&["sync"]);
    let rows: Value = serde_json::from_str(peer(&["query", DQL]).lines().next().unwrap()).unwrap();
    assert_all("peer", &rows, distance);

    // A restart does not change what is seen, and a graceful end leaves everything in Parquet.
    server.restart().await;
    assert_all("SQL after kill -9", &server.sql(SQL).await[0], distance);
    flush(&server).await;
    assert_all("SQL after a flush", &server.sql(SQL).await[0], distance);
    assert_all("DQL from columns", &server.dql(DQL, json!({})).await["items"][0], distance);
    let of_columns = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
    assert!(of_columns.contains("bigpeer_dql_scans_total{from=\"columns\"} 1"), "columns answered");
    from_columns(&server).await;
    let app = server.credentials().app;
    let rows: Value = serde_json::from_str(&python(
        "scripts/duckdb_over_parquet.py",
        &[server.data_dir().to_str().unwrap(), &app, SQL],
    ))
    .unwrap();
    assert_all("DuckDB", &rows[0], distance);
    assert!(server.terminate(), "{}", server.log());
}

/// What columns answer to DQL is what they answer to SQL.
async fn from_columns(server: &Server) {
    for (dql, sql) in [
        (
            "SELECT carrier, COUNT(*) AS n, MAX(dep_delay) AS m FROM flights WHERE origin = 'JFK' GROUP BY carrier ORDER BY carrier",
            "SELECT carrier, count(*) AS n, max(dep_delay) AS m FROM flights WHERE origin = 'JFK' GROUP BY carrier ORDER BY carrier",
        ),
        ("SELECT DISTINCT origin FROM flights ORDER BY origin", "SELECT DISTINCT origin FROM flights ORDER BY origin"),
        (
            "SELECT _id, tailnum FROM flights WHERE dep_delay > 800 ORDER BY _id",
            "SELECT _id, tailnum FROM flights WHERE dep_delay > 800 ORDER BY _id",
        ),
        (
            "SELECT _id FROM flights WHERE dep_delay > 0 ORDER BY dep_delay DESC, _id LIMIT 5",
            "SELECT _id FROM flights WHERE dep_delay > 0 ORDER BY dep_delay DESC, _id LIMIT 5",
        ),
    ] {
        let rows = server.dql(dql, json!({})).await["items"].clone();
        assert_eq!(rows, Value::Array(server.sql(sql).await), "{dql}");
    }
}

/// Folds everything into Parquet now.
async fn flush(server: &Server) {
    let credentials = server.credentials();
    let (status, answer) = server
        .post_as(&credentials.admin_token, &format!("/admin/v1/apps/{}/compact", credentials.app), &json!({}))
        .await;
    assert_eq!(status, 200, "{answer}");
}
