//! The same of a collection that is so large that the data API asks columns (DataFusion) before documents: what may be read in
//! part must not be answered from columns of the whole.

use serde_json::{Value as Json, json};

use super::rules::{Chance, Condition, Grant, Operand};
use super::seeds;
use super::world::{App, World};

/// More than enough for columns to be asked.
const DOCUMENTS: usize = 20_200;

struct Large<'w> {
    world: &'w World,
    app: App,
    documents: Vec<Json>,
}

fn number(document: &Json, field: &str) -> u64 {
    document[field].as_u64().unwrap()
}

fn compare(field: &'static [&'static str], op: &'static str, value: Json) -> Condition {
    Condition::Compare(Operand::Field(field, false), op, Operand::Literal(value))
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_tell_nothing_that_the_rules_forbid() {
    let world = World::start().await;
    for seed in seeds(1) {
        let chance = Chance::new(seed);
        let app = world.app(&format!("large-{seed}")).await;
        let mut large = Large::fill(&world, app, &chance).await;
        let some = Grant::AnyOf(vec![compare(&["b"], "=", json!(2)), compare(&["num"], "<", json!(50))]);
        let random = Grant::AnyOf(vec![super::rules::condition(&chance, 2, false)]);
        for (name, grant) in [("whole", Grant::Whole), ("some", some), ("random", random)] {
            large.ask(&format!("seed {seed}, {name}"), name, &grant, &chance).await;
        }
    }
    let metrics = world.get("", "/metrics", "*/*").await.text();
    let by_columns =
        metrics.lines().find(|line| line.starts_with("bigpeer_dql_scans_total") && line.contains("columns"));
    assert!(by_columns.is_some_and(|line| !line.ends_with(" 0")), "columns were asked: {by_columns:?}");
}

impl<'w> Large<'w> {
    async fn fill(world: &'w World, app: App, chance: &Chance) -> Self {
        let mut documents: Vec<Json> = Vec::with_capacity(DOCUMENTS);
        for at in 0..DOCUMENTS {
            let mut document = json!({"_id": at, "num": at, "b": chance.below(7), "mark": format!("M{at:06}x")});
            if chance.one_in(2) {
                document["a"] = super::rules::value(chance);
            }
            documents.push(document);
        }
        for part in documents.chunks(5_000) {
            let insert = ("INSERT INTO docs DOCUMENTS (:part)".to_owned(), json!({"part": part}));
            world.write(&app, &[insert]).await;
        }
        world.compact(&app).await;
        // Some of it is newer than the segments.
        world.write(&app, &[("UPDATE docs SET b = 2 WHERE num < 300 AND num > 100".to_owned(), json!({}))]).await;
        world.write(&app, &[("DELETE FROM docs WHERE num > 20150".to_owned(), json!({}))]).await;
        documents.iter_mut().filter(|one| (101..300).contains(&number(one, "num"))).for_each(|one| one["b"] = json!(2));
        documents.retain(|document| number(document, "num") <= 20_150);
        Self { world, app, documents }
    }

    async fn ask(&mut self, case: &str, name: &str, grant: &Grant, chance: &Chance) {
        let texts = grant.texts(1).unwrap();
        let permissions = json!({"read": {"queriesByCollection": {"docs": texts}}, "write": {"everything": true}});
        let key = self.world.put_key(&self.app.id, name, &permissions).await.expect("a new key");
        let none = json!({});
        let from = chance.below(20_000);
        let seen: Vec<&Json> = self.documents.iter().filter(|one| grant.allows(one, &none)).collect();
        let brief = |one: &&Json| json!({"mark": one["mark"]});
        let some: Vec<&Json> =
            seen.iter().filter(|one| number(one, "num") > from as u64 && number(one, "b") == 2).copied().collect();
        let sum = |of: &[&Json]| of.iter().map(|one| number(one, "num")).sum::<u64>();
        let mut groups = Vec::new();
        for b in 0..7 {
            let of: Vec<&Json> = seen.iter().filter(|one| number(one, "b") == b).copied().collect();
            if !of.is_empty() {
                groups.push(json!({"b": b, "n": of.len(), "s": sum(&of)}));
            }
        }
        let mut total = json!({"n": seen.len()});
        if let (Some(first), Some(last)) = (seen.first(), seen.last()) {
            total = json!({"n": seen.len(), "low": first["mark"], "high": last["mark"], "s": sum(&seen)});
        }
        let distinct: Json = groups.iter().map(|group| json!({"b": group["b"]})).collect();
        let questions: Vec<(String, Json)> = vec![
            ("SELECT COUNT(*) AS n FROM docs".to_owned(), json!([{"n": seen.len()}])),
            (format!("SELECT COUNT(*) AS n FROM docs WHERE num > {from} AND b = 2"), json!([{"n": some.len()}])),
            (
                "SELECT COUNT(*) AS n, MIN(mark) AS low, MAX(mark) AS high, SUM(num) AS s FROM docs".to_owned(),
                json!([total]),
            ),
            ("SELECT b, COUNT(*) AS n, SUM(num) AS s FROM docs GROUP BY b ORDER BY b".to_owned(), groups.into()),
            ("SELECT DISTINCT b FROM docs ORDER BY b".to_owned(), distinct),
            (
                format!("SELECT mark FROM docs WHERE num > {from} AND b = 2 ORDER BY num DESC"),
                some.iter().rev().map(brief).collect(),
            ),
            (
                "SELECT mark FROM docs ORDER BY num DESC LIMIT 4".to_owned(),
                seen.iter().rev().take(4).map(brief).collect(),
            ),
            ("SELECT mark FROM docs ORDER BY num LIMIT 4".to_owned(), seen.iter().take(4).map(brief).collect()),
        ];
        let execute = format!("/{}/api/v5/store/execute", self.app.id);
        for (statement, expected) in &questions {
            let answer = self.world.post(&key, &execute, &json!({"statement": statement})).await;
            assert_eq!(answer.status, 200, "{case}: {texts:?}: {statement}: {}", answer.text());
            assert_eq!(answer.json()["items"], *expected, "{case}: {texts:?}: {statement}");
        }
        let query =
            json!({"query": "SELECT count(*) AS n, min(mark) AS low, max(mark) AS high, sum(num) AS s FROM docs"});
        let answer = self.world.post(&key, &format!("/{}/sql", self.app.id), &query).await;
        for (column, value) in total.as_object().unwrap() {
            assert_eq!(answer.json()[0][column], *value, "{case}: {texts:?}: SQL, {column}");
        }
        // Columns find what a mutation may mean; only what may be read of that is changed and shown.
        let statement = format!("UPDATE docs SET touched = 1 WHERE num > {from} AND b = 2 RETURNING mark");
        let answer = self.world.post(&key, &execute, &json!({"statement": statement})).await;
        let expected: Json = some.iter().map(brief).collect();
        assert_eq!(answer.json()["items"], expected, "{case}: {texts:?}: {statement}");
        let statement = "DELETE FROM docs ORDER BY num LIMIT 2 RETURNING mark";
        let answer = self.world.post(&key, &execute, &json!({"statement": statement})).await;
        let gone: Vec<Json> = seen.iter().take(2).map(brief).collect();
        assert_eq!(answer.json()["items"], Json::from(gone.clone()), "{case}: {texts:?}: {statement}");
        self.documents.retain(|one| !gone.contains(&brief(&one)));
    }
}
