//! What the guard has proven, as handlers take it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::catalogue::{App, Tenant};
use crate::{Administrator, ApiError};

/// The app that is asked about: it exists, and the caller administers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedApp(pub App);

/// The tenant that is asked about: it exists, and the caller administers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedTenant(pub Tenant);

fn proven<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, ApiError> {
    // A route that asks for less than its handler needs is a defect: it serves nobody.
    parts.extensions.get::<T>().cloned().ok_or_else(|| ApiError::internal(&"a route that is not guarded as it needs"))
}

impl<S: Send + Sync> FromRequestParts<S> for AskedApp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        proven(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AskedTenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        proven(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        proven(parts)
    }
}
