//! What is wrong with a configuration, by the server's own rules, before the server is asked. What is not known yet is not
//! judged.

use serde_json::{Map as Object, Value as Json};
use tf_provider::AttributePath;

use crate::field::{Field, Kind as Type};
use crate::kinds::Kind;
use crate::mapping::{milliseconds, plan, request};
use crate::value::{Map, Val, as_list, as_map, as_text, attribute, is_known};

/// Something that is wrong, and where.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) path: AttributePath,
    pub(crate) message: String,
}

/// What is wrong with a configuration of a resource.
pub(crate) fn problems(kind: &Kind, config: &Map) -> Vec<Problem> {
    let mut planned = plan(&kind.fields, config, None);
    (kind.adjust)(&mut planned);
    let mut problems = Vec::new();
    check_fields(&kind.fields, &planned, &AttributePath::root(), &mut problems);
    problems.extend(one_of(kind.one_of, config));
    let sent = kind.fields.iter().filter(|field| field.is_sent());
    let whole = sent.into_iter().all(|field| is_known_of(field, attribute(&planned, field.name)));
    if problems.is_empty() && whole {
        let body = (kind.to_api)(request(&kind.fields, &planned));
        let refused = (kind.check)(&body).err();
        problems.extend(refused.map(|message| Problem { path: AttributePath::root(), message }));
    }
    problems
}

/// Whether all that is sent is known; what the server answers never is.
fn is_known_of(field: &Field, value: &Val) -> bool {
    let all = |inner: &[Field], map: &Map| {
        inner.iter().filter(|field| field.is_sent()).all(|field| is_known_of(field, attribute(map, field.name)))
    };
    match &field.kind {
        Type::Group(inner) => as_map(value).is_some_and(|map| all(inner, map)),
        Type::Optional(inner) | Type::Blocks(inner) => {
            let blocks = as_list(value);
            blocks.is_some_and(|blocks| blocks.iter().all(|one| as_map(one).is_some_and(|map| all(inner, map))))
        }
        Type::Text
        | Type::Whole
        | Type::Flag
        | Type::Time
        | Type::Texts
        | Type::TextSet
        | Type::TextMap
        | Type::TextsMap => is_known(value),
    }
}

