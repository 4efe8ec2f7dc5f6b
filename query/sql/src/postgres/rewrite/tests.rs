//! What clients of PostgreSQL write, and what becomes of it.

use super::*;
use datafusion::sql::parser::DFParser;

fn rewritten(text: &str) -> String {
    let mut statements = DFParser::parse_sql_with_dialect(text, &PostgreSqlDialect {}).unwrap();
    let mut statement = statements.pop_front().unwrap();
    rewrite(&mut statement, "app");
    statement.to_string()
}

#[test]
fn words_of_postgresql_become_the_planners() {
    for (text, expected) in [
        ("SELECT relname FROM pg_class", "SELECT relname FROM pg_catalog.pg_class"),
        ("SELECT x FROM PG_CATALOG.Pg_Class", "SELECT x FROM pg_catalog.pg_class"),
        ("SELECT x FROM flights", "SELECT x FROM flights"),
        ("SELECT a OPERATOR(pg_catalog.~) 'b' COLLATE pg_catalog.default", "SELECT a ~ 'b'"),
        ("SELECT pg_catalog.lower(x)", "SELECT lower(x)"),
        ("SELECT x::pg_catalog.text, y::name", "SELECT x::VARCHAR, y::VARCHAR"),
        ("SELECT k = ANY (ARRAY['r', 'p']) FROM c", "SELECT k IN ('r', 'p') FROM c"),
        (
            "SELECT x LIKE 'pg/_%' ESCAPE '/' FROM c",
            "SELECT x LIKE (replace(replace('pg/_%', '\\', '\\\\'), '/', '\\')) FROM c",
        ),
        (
            "SELECT (SELECT typlen FROM pg_type WHERE oid = x) FROM c",
            "SELECT (SELECT (max(typlen)) FROM pg_catalog.pg_type WHERE oid = x) FROM c",
        ),
        ("SELECT (SELECT y FROM d) FROM c", "SELECT (SELECT y FROM d) FROM c"),
        ("SELECT k = ANY ('{r,p}'::\"char\"[]) FROM c", "SELECT k IN ('r', 'p') FROM c"),
        ("SELECT 'int8'::regtype", "SELECT (CAST(20 AS BIGINT))"),
        ("SELECT current_database()", "SELECT ('app')"),
        ("SELECT current_user", "SELECT ('bigpeer')"),
        ("SELECT Current_Schema, \"current_schema\" FROM c", "SELECT ('public'), \"current_schema\" FROM c"),
        ("SELECT * FROM c FOR UPDATE", "SELECT * FROM c"),
    ] {
        assert_eq!(rewritten(text), expected, "{text}");
    }
}

#[test]
fn what_can_have_no_rows_is_not_planned() {
    for (text, expected) in [
        (
            "SELECT pol.polname, a || b FROM pg_catalog.pg_policy pol WHERE x",
            "SELECT NULL AS \"polname\", NULL AS \"?column?\" WHERE false",
        ),
        ("SELECT a AS x FROM pg_class c, pg_inherits i", "SELECT NULL AS \"x\" WHERE false"),
        (
            "SELECT a, (SELECT string_agg(b, ',') FROM c) FROM pg_publication p",
            "SELECT NULL AS \"a\", NULL AS \"?column?\" WHERE false",
        ),
        ("SELECT a FROM pg_class c JOIN pg_index i ON c.oid = i.indrelid", "SELECT NULL AS \"a\" WHERE false"),
        ("SELECT a FROM pg_publication UNION SELECT b FROM pg_publication_rel", "SELECT NULL AS \"a\" WHERE false"),
        (
            "SELECT (SELECT d FROM pg_attrdef WHERE x = y), EXISTS (SELECT 1 FROM pg_index) FROM c",
            "SELECT NULL, false FROM c",
        ),
    ] {
        assert_eq!(rewritten(text), expected, "{text}");
    }
}

#[test]
fn what_may_have_rows_is_planned() {
    for text in [
        "SELECT count(*) FROM pg_catalog.pg_index",
        "SELECT a FROM c LEFT JOIN pg_catalog.pg_description AS d ON true",
        "SELECT a FROM pg_catalog.pg_index RIGHT JOIN c ON true",
        "SELECT a FROM c UNION SELECT b FROM pg_catalog.pg_index",
    ] {
        let text = rewritten(text);
        assert!(!text.contains("WHERE false"), "{text}");
    }
}
