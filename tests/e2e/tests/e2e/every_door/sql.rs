//! The doors to SQL: HTTP, PostgreSQL's protocol, Arrow Flight SQL. The same questions at each, of now and of the past, with the
//! rows that the model expects.

use serde_json::{Value as Json, json};

use super::history::{Documents, Stored, mark_of, marks};
use super::http::escaped;
use super::look::Look;
use super::{flight, postgres};

/// A row as text, whatever door it came from; none is NULL.
pub(super) type Row = Vec<Option<String>>;

/// A question whose columns are `c0`, `c1`, …, and its rows.
struct Question {
    sql: String,
    columns: usize,
    rows: Vec<Row>,
}

pub(super) fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other @ (Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => Some(other.to_string()),
    }
}

/// A row object's columns in their order.
pub(super) fn row(object: &Json, columns: usize) -> Row {
    (0..columns).map(|at| text(&object[format!("c{at}")])).collect()
}

fn question(sql: impl Into<String>, columns: usize, rows: Vec<Vec<Json>>) -> Question {
    let mut rows: Vec<Row> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    rows.sort();
    Question { sql: sql.into(), columns, rows }
}

/// The questions about what is seen of documents, where they stand in `table`.
fn about(look: &Look<'_>, table: &str, documents: &Documents) -> Vec<Question> {
    let seen = look.view().of(documents);
    let mut questions = of_rows(&seen, table);
    questions.extend(of_sums(&seen, table));
    questions
}

fn of_rows(seen: &[&Stored], table: &str) -> Vec<Question> {
    let each = |fields: &[&str]| -> Vec<Vec<Json>> {
        seen.iter().map(|stored| fields.iter().map(|field| stored.json[*field].clone()).collect()).collect()
    };
    let transactions = seen.iter().map(|stored| vec![stored.json["_id"].clone(), stored.transaction.into()]);
    let mut latest = seen.to_vec();
    latest.sort_by_key(|stored| std::cmp::Reverse(stored.json["num"].as_u64()));
    let latest = latest.iter().take(2).map(|stored| vec![stored.json["mark"].clone()]);
    let placed = format!("SELECT mark, row_number() OVER (ORDER BY num DESC) AS place FROM {table}");
    vec![
        question(format!("SELECT _id AS c0, mark AS c1 FROM {table}"), 2, each(&["_id", "mark"])),
        question(format!("SELECT _id AS c0, _transaction AS c1 FROM {table}"), 2, transactions.collect()),
        question(format!("SELECT mark AS c0 FROM ({placed}) AS t WHERE place <= 2"), 1, latest.collect()),
        question(
            format!("WITH v AS (SELECT mark AS c0 FROM {table}) SELECT c0 FROM v UNION SELECT mark FROM {table}"),
            1,
            each(&["mark"]),
        ),
    ]
}

fn of_sums(seen: &[&Stored], table: &str) -> Vec<Question> {
    let numbers: Vec<u64> = seen.iter().map(|stored| stored.json["num"].as_u64().unwrap()).collect();
    let marks: Vec<String> = seen.iter().map(|stored| mark_of(&stored.json)).collect();
    let transactions: Vec<u64> = seen.iter().map(|stored| stored.transaction).collect();
    let sum = (!numbers.is_empty()).then(|| numbers.iter().sum::<u64>());
    let count = seen.len();
    let with_a = seen.iter().filter(|stored| !stored.json["a"].is_null()).count();
    let columns = "min(mark) AS c0, max(mark) AS c1, sum(num) AS c2, min(num) AS c3, max(num) AS c4, count(a) AS c5";
    let values = [json!(marks.iter().min()), json!(marks.iter().max()), json!(sum)];
    let more = [json!(numbers.iter().min()), json!(numbers.iter().max()), json!(with_a)];
    let ends = vec![json!(transactions.iter().min()), json!(transactions.iter().max())];
    let one = |number: usize| vec![vec![json!(number)]];
    vec![
        question(format!("SELECT count(*) AS c0 FROM {table}"), 1, one(count)),
        question(format!("SELECT {columns} FROM {table}"), 6, vec![values.into_iter().chain(more).collect()]),
        question(format!("SELECT min(_transaction) AS c0, max(_transaction) AS c1 FROM {table}"), 2, vec![ends]),
        question(
            format!("SELECT count(*) AS c0 FROM {table} AS x JOIN {table} AS y ON x.num <= y.num"),
            1,
            one(count * (count + 1) / 2),
        ),
        question(
            format!("SELECT count(d.mark) AS c0 FROM beat AS b LEFT JOIN {table} AS d ON d.num > 0"),
            1,
            one(count),
        ),
    ]
}