fn one_of(names: &[&'static str], config: &Map) -> Option<Problem> {
    let count = |name: &&str| as_list(attribute(config, name)).map(<[_]>::len);
    let open = names.iter().any(|name| attribute(config, name).is_unknown());
    let there: usize = names.iter().filter_map(count).sum();
    (!names.is_empty() && !open && there != 1).then(|| Problem {
        path: AttributePath::root(),
        message: format!("there must be one of the blocks '{}'; there are {there}", names.join("', '")),
    })
}

fn check_fields(fields: &[Field], planned: &Map, at: &AttributePath, problems: &mut Vec<Problem>) {
    for field in fields {
        let value = attribute(planned, field.name);
        let path = at.clone().attribute(field.name);
        match &field.kind {
            Type::Group(inner) => check_block(field, inner, value, &path, problems),
            Type::Optional(inner) | Type::Blocks(inner) => {
                for (at, block) in (0_i64..).zip(as_list(value).unwrap_or_default()) {
                    check_block(field, inner, block, &path.clone().index(at), problems);
                }
            }
            Type::Time => {
                if let Some(text) = as_text(value)
                    && field.is_sent()
                    && milliseconds(text).is_none_or(|ms| ms < 0)
                {
                    let message = format!("'{text}' is not a time; write it like 2030-01-31T12:00:00Z");
                    problems.push(Problem { path, message });
                }
            }
            Type::Text | Type::Whole | Type::Flag | Type::Texts | Type::TextSet | Type::TextMap | Type::TextsMap => {
                if let (Some(rule), Some(text)) = (field.rule, as_text(value))
                    && let Err(message) = rule(text)
                {
                    problems.push(Problem { path, message });
                }
            }
        }
    }
}

fn check_block(field: &Field, inner: &[Field], value: &Val, path: &AttributePath, problems: &mut Vec<Problem>) {
    let Some(map) = as_map(value) else { return };
    check_fields(inner, map, path, problems);
    let json: Object<String, Json> = request(inner, map);
    if let Some(rule) = field.block_rule
        && let Err(message) = rule(&Json::Object(json))
    {
        problems.push(Problem { path: path.clone(), message });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tf_provider::value::Value;

    use super::*;
    use crate::kinds;
    use crate::value::{Known, object, text};

    fn val(json: &Json) -> Val {
        serde_json::from_value(json.clone()).unwrap()
    }

    /// What is wrong, and where.
    fn wrong(kind: &str, config: &Json) -> Vec<(String, String)> {
        let kind = kinds::all().into_iter().find(|one| one.name == kind).unwrap();
        let config = val(config);
        let found = problems(&kind, as_map(&config).unwrap());
        found.into_iter().map(|problem| (problem.path.to_string(), problem.message)).collect()
    }

    #[test]
    fn the_servers_rules_are_kept_when_a_plan_is_made() {
        let bad = |kind: &str, config: Json, path: &str, message: &str| {
            let found = wrong(kind, &config);
            let fits = found.iter().any(|(at, said)| at == path && said.contains(message));
            assert!(fits && found.len() == 1, "{config}: {found:?}");
        };
        bad("tenant", json!({"name": "-x"}), "name", "is not a name");
        bad("app", json!({"tenant": "a b", "name": "x"}), "tenant", "is not a name");
        bad("app", json!({"tenant": "a", "name": "x/y"}), "name", "is not a name");
        let role =
            |read: Json| json!({"app": "a1", "name": "r", "permissions": {"read": {"queries_by_collection": read}}});
        bad(
            "role",
            role(json!({"cars": ["lot ="]})),
            "permissions",
            "the rule 'lot =' for 'cars' is not a DQL condition",
        );
        bad("role", role(json!({"cars": ["lot = :lot"]})), "permissions", "has no value");
        bad("role", json!({"app": "a1", "name": "r", "permissions": {"ql_version": 7}}), "permissions", "qlVersion 7");
        bad("api_key", json!({"app": "no id!", "name": "k", "permissions": {}}), "app", "the id of an app");
        let key = json!({"app": "a1", "name": "k", "permissions": {}, "expires_at": "tomorrow"});
        bad("api_key", key, "expires_at", "is not a time");
        let key = json!({"app": "a1", "name": "k", "permissions": {}, "scopes": ["cellar"]});
        bad("api_key", key, "", "cellar");
        bad("api_key", json!({"app": "a1", "name": "k", "permissions": {}, "scopes": []}), "", "must name a door");
        bad("quota", json!({"app": "a1", "sessions": -1}), "", "-1");
        let provider = |more: Json| {
            let mut all = json!({"app": "a1", "name": "p"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        bad("auth_provider", provider(json!({})), "", "there are 0");
        let two =
            json!({"webhook": [{"url": "https://e.com"}], "anonymous": [{"shared_token": "sixteen bytes or more"}]});
        bad("auth_provider", provider(two), "", "there are 2");
        bad("auth_provider", provider(json!({"webhook": [{"url": "ftp://e.com"}]})), "", "http or https");
        let short = json!({"webhook": [{"url": "https://e.com", "secrets": ["c2hvcnQ="]}]});
        bad("auth_provider", provider(short), "", "16 to 1024 bytes");
        bad("auth_provider", provider(json!({"anonymous": [{"shared_token": "short"}]})), "", "16 to 1024 bytes");
        let oidc = json!({"oidc": [{"issuer": "https://e.com", "audiences": ["a"], "algorithms": ["HS256"]}]});
        bad("auth_provider", provider(oidc), "", "HS256");
        let feed = |more: Json| {
            let mut all = json!({"app": "a1", "name": "f", "owner": "k",
                "webhook": [{"url": "https://e.com", "secrets": ["sixteen bytes or more"]}]});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        assert_eq!(wrong("change_feed", &feed(json!({}))), []);
        bad(
            "change_feed",
            feed(json!({"source": [{"collection": "c", "query": "x ="}]})),
            "",
            "the query of the source 'c'",
        );
        bad(
            "change_feed",
            feed(json!({"source": [{"collection": "c"}, {"collection": "c"}]})),
            "",
            "two sources for 'c'",
        );
        bad("change_feed", feed(json!({"snapshot": true, "cursor": "0.0"})), "", "both say where the feed starts");
        bad("change_feed", feed(json!({"format": "xml"})), "", "xml");
        bad("change_feed", feed(json!({"webhook": [{"url": "https://e.com", "secrets": ["short"]}]})), "", "16 bytes");
    }

    #[test]
    fn no_secret_is_in_a_message() {
        let short = json!({"app": "a1", "name": "p", "anonymous": [{"shared_token": "hush"}]});
        let feed =
            json!({"app": "a1", "name": "f", "owner": "k", "webhook": [{"url": "https://e.com", "secrets": ["hush"]}]});
        for (kind, config) in [("auth_provider", short), ("change_feed", feed)] {
            let found = wrong(kind, &config);
            assert!(!found.is_empty() && !format!("{found:?}").contains("hush"), "{found:?}");
        }
    }

    #[test]
    fn what_is_not_known_yet_is_not_judged() {
        let kind = kinds::all().into_iter().find(|one| one.name == "role").unwrap();
        let rules = |rules: Vec<Val>| {
            let by_collection = object([("cars".to_owned(), Value::Value(Known::List(rules)))].into());
            let read = object([("queries_by_collection".to_owned(), by_collection)].into());
            let permissions = object([("read".to_owned(), read)].into());
            let map: Map = [
                ("app".to_owned(), Value::Unknown),
                ("name".to_owned(), text("r")),
                ("permissions".to_owned(), permissions),
            ]
            .into();
            problems(&kind, &map)
        };
        assert!(rules(vec![Value::Unknown]).is_empty());
        assert_eq!(rules(vec![Value::Unknown, text("x =")]).len(), 1, "what is known is");
    }
}
