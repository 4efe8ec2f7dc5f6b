//! `bigpeer dql` and `bigpeer sql`: one statement, a script, and a shell on a terminal.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use bigpeer_e2e::Server;
use serde_json::json;

fn ok(server: &Server, args: &[&str], stdin: &str) -> (String, String) {
    let mut child = server
        .client(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{args:?}: {out}{err}");
    (out, err)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_scripts_write_rows_as_they_are_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let script = "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'b;l', 'n': 2.5}), ({'_id': 2, 'color': null});\n\
                  -- a comment; with a semicolon\nSELECT * FROM cars ORDER BY _id;";
    let (out, err) = ok(&server, &["dql"], script);
    assert_eq!(out, "{\"_id\":1,\"color\":\"b;l\",\"n\":2.5}\n{\"_id\":2,\"color\":null}\n");
    assert!(err.contains("2 documents, transaction"), "{err}");

    let select = "SELECT * FROM cars ORDER BY _id";
    for (args, expected) in [
        (vec!["dql", select, "--format", "csv"], "_id,color,n\n1,b;l,2.5\n2,,\n"),
        (
            vec!["dql", select, "--format", "table"],
            "_id │ color │   n\n────┼───────┼────\n  1 │ b;l   │ 2.5\n  2 │ NULL  │\n",
        ),
        (
            vec!["dql", select, "--format", "json"],
            "[{\"_id\":1,\"color\":\"b;l\",\"n\":2.5},{\"_id\":2,\"color\":null}]\n",
        ),
        (vec!["dql", "SELECT n FROM cars WHERE _id = :id", "--args", "{\"id\": 1}"], "{\"n\":2.5}\n"),
        (
            vec!["sql", "SELECT n, color FROM cars WHERE _id = $1", "--params", "[1]", "--format", "table"],
            "  n │ color\n────┼──────\n2.5 │ b;l\n",
        ),
        (vec!["sql", "SELECT color FROM cars WHERE _id = :id", "--params", "{\"id\": 1}"], "{\"color\":\"b;l\"}\n"),
    ] {
        assert_eq!(ok(&server, &args, "").0, expected, "{args:?}");
    }
    let (out, _) = ok(&server, &["sql"], "SELECT 1 AS one; SELECT ';' AS two;");
    assert_eq!(out, "{\"one\":1}\n{\"two\":\";\"}\n");

    // The first that fails ends a script, with its message and exit code 1.
    let mut child =
        server.client(&["dql"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let script = b"DELETE FROM cars WHERE _id = 1; SELECT FROM; DELETE FROM cars;";
    child.stdin.take().unwrap().write_all(script).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1"), "{output:?}");
    assert_eq!(server.dql("SELECT COUNT(*) AS n FROM cars", json!({})).await["items"], json!([{"n": 1}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_completes_names_shows_tables_and_keeps_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    server.dql("INSERT INTO vehicles DOCUMENTS ({'_id': 1, 'registration': 'W 1'})", json!({})).await;
    for language in ["dql", "sql"] {
        let shell = server.client(&[language]);
        let mut script = Command::new("python3");
        script.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/terminal.py"));
        script.arg(shell.get_program()).args(shell.get_args()).env("HOME", dir.path()).env_remove("XDG_STATE_HOME");
        let output = script.env("TERM", "xterm").output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
        let history = dir.path().join(format!(".local/state/bigpeer/{language}_history"));
        assert!(std::fs::read_to_string(&history).unwrap().contains("registration"), "{shown}");
        assert_eq!(history.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
