//! Random rules, claims and documents: no door shows a document, or takes one, that the rule forbids by a model of its own,
//! and none hides or refuses one that it allows.

use bigpeer_types::{IdGenerator, SeededIds};

use super::*;

/// A value of a field or claim; none is MISSING, `Some(None)` is NULL.
type Field = Option<Option<i64>>;

/// Three-valued logic with MISSING, as docs/dql.md has it, by its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truth {
    True,
    False,
    Null,
    Missing,
}

enum Rule {
    Compare(&'static str, Operand, &'static str),
    IsMissing(Operand),
    Not(Box<Rule>),
    And(Box<Rule>, Box<Rule>),
    Or(Box<Rule>, Box<Rule>),
}

#[derive(Clone)]
enum Operand {
    Claim(&'static str),
    Field(&'static str),
    Number(i64),
}

const FIELDS: [&str; 3] = ["a", "b", "c"];
const CLAIMS: [&str; 3] = ["x", "y", "z"];

fn pick<T: Clone>(chance: &SeededIds, from: &[T]) -> T {
    from[usize::try_from(chance.next_u64() % from.len() as u64).unwrap()].clone()
}

fn value(chance: &SeededIds) -> Field {
    match chance.next_u64() % 8 {
        0 => None,
        1 => Some(None),
        other => Some(Some(i64::try_from(other % 3).unwrap() - 1)),
    }
}

fn operand(chance: &SeededIds) -> Operand {
    match chance.next_u64() % 4 {
        0 => Operand::Field(pick(chance, &FIELDS)),
        1 => Operand::Number(i64::try_from(chance.next_u64() % 3).unwrap() - 1),
        _ => Operand::Claim(pick(chance, &CLAIMS)),
    }
}

fn rule(chance: &SeededIds, depth: u32) -> Rule {
    let inner = || Box::new(rule(chance, depth - 1));
    match if depth == 0 { 0 } else { chance.next_u64() % 6 } {
        3 => Rule::Not(inner()),
        4 => Rule::And(inner(), inner()),
        5 => Rule::Or(inner(), inner()),
        2 => Rule::IsMissing(operand(chance)),
        _ => Rule::Compare(pick(chance, &FIELDS), operand(chance), pick(chance, &["=", "!=", "<", ">="])),
    }
}

impl Operand {
    fn text(&self) -> String {
        match self {
            Self::Claim(name) => format!(":claims.{name}"),
            Self::Field(name) => (*name).to_owned(),
            Self::Number(number) => format!("({number})"),
        }
    }

    fn value(&self, document: &BTreeMap<&str, Field>, claims: &BTreeMap<&str, Field>) -> Field {
        match self {
            Self::Claim(name) => claims[name],
            Self::Field(name) => document[name],
            Self::Number(number) => Some(Some(*number)),
        }
    }
}

impl Rule {
    fn text(&self) -> String {
        match self {
            Self::Compare(field, operand, op) => format!("{field} {op} {}", operand.text()),
            Self::IsMissing(operand) => format!("{} IS MISSING", operand.text()),
            Self::Not(inner) => format!("NOT ({})", inner.text()),
            Self::And(left, right) => format!("({}) AND ({})", left.text(), right.text()),
            Self::Or(left, right) => format!("({}) OR ({})", left.text(), right.text()),
        }
    }

    fn holds(&self, document: &BTreeMap<&str, Field>, claims: &BTreeMap<&str, Field>) -> Truth {
        let both = |left: &Self, right: &Self| [left.holds(document, claims), right.holds(document, claims)];
        let of = |flag: bool| if flag { Truth::True } else { Truth::False };
        match self {
            Self::Compare(field, operand, op) => match (document[field], operand.value(document, claims)) {
                (None, _) | (_, None) => Truth::Missing,
                (Some(None), _) | (_, Some(None)) => Truth::Null,
                (Some(Some(left)), Some(Some(right))) => match *op {
                    "=" => of(left == right),
                    "!=" => of(left != right),
                    "<" => of(left < right),
                    _ => of(left >= right),
                },
            },
            Self::IsMissing(operand) => of(operand.value(document, claims).is_none()),
            Self::Not(inner) => match inner.holds(document, claims) {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                unknown @ (Truth::Null | Truth::Missing) => unknown,
            },
            Self::And(left, right) => {
                let both = both(left, right);
                [Truth::False, Truth::Missing, Truth::Null]
                    .into_iter()
                    .find(|one| both.contains(one))
                    .unwrap_or(Truth::True)
            }
            Self::Or(left, right) => {
                let both = both(left, right);
                [Truth::True, Truth::Null, Truth::Missing]
                    .into_iter()
                    .find(|one| both.contains(one))
                    .unwrap_or(Truth::False)
            }
        }
    }
}

fn json_of(fields: &BTreeMap<&str, Field>) -> serde_json::Map<String, Value> {
    fields.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!((*value)?)))).collect()
}

