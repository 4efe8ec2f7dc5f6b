//! The mapping, on every kind of resource: what is planned is what is asked for, and what comes back is what was planned.

use std::collections::BTreeSet;

use bigpeer_auth::ProviderRequest;
use bigpeer_chassis::{KeyLimits, Quota};
use bigpeer_control::ApiKeyRequest;
use bigpeer_feed_spec::FeedSpec;
use serde_json::{Value as Json, json};
use tf_provider::value::Value;

use super::*;
use crate::kinds::{self, Kind as Resource};
use crate::rules::problems;
use crate::value::is_known;

fn kind(name: &str) -> Resource {
    kinds::all().into_iter().find(|kind| kind.name == name).unwrap()
}

/// A configuration: what is not in it is null, and blocks that are not there are none.
fn config(json: Json) -> Map {
    as_map(&plain(&json)).unwrap().clone()
}

fn planned(kind: &Resource, given: &Map, prior: Option<&Map>) -> Map {
    let mut planned = plan(&kind.fields, given, prior);
    (kind.adjust)(&mut planned);
    planned
}

fn body(kind: &Resource, given: Json) -> Json {
    (kind.to_api)(request(&kind.fields, &planned(kind, &config(given), None)))
}

fn after(kind: &Resource, answer: Json, before: &Map) -> Map {
    state(&kind.fields, &(kind.from_api)(answer), before)
}

/// Applies a configuration, where the server answers so; then reads it again, where it answers so.
fn applied(kind: &Resource, given: &Json, answer: Json, read: Json) -> Map {
    let plan = planned(kind, &config(given.clone()), None);
    let applied = after(kind, answer, &plan);
    for (name, value) in &plan {
        let same = is_known(value).then_some(value == &applied[name]);
        assert_ne!(same, Some(false), "{name} is planned as {value:?} and becomes {:?}", applied[name]);
    }
    assert!(applied.values().all(is_known), "{applied:?}");
    let seen = after(kind, read, &applied);
    assert_eq!(seen, applied, "what is read is what was applied");
    let again = planned(kind, &config(given.clone()), Some(&seen));
    assert_eq!(again, seen, "a second plan changes nothing");
    seen
}

#[test]
fn a_key_is_asked_for_with_its_defaults_and_keeps_its_secret() {
    let kind = kind("api_key");
    let given = json!({"app": "a1", "name": "k", "expires_at": "2030-01-01T01:00:00+01:00",
        "permissions": {"read": {"queries_by_collection": {"cars": ["lot = 'a'"]}}}, "limits": {"sql_queries": 2}});
    let permissions = json!({"qlVersion": 1, "remoteQuery": false,
        "read": {"everything": false, "queriesByCollection": {"cars": ["lot = 'a'"]}},
        "write": {"everything": false, "queriesByCollection": {}}});
    let scopes = json!(["data", "sql", "changes", "sync"]);
    let asked = body(&kind, given.clone());
    assert_eq!(asked["scopes"].as_array().map(Vec::len), Some(4));
    let ms = 1_893_456_000_000_i64;
    assert_eq!(asked["permissions"], permissions);
    assert_eq!((&asked["expires_at"], &asked["limits"]), (&json!(ms), &json!({"sql_queries": 2})));
    let shown = json!({"name": "k", "prefix": "bp_1", "permissions": permissions, "expires_at": ms, "scopes": scopes,
        "limits": {"sql_queries": 2}, "description": null, "created_at": 1_700_000_000_000_i64});
    let mut first = shown.clone();
    first["key"] = json!("the secret");
    // Terraform does not care for the order of a set; this comparison does.
    let given_in_order = json!({"scopes": scopes});
    let mut given = given;
    given.as_object_mut().unwrap().extend(given_in_order.as_object().unwrap().clone());
    let state = applied(&kind, &given, first, shown.clone());
    assert_eq!(as_text(&state["key"]), Some("the secret"));
    assert_eq!(as_text(&state["expires_at"]), Some("2030-01-01T01:00:00+01:00"));
    assert_eq!(as_text(&state["created_at"]), Some("2023-11-14T22:13:20Z"));

    // Changed behind Terraform's back.
    let mut changed = shown;
    changed["permissions"]["write"]["everything"] = json!(true);
    changed["expires_at"] = json!(ms + 1000);
    let drifted = after(&kind, changed, &state);
    assert_eq!(as_text(&drifted["expires_at"]), Some("2030-01-01T00:00:01Z"));
    let repair = planned(&kind, &config(given), Some(&drifted));
    assert_eq!(repair, state, "the plan is what it was");
    assert_ne!(drifted, state);
}

