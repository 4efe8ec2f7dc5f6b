//! NULL and MISSING: the table of the reference, and the operators.

use serde_json::{Value as Json, json};

use crate::store::Store;

/// Which of true, false, null, missing (documents 1 to 4) a condition keeps.
fn kept(condition: &str) -> Vec<i64> {
    let mut store =
        Store::with(json!([{"_id": 1, "f": true}, {"_id": 2, "f": false}, {"_id": 3, "f": null}, {"_id": 4}]));
    let rows = store.run(&format!("SELECT _id FROM c WHERE {condition} ORDER BY _id"));
    rows.iter().map(|row| row["_id"].as_i64().unwrap()).collect()
}

#[test]
fn the_table_of_null_and_missing() {
    for (condition, expected) in [
        ("f = false", vec![2]),
        ("f != true", vec![2]),
        ("NOT f", vec![2]),
        ("coalesce(f, false) = false", vec![2, 3, 4]),
        ("f IS NULL", vec![3]),
        ("f IS NOT NULL", vec![1, 2, 4]),
        ("f IS MISSING", vec![4]),
        ("f IS NOT MISSING", vec![1, 2, 3]),
        ("f IS UNKNOWN", vec![3]),
        ("f IS NOT UNKNOWN", vec![1, 2, 4]),
        ("f", vec![1]),
        ("f = null", vec![]),
        ("f = 1 OR f != 1", vec![]),
        ("f IN (true, 1)", vec![1]),
        ("f NOT IN (true, 1)", vec![2]),
        ("f NOT IN (true, null)", vec![]),
        ("f BETWEEN false AND true", vec![1, 2]),
        ("f NOT BETWEEN false AND false", vec![1]),
        ("ismissingornull(f)", vec![3, 4]),
    ] {
        assert_eq!(kept(condition), expected, "{condition}");
    }
}

/// The value of an expression on a document; "MISSING" when it is.
fn eval(expr: &str) -> Json {
    let document =
        json!({"_id": "x", "i": 7, "f": 2.5, "s": "text", "b": true, "n": null, "a": [1, 2, 3], "o": {"k": {"l": 1}}});
    let mut store = Store::with(json!([document]));
    let rows = store.run(&format!("SELECT {expr} AS r FROM c"));
    rows[0].get("r").cloned().unwrap_or_else(|| json!("MISSING"))
}

#[test]
fn logic_has_three_values_and_missing() {
    for (expr, expected) in [
        ("NOT null", json!(null)),
        ("true AND null", json!(null)),
        ("false AND null", json!(false)),
        ("true OR null", json!(true)),
        ("false OR null", json!(null)),
        ("NOT MISSING", json!("MISSING")),
        ("MISSING AND false", json!(false)),
        ("MISSING AND true", json!("MISSING")),
        ("MISSING OR true", json!(true)),
        ("i = 's'", json!("MISSING")),
        ("i != 's'", json!("MISSING")),
        ("i = 7.0", json!(true)),
        ("n = 7", json!(null)),
        ("9007199254740993 = 9007199254740992.0", json!(false)),
        ("1 IN ('a', 1.0)", json!(true)),
        ("1 IN ('a')", json!(false)),
        ("1 NOT IN ('a')", json!(true)),
        ("2 IN a", json!(true)),
        ("5 IN a", json!(false)),
        ("5 IN n", json!(null)),
        ("5 IN i", json!("MISSING")),
        ("[1, 'a'] = [1.0, 'a']", json!(true)),
        ("o = {'k': {'l': 1.0}}", json!(true)),
    ] {
        assert_eq!(eval(expr), expected, "{expr}");
    }
}

