//! `POST /{app}/sql` and `GET /{app}/sql`: who asks, for what, in which format; then the rows.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bigpeer_chassis::{Access, ApiError, Catalogue, ErrorCode, Json, SystemCollections, app_of};
use bigpeer_tables::{DocumentStore, Stores};
use bigpeer_types::AppId;
use datafusion::error::DataFusionError;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::error::api_error;
use crate::metrics::{self, Outcome};
use crate::rows::{Rows, Turn};
use crate::{Format, SqlSettings, params};

/// In a request, the transaction that must be visible; in an answer, the one that it is true at.
const TRANSACTION_ID: HeaderName = HeaderName::from_static("x-ditto-txn-id");

/// What SQL is given by the process that serves it.
#[derive(Clone)]
pub struct SqlContext {
    stores: Arc<dyn Stores>,
    catalogue: Arc<Catalogue>,
    settings: SqlSettings,
    engine: Arc<Engine>,
    turns: Arc<Semaphore>,
    system: SystemCollections,
}

impl SqlContext {
    /// SQL over the apps of `stores`, for the keys and tokens of `catalogue`.
    ///
    /// # Errors
    /// When DataFusion cannot be set up.
    pub fn new(
        stores: Arc<dyn Stores>,
        catalogue: Arc<Catalogue>,
        settings: SqlSettings,
    ) -> Result<Self, DataFusionError> {
        let engine = Arc::new(Engine::new(&settings)?);
        let turns = Arc::new(Semaphore::new(settings.max_concurrent));
        Ok(Self { stores, catalogue, settings, engine, turns, system: SystemCollections::default() })
    }

    /// With the collections of `system` as tables for keys that may read everything.
    #[must_use]
    pub fn with_system(self, system: SystemCollections) -> Self {
        Self { system, ..self }
    }

    /// Queries that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.settings.max_concurrent.saturating_sub(self.turns.available_permits())
    }
}

impl std::fmt::Debug for SqlContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}

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
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlParameters {
    q: String,
    format: Option<String>,
    /// JSON.
    params: Option<String>,
}

async fn post_sql(
    State(context): State<SqlContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Result<Json<SqlRequest>, ApiError>,
) -> Response {
    let answer = async {
        let (app, access) = context.authenticate(&app, &headers)?;
        let Json(request) = body?;
        context.answer(&app, access, request, &headers).await
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
        let (app, access) = context.authenticate(&app, &headers)?;
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
        };
        context.answer(&app, access, request, &headers).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

impl SqlContext {
    /// Whose request it is, and what it may read.
    fn authenticate(&self, app: &str, headers: &HeaderMap) -> Result<(AppId, Access), ApiError> {
        let app = app_of(app)?;
        let access = self.catalogue.authenticate(&app, headers)?.permissions().read;
        if access == Access::default() {
            return Err(ApiError::new(ErrorCode::Forbidden, "this key may not read anything"));
        }
        Ok((app, access))
    }

    async fn answer(
        &self,
        app: &AppId,
        access: Access,
        request: SqlRequest,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let params = params::parse(request.params)?;
        let format = request.format.or_else(|| Format::from_accept(headers)).unwrap_or_default();
        let unserved = || ApiError::new(ErrorCode::Unavailable, "this app is not served here now; try again");
        let store = self.stores.store(app).ok_or_else(unserved)?;
        self.wait_for_transaction(&store, headers).await?;
        let mut turn = self.turn(format).await?;
        let planned = turn
            .within(Arc::clone(&self.engine).plan(store, (access, self.system.clone()), request.query, params))
            .await;
        metrics::planned(turn.elapsed().as_secs_f64());
        let started = planned.and_then(|planned| {
            let encoder = format.encoder(&planned.schema).map_err(|error| api_error(&error.into()))?;
            let lsn = planned.lsn;
            Ok((planned.run().map_err(|error| api_error(&error))?, encoder, lsn))
        });
        let (batches, encoder, lsn) = started.inspect_err(|error| turn.ends(Outcome::Failed(error.code)))?;
        let mut rows = Rows::new(batches, encoder, turn);
        // Most failures happen before the first row: then there is a status and a message to answer with.
        let first = rows.next().await?;
        let mut response = Body::from_stream(rows.into_stream(first)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(TRANSACTION_ID, HeaderValue::from(lsn.version));
        Ok(response)
    }

    async fn wait_for_transaction(&self, store: &DocumentStore, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers.get(TRANSACTION_ID) else { return Ok(()) };
        let version = value.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            ApiError::new(ErrorCode::BadRequest, "X-DITTO-TXN-ID must be the id of a transaction, a whole number")
        })?;
        match timeout(self.settings.transaction_wait, store.wait_for_version(version)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the tables of an app do not follow its log");
                Err(ApiError::new(
                    ErrorCode::Unavailable,
                    "this app's data cannot be brought up to date now; try again",
                ))
            }
            Err(_) => {
                let message = format!("transaction {version} is not visible here yet; see whether the id is right");
                Err(ApiError::new(ErrorCode::NotFound, message))
            }
        }
    }

    async fn turn(&self, format: Format) -> Result<Turn, ApiError> {
        let busy = || {
            let message = format!("{} queries are running, which is the most at once", self.settings.max_concurrent);
            ApiError::new(ErrorCode::TooManyRequests, message).retry_after(5)
        };
        let turns = Arc::clone(&self.turns).acquire_owned();
        let permit = timeout(self.settings.queue_wait, turns).await.map_err(|_| busy())?.map_err(|_| busy())?;
        Ok(Turn::new(permit, format, Arc::clone(self.catalogue.clock()), self.settings.time_limit))
    }
}
