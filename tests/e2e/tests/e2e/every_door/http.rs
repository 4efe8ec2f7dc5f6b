//! The doors of the data API: statements, transactions, the older endpoints, system collections, attachments.

use reqwest::Method;
use serde_json::{Value as Json, json};

use super::history::{Change, History, Stored, id_of, mark_of};
use super::look::Look;
use super::rules::Condition;

/// Text as a part of a URL's query.
pub(super) fn escaped(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}

impl Look<'_> {
    async fn execute(&self, version: &str, statement: &str) -> (u16, Vec<u8>) {
        let path = format!("/{}/api/{version}/store/execute", self.app.id);
        let answer = self.world.post(&self.caller.credential, &path, &json!({"statement": statement})).await;
        (answer.status, answer.body)
    }

    /// The rows of a statement, which must succeed.
    async fn rows(&self, version: &str, statement: &str) -> Json {
        let (status, body) = self.execute(version, statement).await;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{}: {text}", self.at(statement));
        self.leaks_nothing(statement, &body);
        serde_json::from_slice::<Json>(&body).unwrap()["items"].take()
    }

    pub(super) async fn data_api(&self) {
        for statement in ["SELECT * FROM hidden", "SELECT * FROM __rejections", "SELECT * FROM __devices"] {
            let (status, body) = self.execute("v5", statement).await;
            assert_eq!(status, 403, "{}: {}", self.at(statement), String::from_utf8_lossy(&body));
        }
        self.system_collections().await;
        self.attachments().await;
        if self.view().is_nothing() {
            return self.closed().await;
        }
        let documents: Json = self.seen().iter().map(|stored| stored.json.clone()).collect();
        self.equal("execute", &self.rows("v5", "SELECT * FROM docs").await, &documents);
        self.execute_strictly().await;
        self.asked_by_conditions().await;
        self.aggregates().await;
        self.explained().await;
        self.transaction().await;
        self.older().await;
    }

    /// Without a rule for the collection nothing of it is told by any of these.
    async fn closed(&self) {
        for statement in ["SELECT * FROM docs", "SELECT COUNT(*) AS n FROM docs", "EXPLAIN SELECT * FROM docs"] {
            let (_, body) = self.execute("v5", statement).await;
            self.shows(statement, &body, &[]);
        }
        let (status, body) = self.execute("v5", "SELECT b._id FROM beat AS b JOIN docs AS d ON d.num > 0").await;
        assert_eq!(status, 403, "{}: {}", self.at("a join"), String::from_utf8_lossy(&body));
        let id = &self.history.documents.keys().next().unwrap().clone();
        for (door, body) in [
            ("find", json!({"collection": "docs", "query": "true"})),
            ("findbyid", json!({"collection": "docs", "id": id})),
            ("count", json!({"collection": "docs", "query": "true"})),
        ] {
            let path = format!("/{}/api/v4/store/{door}", self.app.id);
            let answer = self.world.post(&self.caller.credential, &path, &body).await;
            assert_eq!(answer.status, 403, "{}: {}", self.at(door), answer.text());
            self.is_silent(door, &answer.body);
        }
    }

    async fn execute_strictly(&self) {
        let (status, body) = self.execute("v4", "SELECT * FROM docs").await;
        assert_eq!(status, 200);
        self.shows("execute, strict", &body, &self.seen());
    }

    /// Those of the documents that may be seen for which a condition holds.
    fn matching(&self, condition: &Condition) -> Vec<&Stored> {
        self.seen().into_iter().filter(|stored| condition.holds(&stored.json, &json!({}))).collect()
    }

    async fn asked_by_conditions(&self) {
        for _ in 0..3 {
            let question = self.question();
            let statement = format!("SELECT _id, mark FROM docs WHERE {}", question.text());
            let expected: Json = self.matching(&question).iter().map(|stored| brief(stored)).collect();
            self.equal(&statement, &self.rows("v5", &statement).await, &expected);
        }
        let ids: Vec<String> = self.history.documents.keys().map(|id| format!("'{id}'")).collect();
        let expected: Json = self.seen().iter().map(|stored| brief(stored)).collect();
        for statement in [
            format!("SELECT _id, mark FROM docs WHERE _id IN ({})", ids.join(", ")),
            format!("SELECT _id, mark FROM docs USE IDS ({})", ids.join(", ")),
            "SELECT x._id, y.mark FROM docs AS x JOIN docs AS y ON x._id = y._id".to_owned(),
            "SELECT d._id, d.mark FROM beat AS b LEFT JOIN docs AS d ON d.num > 0".to_owned(),
        ] {
            let mut rows = self.rows("v5", &statement).await;
            // A LEFT JOIN without partners is a row of nothing.
            rows.as_array_mut().unwrap().retain(|row| row.get("mark").is_some());
            self.equal(&statement, &rows, &expected);
        }
        let mut latest = self.seen();
        latest.sort_by_key(|stored| std::cmp::Reverse(stored.json["num"].as_u64()));
        let expected: Json = latest.into_iter().take(2).map(brief).collect();
        let statement = "SELECT _id, mark FROM docs ORDER BY num DESC LIMIT 2";
        self.equal(statement, &self.rows("v5", statement).await, &expected);
    }

    async fn aggregates(&self) {
        let seen = self.seen();
        let mut expected = json!({"n": seen.len()});
        let marks: Vec<String> = seen.iter().map(|stored| mark_of(&stored.json)).collect();
        let numbers: Vec<u64> = seen.iter().filter_map(|stored| stored.json["num"].as_u64()).collect();
        if let (Some(low), Some(high)) = (marks.iter().min(), marks.iter().max()) {
            (expected["low"], expected["high"]) = (json!(low), json!(high));
            expected["sum"] = numbers.iter().sum::<u64>().into();
        }
        let statement = "SELECT COUNT(*) AS n, MIN(mark) AS low, MAX(mark) AS high, SUM(num) AS sum FROM docs";
        self.equal(statement, &self.rows("v5", statement).await, &json!([expected]));
        let question = self.question();
        let statement = format!("SELECT COUNT(*) AS n FROM docs WHERE {}", question.text());
        self.equal(&statement, &self.rows("v5", &statement).await, &json!([{"n": self.matching(&question).len()}]));
        for statement in
            ["SELECT DISTINCT mark FROM docs", "SELECT mark, COUNT(*) AS n FROM docs GROUP BY mark HAVING COUNT(*) > 0"]
        {
            let (_, body) = self.execute("v5", statement).await;
            self.shows(statement, &body, &seen);
        }
    }

    async fn explained(&self) {
        let question = self.question().text();
        for statement in [
            format!("EXPLAIN SELECT * FROM docs WHERE {question}"),
            "EXPLAIN SELECT MIN(mark) FROM docs".to_owned(),
            "ADVISE SELECT * FROM docs WHERE num > 1".to_owned(),
        ] {
            let (status, body) = self.execute("v5", &statement).await;
            assert_eq!(status, 200, "{}: {}", self.at(&statement), String::from_utf8_lossy(&body));
            self.leaks_nothing(&statement, &body);
        }
        let rows = self.rows("v5", "PROFILE SELECT _id FROM docs").await;
        let profile = &rows.as_array().unwrap().last().unwrap()["~request_profile"]["#stats"];
        let count = self.seen().len();
        self.equal("PROFILE", profile, &json!({"documentsIn": count, "documentsOut": count}));
    }

    async fn transaction(&self) {
        let count = json!({"statement": "SELECT COUNT(*) AS n FROM docs WHERE num > 0"});
        let body = json!({"statements": [{"statement": "SELECT * FROM docs"}, count]});
        let path = format!("/{}/api/v1/transaction", self.app.id);
        let answer = self.world.post(&self.caller.credential, &path, &body).await;
        assert_eq!(answer.status, 200, "{}: {}", self.at("transaction"), answer.text());
        self.shows("transaction", &answer.body, &self.seen());
        let count = &answer.json()["results"][1]["items"];
        self.equal("transaction", count, &json!([{"n": self.seen().len()}]));
    }

    async fn older(&self) {
        let path = |door: &str| format!("/{}/api/v4/store/{door}", self.app.id);
        let ask = |door: &'static str, body: Json| async move {
            (self.world.post(&self.caller.credential, &path(door), &body).await, door)
        };
        let (found, door) = ask("find", json!({"collection": "docs", "query": "true"})).await;
        assert_eq!(found.status, 200, "{}: {}", self.at(door), found.text());
        self.shows(door, &found.body, &self.seen());
        let typed = json!({"collection": "docs", "query": "num > 0", "serializedAs": "latestValuesAndTypes"});
        let (found, door) = ask("find", typed).await;
        self.shows(door, &found.body, &self.seen());
        let (counted, door) = ask("count", json!({"collection": "docs", "query": "num > 0"})).await;
        self.equal(door, &counted.json()["count"], &json!(self.seen().len()));
        for (id, stored) in &self.history.documents {
            let (found, door) = ask("findbyid", json!({"collection": "docs", "id": id})).await;
            let may = self.view().allows(&stored.json);
            assert_eq!(found.status, if may { 200 } else { 404 }, "{} {id}: {}", self.at(door), found.text());
            if may {
                self.shows(door, &found.body, &[stored]);
            } else {
                self.is_silent(door, &found.body);
            }
        }
    }

    /// How many documents there are is told only of what may be read whole.
    async fn system_collections(&self) {
        let rows = self.rows("v5", "SELECT * FROM system:collections").await;
        let mut expected = vec![json!({"_id": "beat", "name": "beat", "count": 1})];
        if !self.view().is_nothing() {
            expected.push(json!({"_id": "docs", "name": "docs"}));
        }
        if self.view().is_whole() {
            expected[1]["count"] = self.history.documents.len().into();
        }
        self.equal("system:collections", &rows, &expected.into());
    }

    /// An attachment is seen through a document that holds it now, and that may be read.
    async fn attachments(&self) {
        let documents = &self.history.documents;
        for (blob, content) in self.history.attachments() {
            for (id, stored) in documents {
                let holds = stored.json["blob"]["id"] == **blob;
                if !holds && !self.chance.one_in(8) {
                    continue;
                }
                let place = escaped(&json!(id).to_string());
                let path = format!("/{}/api/v4/attachments/{blob}?collection=docs&document={place}", self.app.id);
                let bearer = format!("Bearer {}", self.caller.credential);
                for method in [Method::GET, Method::HEAD] {
                    let is_get = method == Method::GET;
                    let answer = self.world.ask(method, &path, &[("authorization", &bearer)], "").await;
                    let may = holds && self.view().allows(&stored.json);
                    let right = if may { answer.status == 200 } else { [403, 404].contains(&answer.status) };
                    assert!(right, "{} of {id}: {} {}", self.at("attachments"), answer.status, answer.text());
                    assert!(!is_get || (answer.text() == *content) == may, "{}", self.at("attachments"));
                }
            }
            let path = format!("/{}/api/v4/attachments/{blob}", self.app.id);
            let answer = self.world.get(&self.caller.credential, &path, "*/*").await;
            assert_eq!(answer.status, 403, "{}: {}", self.at("attachments"), answer.text());
        }
    }

    /// Changes all that may be read, and is shown what it changed; nothing else changes. What is to be recorded: the
    /// transaction, and the changes.
    pub(super) async fn touch(&self, number: u64) -> (u64, Vec<Change>) {
        let changed = |stored: &Stored| {
            let mut after = stored.json.clone();
            after["touched"] = number.into();
            (id_of(&after), Some(stored.json.clone()), Some(after))
        };
        let seen = self.seen();
        if self.chance.one_in(2) {
            let set = json!([{"method": "set", "path": "touched", "value": number}]);
            let update = json!({"method": "update", "collection": "docs", "query": "num > 0", "commands": set});
            let path = format!("/{}/api/v4/store/write", self.app.id);
            let answer = self.world.post(&self.caller.credential, &path, &json!({"commands": [update]})).await;
            assert_eq!(answer.status, 200, "{}: {}", self.at("write"), answer.text());
            let result = answer.json()["results"][0].clone();
            self.equal("write", &result["updated"], &json!(seen.len()));
            return (result["transactionId"].as_u64().unwrap(), seen.into_iter().map(changed).collect());
        }
        // Every third time one goes.
        let deletes = self.chance.one_in(3);
        let statement = if deletes {
            "DELETE FROM docs WHERE _id != 'id00z' ORDER BY num LIMIT 1 RETURNING *".to_owned()
        } else {
            format!("UPDATE docs SET touched = {number} RETURNING _id, mark")
        };
        let path = format!("/{}/api/v5/store/execute", self.app.id);
        let answer = self.world.post(&self.caller.credential, &path, &json!({"statement": statement})).await;
        assert_eq!(answer.status, 200, "{}: {}", self.at(&statement), answer.text());
        let transaction = answer.json()["transactionId"].as_u64().unwrap();
        if !deletes {
            self.shows(&statement, &answer.body, &seen);
            return (transaction, seen.into_iter().map(changed).collect());
        }
        let mut oldest: Vec<_> = seen.into_iter().filter(|stored| stored.json["_id"] != "id00z").collect();
        oldest.sort_by_key(|stored| stored.json["num"].as_u64());
        oldest.truncate(1);
        self.shows(&statement, &answer.body, &oldest);
        (transaction, oldest.iter().map(|stored| (id_of(&stored.json), Some(stored.json.clone()), None)).collect())
    }
}

fn brief(stored: &Stored) -> Json {
    json!({"_id": stored.json["_id"], "mark": stored.json["mark"]})
}

/// What everybody with everything allowed sees is what the model has: otherwise it is the model that is wrong.
pub(super) async fn the_model_is_true(look: &Look<'_>, history: &History) {
    let path = format!("/{}/api/v5/store/execute", look.app.id);
    let answer = look.world.post(&look.app.key, &path, &json!({"statement": "SELECT * FROM docs"})).await;
    let expected: Json = history.documents.values().map(|stored| stored.json.clone()).collect();
    assert_eq!(answer.json()["items"], expected, "{}: the model has other documents", look.case);
}
