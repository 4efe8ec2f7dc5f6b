//! The streams of changes: snapshots, and what happened since any moment, as lines of JSON and as server-sent events.

use serde_json::{Value as Json, json};

use super::http::escaped;
use super::look::Look;
use super::rules::Condition;

/// An event as the model tells it: kind, document, before, after.
type Told = (&'static str, String, Json, Json);

/// What a reader sees of a change: images that it may not see are not there.
fn told(id: &str, before: Option<&Json>, after: Option<&Json>) -> Option<Told> {
    let shown = |image: Option<&Json>| image.cloned().unwrap_or(Json::Null);
    let kind = match (before, after) {
        (None, None) => return None,
        (Some(before), Some(after)) if before == after => return None,
        (None, Some(_)) => "upsert",
        (Some(_), Some(_)) => "update",
        (Some(_), None) => "remove",
    };
    Some((kind, id.to_owned(), shown(before), shown(after)))
}

/// An event as the stream tells it.
fn read(event: &Json) -> Told {
    let change = &event["change"];
    let id = event["documentId"].as_str().unwrap().to_owned();
    let image = |name: &str| change.get(name).cloned().unwrap_or(Json::Null);
    match change["method"].as_str().unwrap() {
        "upsert" => ("upsert", id, image("oldValue"), image("newValue")),
        "update" => ("update", id, image("oldValue"), image("newValue")),
        "remove" => ("remove", id, image("value"), Json::Null),
        other => panic!("a change by the method {other}"),
    }
}

impl Look<'_> {
    pub(super) async fn changes(&self) {
        for collection in ["hidden", "docs"] {
            if collection == "hidden" || self.view().is_nothing() {
                let path = format!("/{}/changes?snapshot=true&follow=false&collections={collection}", self.app.id);
                let answer = self.world.get(&self.caller.credential, &path, "*/*").await;
                assert_eq!(answer.status, 403, "{}: {}", self.at("changes"), answer.text());
            }
        }
        if self.view().is_nothing() {
            // Of all collections, then.
            for start in ["snapshot=true", "cursor=0.0"] {
                let path = format!("/{}/changes?{start}&follow=false", self.app.id);
                let answer = self.world.get(&self.caller.credential, &path, "*/*").await;
                self.shows("changes", &answer.body, &[]);
            }
            return;
        }
        self.snapshot().await;
        for condition in [None, Some(self.question())] {
            let from = self.chance.below(self.history.transactions.len() + 1);
            self.since(from, condition.as_ref()).await;
        }
    }

    /// The events of a stream that ends.
    async fn events(&self, query: &str) -> (Vec<u8>, Vec<Json>) {
        let path = format!("/{}/changes?follow=false&{query}", self.app.id);
        let sse = self.chance.one_in(3);
        let accept = if sse { "text/event-stream" } else { "application/x-ndjson" };
        let answer = self.world.get(&self.caller.credential, &path, accept).await;
        let text = answer.text();
        assert_eq!(answer.status, 200, "{}: {text}", self.at(&path));
        let lines = text.lines().filter_map(|line| if sse { line.strip_prefix("data: ") } else { Some(line) });
        let events: Vec<Json> =
            lines.filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
        for event in &events {
            let kind = event["type"].as_str().unwrap();
            assert!(kind != "error" && kind != "requeryRequired", "{}: {event}", self.at(&path));
        }
        (answer.body, events)
    }

    async fn snapshot(&self) {
        let question = self.chance.one_in(2).then(|| self.question());
        let where_ =
            question.as_ref().map_or(String::new(), |question| format!("&where={}", escaped(&question.text())));
        let (body, events) = self.events(&format!("snapshot=true&collections=docs{where_}")).await;
        let holds = |json: &Json| question.as_ref().is_none_or(|question| question.holds(json, &json!({})));
        let mut expected = self.seen();
        expected.retain(|stored| holds(&stored.json));
        self.shows(&format!("changes, snapshot{where_}"), &body, &expected);
        let found: Json = events
            .iter()
            .filter(|event| event["type"] == "documentChanged" && event["collection"] == "docs")
            .map(|event| event["change"]["newValue"].clone())
            .collect();
        let expected: Json = expected.iter().map(|stored| stored.json.clone()).collect();
        self.equal("changes, snapshot", &found, &expected);
    }

    /// Where a transaction stands in the log, as who sees everything is told.
    async fn cursor_behind(&self, transaction: u64) -> String {
        let path = format!("/{}/changes?follow=false&cursor=0.0&collections=docs", self.app.id);
        let text = self.world.get(&self.app.key, &path, "application/x-ndjson").await.text();
        let events = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let of = |event: &Json| (event["txnId"] == transaction).then(|| event["lsn"].as_str().unwrap().to_owned());
        events.filter_map(|event| of(&event)).next().unwrap_or_else(|| panic!("{}: no events: {text}", self.case))
    }

    /// What happened behind the first `from` transactions.
    async fn since(&self, from: usize, condition: Option<&Condition>) {
        let cursor = match from.checked_sub(1) {
            Some(last) => self.cursor_behind(self.history.at(last).id).await,
            None => "0.0".to_owned(),
        };
        let where_ = condition.map_or(String::new(), |condition| format!("&where={}", escaped(&condition.text())));
        let query = format!("cursor={cursor}&collections=docs{where_}");
        let (body, events) = self.events(&query).await;
        self.leaks_nothing(&query, &body);
        let sees = |image: &Option<Json>| {
            let image = image.as_ref()?;
            let holds = condition.is_none_or(|condition| condition.holds(image, &json!({})));
            (holds && self.view().allows(image)).then(|| image.clone())
        };
        let mut expected = Vec::new();
        for transaction in self.history.transactions.iter().skip(from) {
            let mut changes: Vec<(u64, Told)> = transaction
                .changes
                .iter()
                .filter_map(|(id, before, after)| told(id, sees(before).as_ref(), sees(after).as_ref()))
                .map(|told| (transaction.id, told))
                .collect();
            changes.sort_by(|left, right| left.1.1.cmp(&right.1.1));
            expected.extend(changes);
        }
        let changed = events.iter().filter(|event| event["type"] == "documentChanged");
        let mut found: Vec<(u64, Told)> =
            changed.map(|event| (event["txnId"].as_u64().unwrap(), read(event))).collect();
        found.sort_by(|left, right| (left.0, &left.1.1).cmp(&(right.0, &right.1.1)));
        assert!(
            found == expected,
            "{}\n  tells    {found:?}\n  expected {expected:?}",
            self.at(&format!("changes {query}"))
        );
    }
}
