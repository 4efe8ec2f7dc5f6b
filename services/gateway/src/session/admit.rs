//! Letting a peer in: the Hello, its token, and what the log holds of its site; later, renewed tokens and changed
//! permissions.

use std::sync::Arc;

use bigpeer_chassis::{
    Account, Catalogue, Door, ErrorCode, Held, Meter, PeerCertificate, Permissions, Principal, TokenAge,
};
use bigpeer_log::ReadError;
use bigpeer_protocol::pb::{self, CloseCode};
use bigpeer_protocol::{Admission, GatewayEffect, GatewaySession, decode_peer_frame};
use bigpeer_tables::TablesError;
use bigpeer_types::{AppId, SiteId};

use super::Session;
use crate::apps::App;
use crate::metrics;
use crate::rejections::{self, Rejection};
use crate::rules::Rules;
use crate::socket::Gateway;
use crate::websocket::{Incoming, WebSocket};

/// When a peer may come again if its app has as many sessions as it may, in milliseconds.
const FULL_RETRY_MS: u64 = 30_000;

/// A peer that may come in.
pub(super) struct Admitted {
    pub(super) app: Arc<App>,
    /// What the app uses, and the session's place in that.
    pub(super) meter: Arc<Meter>,
    pub(super) place: Held,
    pub(super) rules: Arc<Rules>,
    /// The catalogue that `rules` were looked up in.
    pub(super) catalogue: u64,
    pub(super) token: String,
    /// What the peer showed in the TLS handshake, if it did.
    pub(super) certificate: Option<PeerCertificate>,
    pub(super) admission: Admission,
    /// Who logged in, and what the peer says about its device.
    pub(super) user: Account,
    pub(super) device: Option<pb::Device>,
    /// What the peer has not heard of.
    pub(super) rejections: Vec<Rejection>,
}

/// Waits for the Hello, and looks at it.
///
/// # Errors
/// The Close that the peer gets instead.
pub(super) async fn handshake(
    gateway: &Gateway,
    app: &AppId,
    number: u64,
    certificate: Option<&PeerCertificate>,
    machine: &mut GatewaySession,
    socket: &mut WebSocket,
) -> Result<Admitted, pb::Close> {
    loop {
        let message = tokio::select! {
            biased;
            () = gateway.context.shutdown.cancelled() => return Err(super::going_away(number)),
            message = socket.receive(machine.max_frame_bytes()) => message,
        };
        let effects = match message {
            Some(Ok(Incoming::Message(bytes))) => {
                metrics::received(bytes.len());
                match decode_peer_frame(bytes, machine.max_frame_bytes()) {
                    Ok(framed) => machine.receive(framed.message),
                    Err(error) => {
                        metrics::malformed_frame();
                        machine.malformed(&error)
                    }
                }
            }
            Some(Ok(Incoming::Ping(_) | Incoming::Pong)) => continue,
            Some(Err(violation)) => {
                metrics::malformed_frame();
                super::messages::refused_frame(machine, violation)
            }
            Some(Ok(Incoming::Close)) | None => {
                return Err(pb::Close::new(CloseCode::CloseDone, "the connection ended"));
            }
        };
        for effect in effects {
            match effect {
                GatewayEffect::Admit(hello) => {
                    // In line: when everybody comes at once each still costs the same. Never closed.
                    let _turn = gateway.admissions.acquire().await;
                    return admit(gateway, app, number, certificate, hello).await;
                }
                GatewayEffect::Close(close) => return Err(close),
                // A Hello is answered with one of the two.
                GatewayEffect::Send(_)
                | GatewayEffect::Append(_)
                | GatewayEffect::Subscribe(_)
                | GatewayEffect::Unsubscribe(_)
                | GatewayEffect::Resume
                | GatewayEffect::Held(_)
                | GatewayEffect::Renew(_) => {}
            }
        }
    }
}