#[test]
fn operators_and_functions() {
    for (expr, expected) in [
        ("i + 1", json!(8)),
        ("i / 2", json!(3)),
        ("i / 2.0", json!(3.5)),
        ("i % 4", json!(3)),
        ("-i", json!(-7)),
        ("1 + 2 * 3", json!(7)),
        ("(1 + 2) * 3", json!(9)),
        ("i + s", json!("MISSING")),
        ("i + n", json!(null)),
        ("i / 0", json!(null)),
        ("abs(-2)", json!(2)),
        ("ceil(f)", json!(3.0)),
        ("floor(f)", json!(2.0)),
        ("s || '!' || i", json!("text!7")),
        ("concat('a', 'b')", json!("ab")),
        ("starts_with(s, 'te')", json!(true)),
        ("ends_with(s, 'x')", json!(false)),
        ("contains(s, 'ex')", json!(true)),
        ("contains(i, 'ex')", json!("MISSING")),
        ("contains(n, 'ex')", json!(null)),
        ("s LIKE 't%t'", json!(true)),
        ("s NOT LIKE 't_'", json!(true)),
        ("s ILIKE 'TE%'", json!(true)),
        ("s SIMILAR TO '(text|word)'", json!(true)),
        ("i LIKE 'a'", json!("MISSING")),
        ("s LIKE s", json!(true)),
        ("regexp_like(s, 'e.t')", json!(true)),
        ("regexp_like(s, 'E.T', 'i')", json!(true)),
        ("char_length('größe')", json!(5)),
        ("byte_length('größe')", json!(7)),
        ("lower('ABC')", json!("abc")),
        ("upper('abc')", json!("ABC")),
        ("substr(s, 1, 2)", json!("ex")),
        ("substr(s, 1)", json!("ext")),
        ("pos(s, 'x')", json!(2)),
        ("position('x' IN s)", json!(2)),
        ("pos(s, 'q')", json!(-1)),
        ("split('a,b', ',')", json!(["a", "b"])),
        ("joinstr('-', 'a', ['b', 'c'])", json!("a-b-c")),
        ("`trim`('  a ')", json!("a")),
        ("TRIM(BOTH 'x' FROM 'xaxx')", json!("a")),
        ("ltrim('xxa', 'x')", json!("a")),
        ("lpad('7', 3, '0')", json!("007")),
        ("rpad('7', 3)", json!("7  ")),
        ("repeat('ab', 3)", json!("ababab")),
        ("coalesce(z, n, 5)", json!(5)),
        ("coalesce(z, n)", json!(null)),
        ("nvl(n, 1)", json!(1)),
        ("nvl(i, 1, 2)", json!(1)),
        ("nvl(z, 1, 2)", json!(2)),
        ("ifnull(n, 3)", json!(3)),
        ("ifmissing(z, n)", json!(null)),
        ("nullif(i, 7)", json!(null)),
        ("missingif(i, 7)", json!("MISSING")),
        ("decode(i, 6, 'six', 7, 'seven', 'other')", json!("seven")),
        ("decode(z, 6, 'six', 'other')", json!("other")),
        ("CASE WHEN i > 5 THEN 'big' ELSE 'small' END", json!("big")),
        ("CASE i WHEN 1 THEN 'one' END", json!(null)),
        ("CASE i WHEN 7 THEN 'seven' ELSE 0 END", json!("seven")),
        ("type(i)", json!("integer")),
        ("type(f)", json!("float")),
        ("type(z)", json!("missing")),
        ("type(o)", json!("object")),
        ("json_type(i)", json!("number")),
        ("is_string(s)", json!(true)),
        ("is_number(s)", json!(false)),
        ("CAST('12' AS INTEGER)", json!(12)),
        ("CAST(f AS INTEGER)", json!(2)),
        ("CAST(i AS STRING)", json!("7")),
        ("CAST('x' AS INTEGER)", json!("MISSING")),
        ("CAST('true' AS BOOLEAN)", json!(true)),
        ("CAST(i AS FLOAT)", json!(7.0)),
        ("object_keys(o)", json!(["k"])),
        ("object_values({'a': 1})", json!([1])),
        ("object_length(o)", json!(1)),
        ("object_set({'a': 1}, 'b', 2)", json!({"a": 1, "b": 2})),
        ("object_set({'a': 1}, 'a', 2, false)", json!({"a": 1})),
        ("object_unset({'a': 1}, 'a')", json!({})),
        ("object_concat({'a': 1}, {'b': 2})", json!({"a": 1, "b": 2})),
        ("object_rename({'a': 1}, 'a', 'b')", json!({"b": 1})),
        ("array_contains(a, 2)", json!(true)),
        ("array_contains_null([null])", json!(true)),
        ("array_length(a)", json!(3)),
        ("a[0]", json!(1)),
        ("a[-1]", json!(3)),
        ("a[9]", json!("MISSING")),
        ("o.k.l", json!(1)),
        ("o['k'].l", json!(1)),
        ("(o).k", json!({"l": 1})),
        ("ANY v IN a SATISFIES v > 2 END", json!(true)),
        ("EVERY v IN a SATISFIES v > 2 END", json!(false)),
        ("EVERY v IN [] SATISFIES v > 2 END", json!(true)),
        ("ANY AND EVERY v IN [] SATISFIES v END", json!(false)),
        ("ANY p: v IN a SATISFIES p = 2 AND v = 3 END", json!(true)),
        ("ANY v WITHIN o SATISFIES v = 1 END", json!(true)),
        ("ANY v IN i SATISFIES true END", json!("MISSING")),
        ("ARRAY v * 2 FOR v IN a WHEN v > 1 END", json!([4, 6])),
        ("OBJECT 'k' || v : v FOR v IN a END", json!({"k1": 1, "k2": 2, "k3": 3})),
        ("ARRAY (ANY w IN a SATISFIES w = v + 2 END) FOR v IN a END", json!([true, false, false])),
        ("serialize_json(a)", json!("[1,2,3]")),
        ("deserialize_json('{\"a\": 1}')", json!({"a": 1})),
        ("deserialize_json('{')", json!("MISSING")),
        ("[i, z]", json!([7, null])),
        ("{'i': i, 'z': z}", json!({"i": 7})),
        ("c.i", json!(7)),
        ("0xFF", json!(255)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551615", json!(u64::MAX)),
    ] {
        assert_eq!(eval(expr), expected, "{expr}");
    }
}