#[test]
fn an_app_that_is_another_is_made_anew() {
    let kind = kind("app");
    let given = json!({"tenant": "acme", "name": "shop"});
    let answer = json!({"id": "0af1", "tenant": "acme", "name": "shop", "created_at": 0, "deletion_protection": true});
    let state = applied(&kind, &given, answer.clone(), answer);
    assert_eq!(state["deletion_protection"], Value::Value(Known::Flag(true)));
    let renamed = planned(&kind, &config(json!({"tenant": "acme", "name": "store"})), Some(&state));
    assert_eq!(moved(&kind.fields, &state, &renamed), [AttributePath::new("name")]);
    assert!(moved(&kind.fields, &state, &state).is_empty());
}

#[test]
fn secrets_that_are_hidden_stay_and_their_number_is_seen() {
    let kind = kind("auth_provider");
    let given =
        json!({"app": "a1", "name": "p", "webhook": [{"url": "https://e.com/", "secrets": ["c2VjcmV0c2VjcmV0c2U="]}]});
    let asked = json!({"type": "webhook", "url": "https://e.com/", "secrets": ["c2VjcmV0c2VjcmV0c2U="], "roles": [],
        "session_secs": 2_592_000});
    assert_eq!(body(&kind, given.clone()), asked);
    let shown = |secrets: Json| {
        json!({"type": "webhook", "url": "https://e.com/", "secrets": secrets, "name": "p", "roles": [],
            "permissions": null, "session_secs": 2_592_000, "created_at": 1})
    };
    let state = applied(&kind, &given, shown(json!(["(hidden)"])), shown(json!(["(hidden)"])));
    let webhook = as_map(&as_list(&state["webhook"]).unwrap()[0]).unwrap();
    assert_eq!(as_list(&webhook["secrets"]), Some([text("c2VjcmV0c2VjcmV0c2U=")].as_slice()));
    let drifted = after(&kind, shown(json!(["(hidden)", "(hidden)"])), &state);
    assert_ne!(drifted, state);

    // One that the server made, and one that was imported.
    let given = json!({"app": "a1", "name": "p", "webhook": [{"url": "https://e.com/"}]});
    assert_eq!((kind.shown_once)(&body(&kind, given.clone())), Some("secret"));
    let mut first = shown(json!(["(hidden)"]));
    first["secret"] = json!("bWFkZQ==");
    let made = applied(&kind, &given, first, shown(json!(["(hidden)"])));
    let place = config(json!({"app": "a1", "name": "p"}));
    let imported = after(&kind, shown(json!(["(hidden)"])), &place);
    assert_eq!(planned(&kind, &config(given), Some(&imported)), imported);
    assert_eq!(as_text(&as_map(&as_list(&made["webhook"]).unwrap()[0]).unwrap()["secret"]), Some("bWFkZQ=="));
}