async fn admit(
    gateway: &Gateway,
    app: &AppId,
    number: u64,
    certificate: Option<&PeerCertificate>,
    hello: pb::Hello,
) -> Result<Admitted, pb::Close> {
    let context = &gateway.context;
    // Before the token is looked at: what changes later is looked at again.
    let catalogue = gateway.catalogue();
    let (site, user, permissions, expires_at_ms) = authenticate(&context.catalogue, app, &hello.access_token)?;
    if site.get() != hello.site {
        return Err(pb::Close::new(CloseCode::CloseForeignSite, "the access token was given to another site"));
    }
    let certificate = match certificate {
        Some(shown) => Some(matches(&context.catalogue, shown, app, site, &user)?),
        None if context.settings.require_certificate => {
            let message = "this server takes peers with a client certificate only: send a 'csr' with the login or refresh, \
                           and show the certificate in the TLS handshake";
            return Err(pb::Close::new(CloseCode::CloseUnauthenticated, message));
        }
        None => None,
    };
    let store = context.stores.store(app);
    let store = store.ok_or_else(|| pb::Close::new(CloseCode::CloseUnavailable, "the app is not served here now"))?;
    let app = gateway.apps.get(&store, &context.log, &gateway.budget);
    let meter = context.catalogue.meter(&app.id);
    let place = meter.session(app.has(site)).ok_or_else(|| {
        let message = "the app has as many sessions as its quota allows; connect again later";
        let close = pb::Close::new(CloseCode::CloseUnavailable, message);
        // Not all at once again.
        pb::Close { retry_after_ms: FULL_RETRY_MS + super::spread(number), ..close }
    })?;
    let rules = app.rules(&user, permissions);
    let last_seq = context.log.last_seq(&app.id, site).await.map_err(|error| log_unavailable(&error))?;
    // After the site's last transaction: what is told of it is true at this position.
    let head = context.log.head(&app.id).await.map_err(|error| log_unavailable(&error))?;
    let rejections = if last_seq > hello.acknowledged_seq {
        store.wait_for(head).await.map_err(|error| unreadable(&error))?;
        let found = rejections::after(&store.snapshot(), site, hello.acknowledged_seq).await;
        found.map_err(|error| unreadable(&error))?
    } else {
        Vec::new()
    };
    let now_ms = context.clock.now_ms();
    let snapshot = store.snapshot();
    let mut rejected = Vec::with_capacity(rejections.len());
    for rejection in &rejections {
        let message = rejection.message(&snapshot, &rules, now_ms).await;
        rejected.push(message.map_err(|error| unreadable(&error))?);
    }
    let admission = Admission {
        session: format!("{number}-{:08x}", context.ids.next_u64() >> 32),
        last_seq,
        rejected,
        head,
        server_time_ms: now_ms,
        expires_at_ms,
        permissions_json: serde_json::to_string(rules.permissions()).unwrap_or_default(),
        compress: context.settings.compress,
    };
    let (token, device) = (hello.access_token, hello.device);
    Ok(Admitted { app, meter, place, rules, catalogue, token, certificate, admission, user, device, rejections })
}

/// Whose token it is, what it allows and when it ends.
fn authenticate(
    catalogue: &Catalogue,
    app: &AppId,
    token: &str,
) -> Result<(SiteId, Account, Arc<Permissions>, u64), pb::Close> {
    match catalogue.authenticate_token(app, Door::Sync, token) {
        Ok(Principal::Peer { site, account, permissions, expires_at_ms }) => {
            Ok((site, account, permissions, expires_at_ms))
        }
        Ok(Principal::ApiKey { .. }) => Err(pb::Close::new(
            CloseCode::CloseUnauthenticated,
            "log in first: only a peer's access token opens a session",
        )),
        Err(error) if error.code == ErrorCode::TooManyRequests => {
            let retry_after_ms = u64::from(error.retry_after_secs.unwrap_or(1)) * 1000;
            Err(pb::Close { retry_after_ms, ..pb::Close::new(CloseCode::CloseUnavailable, error.message) })
        }
        Err(error) if error.code == ErrorCode::Forbidden => {
            Err(pb::Close::new(CloseCode::CloseUnauthenticated, error.message))
        }
        // One that was not signed here is wrong once, not twice.
        Err(_)
            if catalogue.read_token(app, token).is_some()
                && catalogue.verify_token(app, token, TokenAge::MayHaveEnded).is_ok() =>
        {
            Err(pb::Close::new(CloseCode::CloseTokenExpired, "the access token has expired; refresh it"))
        }
        Err(_) => Err(pb::Close::new(CloseCode::CloseUnauthenticated, "the access token is not valid for this app")),
    }
}

