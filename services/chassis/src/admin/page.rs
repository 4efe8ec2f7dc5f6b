//! Pages of lists: `?limit=…&after=…`, answered with `next`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{ApiError, ErrorCode};

/// Most entries of a page.
pub const MAX_PAGE: usize = 1000;
/// Longest name to begin behind, in characters: none is longer.
const MAX_AFTER: usize = 256;
/// Entries of a page that does not say.
const DEFAULT_PAGE: usize = 100;

/// A query string. Refusals are [`ApiError`]s.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let shown: String = text.chars().take(300).collect();
            ApiError::new(ErrorCode::BadRequest, format!("the query is not understood: {shown}"))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: Option<usize>,
    after: Option<String>,
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries at most: 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// The name that it begins behind.
    pub after: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(Asked { limit, after }) = Query::from_request_parts(parts, state).await?;
        Self::new(limit, after)
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// What to ask for as `after` next, if there is more.
    pub next: Option<String>,
}

impl Page {
    /// A page.
    ///
    /// # Errors
    /// For a limit that is none.
    pub fn new(limit: Option<usize>, after: Option<String>) -> Result<Self, ApiError> {
        let limit = limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(ApiError::new(ErrorCode::BadRequest, format!("'limit' must be 1 to {MAX_PAGE}")));
        }
        if after.as_ref().is_some_and(|after| after.chars().count() > MAX_AFTER) {
            return Err(ApiError::new(ErrorCode::BadRequest, "'after' must be the 'next' of the page before"));
        }
        Ok(Self { limit, after })
    }

    /// The part of `all` that is asked for; `all` is in order of `name`.
    pub fn of<T>(&self, all: impl IntoIterator<Item = T>, name: impl Fn(&T) -> String) -> Paged<T> {
        let behind = |one: &T| self.after.as_ref().is_none_or(|after| name(one) > *after);
        let mut rest = all.into_iter().filter(behind);
        let entries: Vec<T> = rest.by_ref().take(self.limit).collect();
        let more = rest.next().is_some();
        let next = entries.last().filter(|_| more).map(name);
        Paged { entries, next }
    }

    /// What can be in the query of a list, as OpenAPI has parameters.
    #[must_use]
    pub fn parameters() -> Vec<(&'static str, Value)> {
        vec![
            ("limit", json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE })),
            (
                "after",
                json!({ "type": "string", "maxLength": MAX_AFTER, "description": "The last name of the page before: its `next`." }),
            ),
        ]
    }

    /// The schema of a list's answer.
    #[must_use]
    pub fn schema(field: &str, entry: &Value) -> Value {
        json!({
            "type": "object", "required": [field, "next"], "additionalProperties": false,
            "properties": { field: { "type": "array", "maxItems": MAX_PAGE, "items": entry }, "next": { "type": ["string", "null"] } }
        })
    }
}

impl<T> Paged<T> {
    /// The answer, with each entry as `show` shows it.
    pub fn json(self, field: &str, show: impl FnMut(T) -> Value) -> axum::Json<Value> {
        let entries: Vec<Value> = self.entries.into_iter().map(show).collect();
        axum::Json(json!({ field: entries, "next": self.next }))
    }
}
