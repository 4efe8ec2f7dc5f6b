//! `bigpeer_auth_provider`.

use bigpeer_auth::ProviderRequest;
use serde_json::{Map as Object, Value as Json, json};
use tf_provider::value::Value;

use super::{Kind, created, members, named, of_app, permissions};
use crate::field::Field;
use crate::value::{Known, Map, as_list, attribute};

/// The blocks of which it has one, and what the API calls them.
const TYPES: [&str; 3] = ["webhook", "oidc", "anonymous"];

pub(super) fn kind() -> Kind {
    let webhook = vec![
        Field::text("url").required().doc("Where it is asked, http or https. Private addresses are for the operator to allow."),
        Field::texts("secrets").secret().doc(
            "What requests are signed with, in base64: one, or two while one is changed, the new one first. Without, the \
             server makes one, which is `secret` then. Taken away again, those that are there stay.",
        ),
        Field::text("secret").answer().secret().doc("The secret that the server made, in base64, when there were no `secrets`."),
    ];
    let oidc = vec![
        Field::text("issuer").required().doc("The issuer, whose keys are found by discovery."),
        Field::texts("audiences").required().doc("One of these must be in `aud`."),
        Field::texts("algorithms")
            .or(json!(["RS256"]))
            .doc("What tokens may be signed with: `RS256`, `RS384`, `RS512`, `PS256`, `ES256`, `ES384`, `EdDSA`."),
        Field::text("user_claim").or("sub").doc("The claim that says who it is."),
        Field::text_map("claims")
            .or(json!({}))
            .doc("What rules know as `:claims.KEY`, by the claim of the token, or the path to it."),
        Field::text("roles_claim").doc("The claim that holds roles."),
        Field::text("permissions_claim").doc("The claim that holds permissions."),
    ];
    let anonymous = vec![Field::text("shared_token").required().secret().doc("What everybody has: 16 bytes at least.")];
    let fields = vec![
        of_app(),
        named("What it is called: 1 to 63 of `a-z A-Z 0-9 . _ -`. Logins name it."),
        Field::optional_block("webhook", webhook).doc("Your own server, which gets the token and says whose it is."),
        Field::optional_block("oidc", oidc).doc("An OpenID Connect issuer, whose tokens are taken."),
        Field::optional_block("anonymous", anonymous).doc("Everybody with a token that all share. For development."),
        Field::texts("roles").or(json!([])).doc("Roles of all of its users."),
        Field::optional_block("permissions", permissions::fields())
            .block_rule(permissions::check)
            .doc("What all of its users may do."),
        Field::whole("session_secs").or(Json::Null).doc(
            "How long a login lasts before the provider is asked again, in seconds: at most, where a webhook says how long. \
             By default 30 days, and a day with `oidc`.",
        ),
        created(),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_auth_provider/resource.tf"),
        to_api,
        from_api,
        check,
        shown_once: |body| {
            (body.get("type") == Some(&"webhook".into()) && body.get("secrets").is_none()).then_some("secret")
        },
        adjust,
        one_of: &TYPES,
        ..Kind::new(
            "auth_provider",
            "What vouches for users. It has one of the blocks `webhook`, `oidc` and `anonymous`. To delete it shuts all of its \
             users out at once.",
            "apps/{app}/providers/{name}",
            fields,
        )
    }
}

/// `{"webhook": {"url"}, "roles"}` becomes `{"type": "webhook", "url", "roles"}`.
fn to_api(mut fields: Object<String, Json>) -> Json {
    for name in TYPES {
        if let Some(Json::Object(inner)) = fields.remove(name) {
            fields.extend(inner);
            fields.insert("type".to_owned(), name.into());
        }
    }
    Json::Object(fields)
}

/// And back.
fn from_api(json: Json) -> Object<String, Json> {
    let mut fields = members(json);
    if let Some(Json::String(name)) = fields.get("type").cloned() {
        let inner = Json::Object(fields.clone());
        fields.insert(name, inner);
    }
    fields
}

fn check(json: &Json) -> Result<(), String> {
    let request: ProviderRequest = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
    request.check()
}

/// How long a login lasts depends on the type. A secret that the server made is none any more when there are others.
fn adjust(planned: &mut Map) {
    let is_of = |name: &&str| as_list(attribute(planned, name)).is_some_and(|blocks| !blocks.is_empty());
    if attribute(planned, "session_secs").is_null()
        && let Some(name) = TYPES.iter().copied().find(is_of)
        && let Ok(request) = serde_json::from_value::<ProviderRequest>(json!({ "type": name }))
        && let Ok(secs) = i64::try_from(request.session_secs())
    {
        planned.insert("session_secs".to_owned(), Value::Value(Known::Whole(secs)));
    }
    let Some(Value::Value(Known::List(blocks))) = planned.get_mut("webhook") else { return };
    if let Some(Value::Value(Known::Map(webhook))) = blocks.first_mut()
        && !attribute(webhook, "secrets").is_null()
    {
        webhook.insert("secret".to_owned(), Value::Null);
    }
}
