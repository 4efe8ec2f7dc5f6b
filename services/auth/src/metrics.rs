//! What is counted.

use metrics::counter;

/// A login, by an API key or a provider.
pub(crate) fn login(by: &'static str, ok: bool) {
    counter!("bigpeer_auth_logins_total", "by" => by, "outcome" => outcome(ok)).increment(1);
}

/// A certificate was given.
pub(crate) fn certificate() {
    counter!("bigpeer_auth_certificates_total").increment(1);
}

/// A use of a refresh token.
pub(crate) fn refresh(ok: bool) {
    counter!("bigpeer_auth_refreshes_total", "outcome" => outcome(ok)).increment(1);
}

const fn outcome(ok: bool) -> &'static str {
    if ok { "let_in" } else { "refused" }
}
