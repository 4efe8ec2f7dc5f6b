//! What may be asked, and what is refused.

use super::*;
use datafusion::execution::session_state::SessionStateBuilder;

fn check(text: &str) -> Result<Statement, ApiError> {
    parse(&SessionStateBuilder::new().build(), text)
}

#[test]
fn queries_are_accepted() {
    for text in [
        "SELECT 1",
        "select 1;",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1), (2)",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "SHOW TABLES",
        "SHOW COLUMNS FROM flights",
        "DESCRIBE flights",
        "SELECT * FROM information_schema.tables",
        "SELECT df_settings FROM df_settings",
    ] {
        check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn everything_else_is_refused_and_named() {
    for (text, what) in [
        ("INSERT INTO t VALUES (1)", "INSERT"),
        ("UPDATE t SET a = 1", "UPDATE"),
        ("DELETE FROM t", "DELETE"),
        ("TRUNCATE TABLE t", "TRUNCATE"),
        ("CREATE TABLE t (a INT)", "CREATE TABLE"),
        ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "CREATE EXTERNAL TABLE"),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE FUNCTION"),
        ("DROP TABLE t", "DROP TABLE"),
        ("ALTER TABLE t ADD COLUMN a INT", "ALTER TABLE"),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
        ("COPY t FROM '/etc/passwd'", "FROM"),
        ("SET datafusion.execution.batch_size = 1", "SET"),
        ("RESET datafusion.execution.batch_size", "RESET"),
        ("SHOW ALL", "SHOW ALL"),
        ("SHOW datafusion.execution.batch_size", "SHOW"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "EXECUTE"),
        ("START TRANSACTION", "START"),
        ("EXPLAIN INSERT INTO t VALUES (1)", "INSERT"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x.csv'", ""),
        ("SELECT * FROM information_schema.df_settings", "df_settings"),
        ("SELECT 1; SELECT 2", "one query at a time"),
        ("SELECT 1; DROP TABLE t", "one query at a time"),
        ("", "empty"),
        (" ; ", "empty"),
        ("-- nothing", ""),
    ] {
        let error = check(text).expect_err(text);
        assert_eq!(error.code, ErrorCode::InvalidStatement, "{text}: {error}");
        assert!(error.message.contains(what), "{text}: {error}");
    }
}

#[test]
fn bad_sql_is_answered_with_its_position() {
    let position = |text: &str| {
        let error = check(text).unwrap_err();
        error.position.map(|position| (position.line, position.column)).unwrap_or_else(|| panic!("{error}"))
    };
    assert_eq!(position("SELECT *\nFROM WHERE 1"), (2, 12));
    assert_eq!(position("SELECT 'open"), (1, 8));
}

#[test]
fn what_would_end_the_stack_is_refused() {
    let chain = format!("SELECT 1{}", " + 1".repeat(5_000));
    let nested = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let unions = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000));
    let nots = format!("SELECT {} true", "NOT ".repeat(5_000));
    let cases = format!("SELECT {} 1 {}", "CASE WHEN true THEN ".repeat(2_000), "END ".repeat(2_000));
    for text in [chain, nested, unions, nots, cases] {
        let error = check(&text).unwrap_err();
        assert!(error.message.contains("deeper"), "{error}");
    }
    let long = format!("SELECT '{}'", "x".repeat(MAX_STATEMENT_BYTES));
    assert_eq!(check(&long).unwrap_err().code, ErrorCode::TooLarge);
    let list = format!("SELECT 1 IN ({}1)", "1, ".repeat(10_000));
    check(&list).unwrap();
}