#[test]
fn what_the_server_takes_by_default_is_what_is_planned() {
    let feed = kind("change_feed");
    let sinks = [
        json!({"webhook": [{"url": "https://e.com/", "secrets": ["sixteen bytes, at least"]}]}),
        json!({"kafka": [{"brokers": "h:9092", "topic": "t", "create": [{}], "tls": [{}],
            "sasl": [{"mechanism": "SCRAM-SHA-256", "username": "u", "password": "p"}]}]}),
    ];
    for sink in sinks {
        let mut given = json!({"app": "a1", "name": "f", "owner": "dev", "source": [{"collection": "cars"}]});
        given.as_object_mut().unwrap().extend(sink.as_object().unwrap().clone());
        assert!(problems(&feed, &config(given.clone())).is_empty());
        let asked: FeedSpec = serde_json::from_value(body(&feed, given.clone())).unwrap();
        let mut least = json!({"owner": "dev", "sources": [{"collection": "cars"}]});
        let (name, blocks) = sink.as_object().unwrap().iter().next().unwrap();
        least["sink"] = blocks[0].clone();
        least["sink"]["type"] = json!(name);
        for block in ["create", "tls", "sasl"] {
            if let Some(Json::Array(one)) = least["sink"].get(block).cloned() {
                least["sink"][block] = one[0].clone();
            }
        }
        assert_eq!(asked, serde_json::from_value::<FeedSpec>(least).unwrap());
        let answer = json!({"name": "f", "spec": asked.shown(), "state": "running", "createdAt": 5});
        applied(&feed, &given, answer.clone(), answer);
    }
    let provider = kind("auth_provider");
    for (given, secs) in [
        (json!({"oidc": [{"issuer": "https://e.com", "audiences": ["a"]}]}), 86_400),
        (json!({"anonymous": [{"shared_token": "sixteen bytes, at least"}]}), 2_592_000),
    ] {
        let asked = body(&provider, given);
        let request: ProviderRequest = serde_json::from_value(asked.clone()).unwrap();
        assert_eq!(request.check(), Ok(()));
        assert_eq!((&asked["session_secs"], request.session_secs()), (&json!(secs), secs));
    }
}

/// What a type of the server names when it does not know a field.
fn known_fields<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(json!({"no such field": 1})).err().map(|error| error.to_string()).unwrap();
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

fn names(fields: &[Field]) -> BTreeSet<String> {
    fields.iter().filter(|field| field.is_sent()).map(|field| field.json.to_owned()).collect()
}

#[test]
fn what_the_server_can_be_told_terraform_can_tell_it() {
    let (quota, key) = (kind("quota"), kind("api_key"));
    assert_eq!(names(&quota.fields), known_fields::<Quota>());
    assert_eq!(names(&key.fields), known_fields::<ApiKeyRequest>());
    let limits = key.fields.iter().find(|field| field.name == "limits").map(|field| &field.kind);
    let Some(Kind::Group(limits)) = limits else { panic!("{limits:?}") };
    assert_eq!(names(limits), known_fields::<KeyLimits>());
    let least: ApiKeyRequest = serde_json::from_value(json!({"permissions": {}})).unwrap();
    let asked = body(&key, json!({"app": "a1", "name": "k", "permissions": {}}));
    let asked: ApiKeyRequest = serde_json::from_value(asked).unwrap();
    assert_eq!(format!("{:?}", asked).replace("ql_version: 1", "ql_version: 0"), format!("{least:?}"));
    let feed = known_fields::<FeedSpec>();
    let mut mine = names(&kind("change_feed").fields);
    assert!(mine.remove("webhook") && mine.remove("kafka") && mine.insert("sink".to_owned()));
    assert_eq!(mine, feed);
}

#[test]
fn blocks_come_back_as_they_were_written() {
    let kind = kind("auth_provider");
    let given = json!({"app": "a1", "name": "p", "roles": ["clerk"], "permissions": [{"read": {"everything": true}}],
        "oidc": [{"issuer": "https://e.com", "audiences": ["a"], "claims": {"store": "s"}}]});
    let answer = json!({"type": "oidc", "issuer": "https://e.com", "audiences": ["a"], "algorithms": ["RS256"],
        "user_claim": "sub", "claims": {"store": "s"}, "roles_claim": null, "permissions_claim": null, "name": "p",
        "roles": ["clerk"], "session_secs": 86_400, "created_at": 1, "permissions": {"qlVersion": 1, "remoteQuery": false,
        "read": {"everything": true, "queriesByCollection": {}}, "write": {"everything": false, "queriesByCollection": {}}}});
    applied(&kind, &given, answer.clone(), answer);
}

#[test]
fn names_in_the_api_are_told_apart() {
    for kind in kinds::all() {
        let names: Vec<&str> = kind.fields.iter().map(|field| field.json).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{}", kind.name);
    }
}
