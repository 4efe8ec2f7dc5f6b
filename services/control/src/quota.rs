//! Quotas of apps: operators say what an app may use, and whoever administers it sees it.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::admin::{AdminRoute, AskedApp, Asks, Concerns};
use bigpeer_chassis::{ApiError, App, ErrorCode, Json, Quota};
use bigpeer_types::AppId;

use crate::{ControlContext, schemas};

const ONE: &str = "/admin/v1/apps/{app}/quota";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let schema = schemas::quota();
    vec![
        AdminRoute::get(ONE, Asks::App, find)
            .says("What an app may use; what is not named it may use as much of as there is")
            .answers(200, Some(schema.clone())),
        AdminRoute::put(ONE, Asks::Operator, put)
            .says("Says what an app may use, in the place of what was said before")
            .takes(schema.clone())
            .answers(200, Some(schema)),
        AdminRoute::delete(ONE, Asks::Operator, delete).says("Lets an app use whatever there is"),
    ]
}

async fn find(State(context): State<ControlContext>, AskedApp(app): AskedApp) -> Answer<Quota> {
    Answer(Quota::clone(&context.catalogue.quota(&app.id)))
}

/// The app that an operator names.
fn app(context: &ControlContext, id: &str) -> Result<App, ApiError> {
    let found = AppId::new(id).ok().and_then(|id| context.catalogue.app(&id));
    found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no app with this id"))
}

fn about(app: App, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.extensions_mut().insert(Concerns { tenant: Some(app.tenant), app: Some(app.id) });
    response
}

async fn put(
    State(context): State<ControlContext>,
    Path(id): Path<String>,
    body: Result<Json<Quota>, ApiError>,
) -> Result<Response, ApiError> {
    let app = app(&context, &id)?;
    let Json(quota) = body?;
    let quota = context.catalogue.put_quota(&app.id, quota).await?;
    Ok(about(app, Answer(quota)))
}

async fn delete(State(context): State<ControlContext>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let app = app(&context, &id)?;
    context.catalogue.delete_quota(&app.id).await?;
    Ok(about(app, StatusCode::NO_CONTENT))
}