/// Questions that try to learn something of a document that must not be seen, or name ids.
fn of_one(look: &Look<'_>) -> Vec<Question> {
    let mut questions = Vec::new();
    for (id, stored) in &look.history.documents {
        if !look.chance.one_in(4) {
            continue;
        }
        let rows = if look.view().allows(&stored.json) { vec![vec![stored.json["mark"].clone()]] } else { Vec::new() };
        questions.push(question(format!("SELECT mark AS c0 FROM docs WHERE _id = '{id}'"), 1, rows.clone()));
        questions.push(question(format!("SELECT mark AS c0 FROM docs WHERE num = {}", stored.json["num"]), 1, rows));
    }
    if let Some(forbidden) = look.forbidden() {
        let (mark, number) = (&forbidden.json["mark"], &forbidden.json["num"]);
        let all: Vec<Vec<Json>> = look.seen().iter().map(|stored| vec![stored.json["_id"].clone()]).collect();
        // It would fail if it looked at that document.
        let divided = format!("SELECT _id AS c0 FROM docs WHERE 1000 / (num - {number}) IS NOT NULL");
        questions.push(question(divided, 1, all));
        let exists = format!(
            "SELECT _id AS c0 FROM beat WHERE EXISTS (SELECT 1 FROM docs WHERE mark = '{}')",
            mark.as_str().unwrap()
        );
        questions.push(question(exists, 1, Vec::new()));
    }
    questions
}

