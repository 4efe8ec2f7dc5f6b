//! Dates, and what a statement knows of its moment.

use serde_json::{Value as Json, json};

use crate::store::Store;

fn eval(expr: &str) -> Json {
    let mut store =
        Store::with(json!([{"_id": 1, "at": "2024-02-29T23:30:15.250+02:00", "ms": 1_709_242_215_250_i64, "n": null}]));
    let mut row = store.run(&format!("SELECT {expr} AS v FROM c")).remove(0);
    row.get_mut("v").map_or(json!("MISSING"), Json::take)
}

#[test]
fn date_functions() {
    for (expr, expected) in [
        ("date_cast(at)", json!(1_709_242_215_250_i64)),
        ("date_cast('29/02/2024', '%d/%m/%Y')", json!(1_709_164_800_000_i64)),
        ("date_cast('2024-02-29 21:30:15 +0000', '%Y-%m-%d %H:%M:%S %z')", json!(1_709_242_215_000_i64)),
        ("date_cast('nonsense')", json!("MISSING")),
        ("date_cast('2024-02-30', '%Y-%m-%d')", json!("MISSING")),
        ("date_format(ms, '%Y-%m-%d %H:%M')", json!("2024-02-29 21:30")),
        ("date_format(ms, '%Y-%m-%d %H:%M', 'Asia/Tokyo')", json!("2024-03-01 06:30")),
        ("date_format(at, '%B %d, %Y', '-05:00')", json!("February 29, 2024")),
        ("date_format(ms, '%Y', 'No/Where')", json!("MISSING")),
        ("date_format(ms, '%Ä')", json!("MISSING")),
        ("date_format(n, '%Y')", json!(null)),
        ("date_format(nothing, '%Y')", json!("MISSING")),
        ("date_format(true, '%Y')", json!("MISSING")),
        ("date_add(ms, 'year', 1)", json!(1_740_778_215_250_i64)),
        ("date_add(ms, 'month', -1, '%Y-%m-%d')", json!("2024-01-29")),
        ("date_add('2024-01-31T00:00:00Z', 'mon', 1, '%F')", json!("2024-02-29")),
        ("date_add(ms, 90, 'minute')", json!(1_709_247_615_250_i64)),
        ("date_sub(ms, 'day', 1)", json!(1_709_155_815_250_i64)),
        ("date_sub(ms, 'sec', 15)", json!(1_709_242_200_250_i64)),
        ("date_add(ms, 'eon', 1)", json!("MISSING")),
        ("date_add(ms, 'year', 9223372036854775807)", json!("MISSING")),
        // One hour is lost that night, a day is a day of the calendar.
        ("date_add('2024-03-30T12:00:00Z', 'day', 1, '%H:%M', 'Europe/Vienna')", json!("13:00")),
        ("date_diff('2024-03-01T00:00:00Z', '2024-02-28T12:00:00Z', 'day')", json!(1)),
        ("date_diff('2024-02-28T12:00:00Z', '2024-03-01T00:00:00Z', 'hour')", json!(-36)),
        ("date_diff('2026-02-27', '2024-02-28', 'year')", json!(1)),
        ("date_diff('2024-03-30', '2024-01-31', 'month')", json!(1)),
        ("date_diff(ms, at, 'ms')", json!(0)),
        ("date_part(ms, 'year')", json!(2024)),
        ("date_part(ms, 'weekday')", json!(4)),
        ("date_part(ms, 'hour', 'Asia/Tokyo')", json!(6)),
        ("date_part(at, 'hour')", json!(23)),
        ("date_part(at, 'timezone')", json!("+02:00")),
        ("date_part(ms, 'millis')", json!(250)),
        ("date_part(ms, 'monthname')", json!("February")),
        ("date_part(ms, 'doy')", json!(60)),
        ("date_part(ms, 'nothing')", json!("MISSING")),
        ("date_trunc(ms, 'month')", json!(1_706_745_600_000_i64)),
        ("date_trunc(ms, 'day', '%F %T', 'Asia/Tokyo')", json!("2024-03-01 00:00:00")),
        ("date_trunc(ms, 'sec')", json!(1_709_242_215_000_i64)),
        ("date_range('2024-01-31', '2024-05-01', 'month', 1, '%m-%d')", json!(["01-31", "02-29", "03-31", "04-30"])),
        ("date_range(3000, 0, 'second', -1)", json!([3000, 2000, 1000])),
        ("date_range(0, 3000, 'second', 0)", json!([])),
        ("date_range(0, 1000000000, 'ms', 1)", json!("MISSING")),
        ("tz_offset('2024-07-01T00:00:00Z', 'America/New_York')", json!("-04:00")),
        ("tz_offset(at)", json!("+02:00")),
        ("duration_cast('PT1H30M')", json!(5_400_000)),
        ("duration_cast('1h 30m 5ms')", json!(5_400_005)),
        ("duration_cast('1 year')", json!("MISSING")),
        ("duration_format(5400005)", json!("1h 30m 5ms")),
        ("duration_format('x')", json!("MISSING")),
    ] {
        assert_eq!(eval(expr), expected, "{expr}");
    }
}

#[test]
fn a_statement_sees_one_moment() {
    assert_eq!(eval("clock()"), json!(1_767_323_045_000_i64));
    assert_eq!(eval("clock('%Y-%m-%dT%H:%M:%SZ')"), json!("2026-01-02T03:04:05Z"));
    assert_eq!(eval("clock('%H:%M', 'Asia/Tokyo')"), json!("12:04"));
    assert_eq!(eval("date_diff(clock(), ms, 'year')"), json!(1));
    assert_eq!(eval("request_info().app_id"), json!("a"));
    let mut store = Store::new();
    store.run("INSERT INTO c DOCUMENTS ({'_id': 1, 'made': clock()})");
    store.run("UPDATE c SET later = date_add(clock(), 'day', 1) WHERE made <= clock()");
    assert_eq!(store.run("SELECT later - made AS day FROM c"), [json!({"day": 86_400_000})]);
}

#[test]
fn a_subscription_and_a_permission_know_of_no_moment() {
    let bound = bigpeer_dql::parse("SELECT * FROM c WHERE at < clock()").unwrap().bind(
        &bigpeer_crdt::Object::new(),
        bigpeer_dql::Mode::default(),
        &bigpeer_types::SeededIds::new(1),
    );
    assert!(bound.unwrap_err().to_string().contains("clock() is not available here"));
}