/// Whether a client certificate is that of whoever carries the token, and good at this moment: the handshake may have been a
/// while ago, or have resumed an earlier one.
fn matches(
    catalogue: &Catalogue,
    shown: &PeerCertificate,
    app: &AppId,
    site: SiteId,
    user: &Account,
) -> Result<PeerCertificate, pb::Close> {
    let login = &shown.login;
    if login.app != *app || login.site != site || shown.account() != *user {
        let message = "the client certificate was given to another site or user than the access token";
        return Err(pb::Close::new(CloseCode::CloseForeignSite, message));
    }
    let refused = |reason: String| {
        let message = format!("the client certificate is not good (any more): {reason}; refresh, and ask for another");
        pb::Close::new(CloseCode::CloseUnauthenticated, message)
    };
    let verified = catalogue.verify_certificate(shown.der()).map_err(|error| refused(error.to_string()))?;
    catalogue.certificate_holds(&verified).map_err(|_| refused("it was revoked".to_owned()))?;
    Ok(verified)
}

fn log_unavailable(error: &ReadError) -> pb::Close {
    tracing::warn!(%error, "the log cannot be read; a peer was turned away");
    pb::Close::new(CloseCode::CloseUnavailable, "the log cannot be read now")
}

fn unreadable(error: &TablesError) -> pb::Close {
    tracing::warn!(%error, "documents cannot be read; a peer was turned away");
    pb::Close::new(CloseCode::CloseUnavailable, "documents cannot be read now")
}

impl Session {
    /// A new token for the running session.
    pub(super) fn renew(&mut self, token: String) {
        match authenticate(&self.gateway.context.catalogue, &self.app.id, &token) {
            Ok((site, ..)) if site != self.machine.site() => {
                self.end(CloseCode::CloseForeignSite, "the access token was given to another site");
            }
            Ok((_, account, ..)) if self.certificate.as_ref().is_some_and(|shown| shown.account() != account) => {
                self.end(CloseCode::CloseForeignSite, "the client certificate was given to another user or key");
            }
            Ok((_, account, permissions, expires_at_ms)) => {
                self.token = token;
                self.expires_at_ms = expires_at_ms;
                self.put_in_force(&account, permissions);
            }
            Err(close) => self.end(close.code(), &close.message),
        }
    }

    /// The catalogue has changed: what the token allows may have, too.
    pub(super) fn permissions_changed(&mut self) {
        let catalogue = &self.gateway.context.catalogue;
        match authenticate(catalogue, &self.app.id, &self.token) {
            // With the token it is still let in, and may get another certificate.
            Ok(_) if self.certificate.as_ref().is_some_and(|shown| catalogue.certificate_holds(shown).is_err()) => {
                self.end(CloseCode::CloseUnauthenticated, "the client certificate is not good any more; refresh");
            }
            Ok((_, account, permissions, _)) => self.put_in_force(&account, permissions),
            Err(close) if close.code() == CloseCode::CloseTokenExpired => self.end(close.code(), &close.message),
            Err(_) => self.end(CloseCode::CloseAccessRevoked, "access was revoked"),
        }
    }

    fn put_in_force(&mut self, account: &Account, permissions: Arc<Permissions>) {
        if *permissions != *self.rules.permissions() {
            self.rules = self.app.rules(account, permissions);
            self.app.hub.set_rules(self.queue.number(), &self.rules);
            self.rules_changed();
        }
    }
}