impl Look<'_> {
    pub(super) async fn sql(&self) {
        let tables = "SELECT table_name AS c0 FROM information_schema.tables WHERE table_schema <> 'information_schema' \
                      AND table_schema <> 'pg_catalog'";
        let mut names = vec![vec![json!("beat")]];
        if !self.view().is_nothing() {
            names.push(vec![json!("docs")]);
        }
        let mut questions = vec![question(tables, 1, names)];
        let (then, past) = self.moment();
        if !self.view().is_nothing() {
            questions.extend(about(self, "docs", &self.history.documents));
            questions.extend(of_one(self));
            let mut before = about(self, &format!("as_of_{then}.docs"), past);
            questions.push(before.swap_remove(0));
            questions.push(before.swap_remove(self.chance.below(before.len())));
        }
        for question in &questions {
            self.over_http(question, None).await;
        }
        self.other_doors(&questions, None).await;
        self.closed_or_plain().await;
        if self.view().is_nothing() {
            return;
        }
        let questions = about(self, "docs", past);
        let some: Vec<Question> = questions.into_iter().filter(|_| self.chance.one_in(3)).collect();
        for question in &some {
            self.over_http(question, Some(then)).await;
        }
        self.other_doors(&some, Some(then)).await;
        self.formats().await;
    }

    fn judge(&self, door: &str, question: &Question, rows: Result<Vec<Row>, String>) {
        let at = || self.at(&format!("{door}: {}", question.sql));
        let mut rows = rows.unwrap_or_else(|error| panic!("{}: {error}", at()));
        rows.sort();
        assert!(rows == question.rows, "{}\n  answers  {rows:?}\n  expected {:?}", at(), question.rows);
    }

    async fn over_http(&self, question: &Question, as_of: Option<u64>) {
        let body = json!({"query": question.sql, "format": "json", "as_of": as_of});
        let answer = self.world.post(&self.caller.credential, &format!("/{}/sql", self.app.id), &body).await;
        let rows = match answer.status {
            200 => Ok(answer.json().as_array().unwrap().iter().map(|object| row(object, question.columns)).collect()),
            status => Err(format!("{status} {}", answer.text())),
        };
        self.judge("SQL over HTTP", question, rows);
    }

    /// Some of the questions at the two other doors.
    async fn other_doors(&self, questions: &[Question], as_of: Option<u64>) {
        let mut pg = postgres::Session::open(&self.world.pg, &self.app.id, &self.caller.credential).await;
        if let Some(as_of) = as_of {
            pg.query(&format!("SET bigpeer.as_of = {as_of}")).await.unwrap();
        }
        let mut flight = flight::client(&self.world.flight, &self.app.id, &self.caller.credential, as_of).await;
        for question in questions {
            if self.chance.one_in(3) {
                let prepared = self.chance.one_in(2);
                let rows = if prepared { pg.prepared(&question.sql).await } else { pg.query(&question.sql).await };
                self.judge("PostgreSQL's protocol", question, rows);
            }
            if self.chance.one_in(3) {
                let rows = flight::query(&mut flight, &question.sql, question.columns, self.chance.one_in(2)).await;
                self.judge("Flight SQL", question, rows);
            }
        }
    }

    /// Collections without a rule, and plans.
    async fn closed_or_plain(&self) {
        let path = format!("/{}/sql", self.app.id);
        let mut closed = vec!["SELECT * FROM hidden", "SELECT * FROM __devices", "SELECT count(*) FROM __rejections"];
        if self.view().is_nothing() {
            closed.push("SELECT count(*) FROM docs");
        }
        for query in closed {
            let answer = self.world.post(&self.caller.credential, &path, &json!({"query": query})).await;
            assert_eq!(answer.status, 400, "{}: {}", self.at(query), answer.text());
            assert!(marks(&answer.body).is_empty(), "{}: {}", self.at(query), answer.text());
        }
        if self.view().is_nothing() {
            return;
        }
        for query in
            ["EXPLAIN SELECT * FROM docs WHERE num > 1", "SHOW COLUMNS FROM docs", "EXPLAIN SELECT min(mark) FROM docs"]
        {
            let answer = self.world.post(&self.caller.credential, &path, &json!({"query": query})).await;
            assert_eq!(answer.status, 200, "{}: {}", self.at(query), answer.text());
            self.leaks_nothing(query, &answer.body);
        }
    }

    /// What can be read as text shows the same in each format.
    async fn formats(&self) {
        let query = escaped("SELECT * FROM docs");
        for format in ["ndjson", "csv", "arrow"] {
            let path = format!("/{}/sql?q={query}&format={format}", self.app.id);
            let answer = self.world.get(&self.caller.credential, &path, "*/*").await;
            assert_eq!(answer.status, 200, "{}: {}", self.at(format), answer.text());
            self.shows(&format!("SQL as {format}"), &answer.body, &self.seen());
        }
    }

    /// `bigpeer export` with the caller's credential.
    pub(super) async fn export(&self) {
        let to = self.world.dir.path().join(format!("export-{}.ndjson", self.app.id));
        let mut command = std::process::Command::new(bigpeer_e2e::binary());
        command.args(["export", "--collection", "docs", "--url", &self.world.server.url(), "--app", &self.app.id]);
        command.env("BIGPEER_API_KEY", &self.caller.credential).arg(&to);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), !self.view().is_nothing(), "{}: {said}", self.at("export"));
        let seen: Vec<&Stored> = self.seen();
        let exported = std::fs::read(&to).unwrap_or_default();
        self.shows("export", &exported, &seen);
        let _gone = std::fs::remove_file(&to);
    }
}