/// Ids in an answer of a door that reads.
fn ids(answer: &Value) -> BTreeSet<u64> {
    let rows = ["items", "documents"].into_iter().find_map(|field| answer[field].as_array());
    let id = |row: &Value| row["_id"].as_u64().or_else(|| row["id"].as_u64()).unwrap();
    rows.unwrap_or_else(|| panic!("no rows: {answer}")).iter().map(id).collect()
}

#[tokio::test]
async fn no_door_shows_or_takes_what_a_rule_forbids_and_none_hides_or_refuses_what_it_allows() {
    let world = world(short()).await;
    let mut shown = [0, 0];
    for seed in 0..40_u64 {
        let chance = SeededIds::new(seed);
        let collection = format!("c{seed}");
        let documents: Vec<BTreeMap<&str, Field>> =
            (0..20).map(|_| FIELDS.iter().map(|name| (*name, value(&chance))).collect()).collect();
        let stored: Vec<Value> = (0_u64..)
            .zip(&documents)
            .map(|(id, document)| {
                let mut json = json_of(document);
                json.insert("_id".to_owned(), id.into());
                json.into()
            })
            .collect();
        let statement = format!(
            "INSERT INTO {collection} DOCUMENTS {}",
            (0..20).map(|n| format!("(:d{n})")).collect::<Vec<_>>().join(", ")
        );
        let args: serde_json::Map<String, Value> =
            (0..20).zip(&stored).map(|(n, json)| (format!("d{n}"), json.clone())).collect();
        world.ok(&statement, args.into()).await;

        let claims: BTreeMap<&str, Field> = CLAIMS.iter().map(|name| (*name, value(&chance))).collect();
        let rules: Vec<Rule> = (0..=chance.next_u64() % 2).map(|_| rule(&chance, 3)).collect();
        let texts: Vec<String> = rules.iter().map(Rule::text).collect();
        let access = json!({"queriesByCollection": {&collection: texts}});
        let permissions = serde_json::from_value(json!({"qlVersion": 1, "read": access, "write": access})).unwrap();
        world.catalogue.put_role(&world.app, &name("role"), permissions).await.unwrap();
        let token = world.user_with(&world.app, "u", json_of(&claims), &["role"]).await.1;
        let allowed =
            |document: &BTreeMap<&str, Field>| rules.iter().any(|rule| rule.holds(document, &claims) == Truth::True);
        let expected: BTreeSet<u64> =
            (0_u64..).zip(&documents).filter(|(_, document)| allowed(document)).map(|(id, _)| id).collect();
        shown[0] += expected.len();
        shown[1] += documents.len() - expected.len();

        let case = format!("seed {seed}: {texts:?} with {claims:?}");
        let ask = |path: &'static str, body: Value| {
            let (world, token) = (&world, &token);
            async move {
                let (status, text) = world.knock("POST", path, Some(token), &body).await;
                (status, serde_json::from_str::<Value>(&text).unwrap())
            }
        };
        let all = json!({"statement": format!("SELECT * FROM {collection}")});
        let by_id = json!({"statement": format!("SELECT _id FROM {collection} WHERE _id IN (0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19)")});
        let (_, one) = ask("/{app}/api/v5/store/execute", all.clone()).await;
        assert_eq!(ids(&one), expected, "{case}");
        assert_eq!(ids(&ask("/{app}/api/v5/store/execute", by_id).await.1), expected, "{case}");
        let (_, several) = ask("/{app}/api/v1/transaction", json!({"statements": [all]})).await;
        assert_eq!(ids(&several["results"][0]), expected, "{case}");
        let (_, found) = ask("/{app}/api/v4/store/find", json!({"collection": collection, "query": "true"})).await;
        assert_eq!(ids(&found), expected, "{case}");
        let (_, count) = ask("/{app}/api/v4/store/count", json!({"collection": collection, "query": "true"})).await;
        assert_eq!(count["count"].as_u64(), Some(expected.len() as u64), "{case}");
        for (id, document) in (100_u64..).zip(&documents) {
            let mut json = json_of(document);
            json.insert("_id".to_owned(), id.into());
            let insert = json!({"statement": format!("INSERT INTO {collection} DOCUMENTS (:d)"), "args": {"d": json}});
            let (status, answer) = ask("/{app}/api/v5/store/execute", insert).await;
            assert_eq!(status, if allowed(document) { 200 } else { 403 }, "{case}: {document:?}: {answer}");
        }
    }
    assert!(shown.iter().all(|count| *count > 100), "rules that allow, and rules that forbid: {shown:?}");
}
