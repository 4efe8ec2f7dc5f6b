//! `POST /{app}/sql` and `GET /{app}/sql`: who asks, for what, in which format; then the rows.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bigpeer_chassis::{ApiError, ErrorCode, Json, bearer, body_bytes};
use serde::Deserialize;

use crate::Format;
use crate::error::api_error;
use crate::language::Language;
use crate::metrics::Door;
use crate::params::Params;
use crate::rows::Rows;
use crate::service::{Question, SqlContext, SqlUser};

/// In a request, the transaction that must be visible; in an answer, the one that it is true at.
const TRANSACTION_ID: HeaderName = HeaderName::from_static("x-ditto-txn-id");

/// The routes of SQL. [`bigpeer_chassis::finish_router`] belongs around them.
pub fn router(context: SqlContext) -> Router {
    Router::new().route("/{app}/sql", get(get_sql).post(post_sql)).with_state(context)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlRequest {
    query: String,
    #[serde(default)]
    params: serde_json::Value,
    format: Option<Format>,
    as_of: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlParameters {
    q: String,
    format: Option<String>,
    /// JSON.
    params: Option<String>,
    as_of: Option<u64>,
}

async fn post_sql(State(context): State<SqlContext>, Path(app): Path<String>, request: Request) -> Response {
    let answer = async {
        let headers = request.headers().clone();
        // Who asks comes first: nothing is read for whoever may not.
        let user = user(&context, &app, &headers)?;
        let Json(request) = Json::parse(&body_bytes(request).await?)?;
        answer(&context, &user, request, &headers).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

async fn get_sql(
    State(context): State<SqlContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
    parameters: Result<Query<SqlParameters>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let answer = async {
        let user = user(&context, &app, &headers)?;
        let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
        let Query(parameters) = parameters.map_err(|rejection| bad(rejection.body_text()))?;
        let format = parameters.format.map(|name| {
            let names = Format::ALL.map(Format::as_str).join(", ");
            Format::from_name(&name).ok_or_else(|| bad(format!("there is no such format; the formats are {names}")))
        });
        let params = parameters.params.map(|text| Json::parse(text.as_bytes()).map(|Json(params)| params));
        let request = SqlRequest {
            query: parameters.q,
            params: params.transpose()?.unwrap_or_default(),
            format: format.transpose()?,
            as_of: parameters.as_of,
        };
        answer(&context, &user, request, &headers).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// Whose request it is, and what it may read.
fn user(context: &SqlContext, app: &str, headers: &HeaderMap) -> Result<SqlUser, ApiError> {
    context.user(app, bearer(headers).ok_or_else(ApiError::unauthorized)?)
}

async fn answer(
    context: &SqlContext,
    user: &SqlUser,
    request: SqlRequest,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let format = request.format.or_else(|| Format::from_accept(headers)).unwrap_or_default();
    let question = Question {
        text: request.query,
        params: Params::from_json(request.params)?,
        language: Language::Own,
        as_of: request.as_of,
        after: transaction(headers)?,
        door: Door::Http(format),
    };
    let mut answer = context.ask(user, question).await?;
    let version = answer.transaction().version;
    let encoder = match format.encoder(answer.schema()).map_err(|error| api_error(&error.into())) {
        Ok(encoder) => encoder,
        Err(error) => {
            answer.fail(&error).await;
            return Err(error);
        }
    };
    let mut rows = Rows::new(answer, encoder);
    // Most failures happen before the first row: then there is a status and a message to answer with.
    let first = rows.next().await?;
    let mut response = Body::from_stream(rows.into_stream(first)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(TRANSACTION_ID, HeaderValue::from(version));
    Ok(response)
}

/// The transaction that must be visible.
fn transaction(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(TRANSACTION_ID) else { return Ok(None) };
    let version = value.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, "X-DITTO-TXN-ID must be the id of a transaction, a whole number")
    })?;
    Ok(Some(version))
}
