//! `Runner`: what the background task does.
//!
//! # Cancellation
//! The task ends between two steps, after the batch that is being written; nothing is half done then, nor when the
//! process is killed.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_protocol::{PeerEffect, VERSION, pb};
use bigpeer_types::{Clock, IdGenerator};
use tokio::sync::watch;

use super::active::Active;
use super::{After, Backoff, ConnectError, Endpoint, Link, Login, after_close, log_in, refresh, request};
use crate::identity::{Certificate, PeerKey};
use crate::local::Evaluation;
use crate::signals::Signals;
use crate::store::{Durability, Store, Token};
use crate::{ConnectSettings, Connection, Credentials, PeerError, PeerEvent, Status};

/// Bytes of documents that the server may have under way: what is received but not yet stored is never more.
const CREDIT_BYTES: u64 = 8 * 1024 * 1024;

/// A token, or a certificate, is renewed when it has this long to live.
pub(super) const RENEW_BEFORE: Duration = Duration::from_secs(60);

pub(super) struct Runner {
    pub(super) store: Store,
    pub(super) signals: Arc<Signals>,
    pub(super) evaluation: Evaluation,
    pub(super) settings: ConnectSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdGenerator>,
    /// Turns true, or its sender goes, when the peer is to disconnect.
    pub(super) stopped: watch::Receiver<bool>,
}

/// How a session ended.
pub(super) enum End {
    /// The peer was told to disconnect.
    Stopped,
    /// The server said so.
    Closed(pb::Close),
    /// Anything else.
    Failed(PeerError),
}

impl Runner {
    /// Sessions, one after the other, until told to stop or refused for good.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.backoff_min, self.settings.backoff_max);
        let mut stopped = self.stopped.clone();
        let mut new_token = false;
        loop {
            let last_error = None;
            if backoff.failures() == 0 {
                self.signals.set_connection(Connection::Connecting { failures: 0, last_error });
            }
            let end = self.session(new_token, &mut backoff).await;
            let after = match &end {
                End::Stopped => return,
                End::Closed(close) => after_close(close),
                End::Failed(error) => after_failure(error),
            };
            let reason = match &end {
                End::Stopped => String::new(),
                End::Closed(close) => close.message.clone(),
                End::Failed(error) => error.to_string(),
            };
            let first_failure = backoff.failures() == 0;
            let mut delay = backoff.next(&*self.ids);
            let refused = match after {
                After::Reconnect(at_least) => {
                    delay = delay.max(at_least);
                    new_token = false;
                    None
                }
                // A token that was refused although it is new will be refused again.
                After::NewToken if new_token => Some(reason.clone()),
                After::NewToken => {
                    new_token = true;
                    delay = Duration::ZERO;
                    None
                }
                After::NewSite => self.new_site().await.err().map(|error| error.to_string()),
                After::Stop => Some(reason.clone()),
            };
            if first_failure {
                self.signals.event(PeerEvent::Disconnected { reason: reason.clone() });
            }
            if let Some(reason) = refused {
                tracing::warn!(reason, "the server refused this peer; it stops trying");
                self.signals.set_connection(Connection::Refused { reason: reason.clone() });
                self.signals.event(PeerEvent::Refused { reason });
                return;
            }
            tracing::debug!(reason, ?delay, "no session; trying again");
            let failures = backoff.failures();
            self.signals.set_connection(Connection::Connecting { failures, last_error: Some(reason) });
            tokio::select! {
                biased;
                () = told(&mut stopped) => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// One session, from the login to its end.
    async fn session(&mut self, new_token: bool, backoff: &mut Backoff) -> End {
        let mut stopped = self.stopped.clone();
        let connecting = self.connect(new_token);
        let connected = tokio::select! {
            biased;
            () = told(&mut stopped) => return End::Stopped,
            connected = connecting => connected,
        };
        let (link, welcome, token, shown) = match connected {
            Ok(connected) => connected,
            Err(Ended::Closed(close)) => return End::Closed(close),
            Err(Ended::Failed(error)) => return End::Failed(error),
        };
        backoff.reset();
        self.signals.set_connection(Connection::Connected);
        self.signals.event(PeerEvent::Connected);
        let expires_ms = if welcome.expires_at_ms == 0 { token.expires_ms } else { welcome.expires_at_ms };
        let expires_ms = shown.map_or(expires_ms, |certificate| certificate.expires_ms.min(expires_ms));
        let mut active = Active::new(self, link, expires_ms);
        let end = active.run(&mut stopped).await;
        let close = match &end {
            End::Stopped => pb::Close::new(pb::CloseCode::CloseDone, "done"),
            End::Closed(_) => pb::Close::default(),
            End::Failed(error) => pb::Close::new(pb::CloseCode::CloseInternal, error.to_string()),
        };
        active.link.close(close).await;
        end
    }

    /// Logs in if needed, connects, says hello, and waits for the welcome.
    async fn connect(&self, new_token: bool) -> Result<(Link, pb::Welcome, Token, Option<Certificate>), Ended> {
        let endpoint = Endpoint::new(&self.settings.url, &self.settings.app)?;
        let token = self.token(&endpoint, new_token).await?;
        let begin = |work: &mut crate::store::Work<'_>| {
            work.begin_session();
            Ok(work.status.clone())
        };
        let status = self.store.write(Durability::Process, begin).await?;
        let hello = self.hello(&status, &token)?;
        let shown = self.certificate(&endpoint).await?;
        let tls = match &shown {
            Some((key, certificate)) => Some(key.shows(certificate, self.settings.network.tls())?),
            None => self.settings.network.tls(),
        };
        let mut link = match Link::connect(&endpoint, &self.settings, tls, hello).await {
            Ok(link) => link,
            Err(ConnectError::Handshake(error)) if shown.is_some() => {
                // It may be the certificate: its authority was replaced, or this clock is wrong. The next try gets another.
                tracing::debug!(%error, "the connection was not made; another certificate is asked for");
                self.store.write(Durability::Process, |work| work.set_certificate(None)).await?;
                return Err(error.into());
            }
            Err(error) => return Err(PeerError::from(error).into()),
        };
        let shown = shown.map(|(_, certificate)| certificate);
        let welcome = tokio::time::timeout(self.settings.connect_timeout, link.next())
            .await
            .map_err(|_| PeerError::Unreachable("no welcome within the time allowed".to_owned()))??;
        for effect in welcome {
            if let PeerEffect::Welcomed(welcome) = effect {
                return Ok((link, welcome, token, shown));
            }
            if let PeerEffect::Closed(close) = effect {
                return Err(Ended::Closed(close));
            }
        }
        Err(Ended::Failed(PeerError::Protocol("the session did not begin with a welcome".to_owned())))
    }

    fn hello(&self, status: &Status, token: &Token) -> Result<pb::Hello, PeerError> {
        let last_lsn = status.subscriptions.values().filter_map(|subscription| subscription.cursor).max();
        Ok(pb::Hello {
            versions: vec![VERSION],
            site: status.site.ok_or(PeerError::NoSite)?.get(),
            access_token: token.token.reveal().to_owned(),
            device: Some(super::device(&self.settings)),
            last_lsn: last_lsn.map(pb::Lsn::from),
            last_seq: status.committed,
            acknowledged_seq: status.acknowledged,
            compressions: vec![pb::Compression::Zstd.into()],
            credit: CREDIT_BYTES,
            tells_held: true,
        })
    }

    /// What to show to a server below TLS.
    async fn certificate(&self, endpoint: &Endpoint) -> Result<Option<(PeerKey, Certificate)>, PeerError> {
        if !endpoint.is_tls() {
            return Ok(None);
        }
        let now_ms = self.clock.now_ms();
        let (key, certificate) = self.store.read(|tables| Ok((tables.key()?, tables.certificate()?))).await?;
        Ok(key.zip(certificate.filter(|certificate| now_ms < certificate.expires_ms)))
    }

    /// Whether there is a certificate that is good for a while, where there should be one.
    async fn is_certified(&self, endpoint: &Endpoint) -> Result<bool, PeerError> {
        let good_from = self.clock.now_ms().saturating_add(millis(RENEW_BEFORE));
        let good = self.certificate(endpoint).await?.is_some_and(|(_, one)| good_from < one.expires_ms);
        Ok(good || !endpoint.is_tls())
    }

    /// A token that is good for a while: the stored one, or a new one for the same site.
    async fn token(&self, endpoint: &Endpoint, new_token: bool) -> Result<Token, PeerError> {
        let stored = self.store.read(|tables| tables.token()).await?;
        let Credentials::ApiKey(key) = &self.settings.credentials else {
            let refused = || PeerError::Refused("the token was refused; get a new one".to_owned());
            return if new_token { Err(refused()) } else { stored.ok_or_else(refused) };
        };
        let Some(stored) = stored else { return self.log_in_again(endpoint, key, None).await };
        let good_until = stored.expires_ms.saturating_sub(millis(RENEW_BEFORE));
        if !new_token && self.clock.now_ms() < good_until && self.is_certified(endpoint).await? {
            return Ok(stored);
        }
        let csr = request(endpoint, &self.store, &*self.ids).await?;
        match refresh(endpoint, stored.for_the_next(), csr.as_deref(), &self.settings).await {
            Ok(login) => self.keep(login).await,
            // The key that the old token came from may be gone, and this one good.
            Err(PeerError::Refused(_)) => self.log_in_again(endpoint, key, Some(&stored.token)).await,
            Err(error) => Err(error),
        }
    }

    pub(super) async fn keep(&self, login: Login) -> Result<Token, PeerError> {
        let token = login.token.clone();
        let app = self.settings.app.clone();
        let change = move |work: &mut crate::store::Work<'_>| {
            work.adopt(&app, login.site)?;
            work.set_login(&login.token, login.certificate.as_ref())
        };
        self.store.write(Durability::Power, change).await?;
        Ok(token)
    }

    /// A login gives a new site, unless the server keeps the one of the token before. The store can take a new one when nothing
    /// of the old one waits to be pushed.
    async fn log_in_again(
        &self,
        endpoint: &Endpoint,
        key: &crate::Secret,
        previous: Option<&crate::Secret>,
    ) -> Result<Token, PeerError> {
        let (unpushed, site) = {
            let status = self.signals.status.borrow();
            (status.unpushed, status.site)
        };
        // Who has nothing to lose need not ask twice.
        let login = if unpushed == 0 || previous.is_some() {
            let csr = request(endpoint, &self.store, &*self.ids).await?;
            Some(log_in(endpoint, key, previous, csr.as_deref(), &self.settings).await?)
        } else {
            None
        };
        if let Some(login) = &login
            && previous.is_some()
            && Some(login.site) == site
        {
            return self.keep(login.clone()).await;
        }
        let (0, Some(login)) = (unpushed, login) else {
            return Err(PeerError::Refused(format!(
                "the store's site may not be used any more, and {unpushed} transactions of it are not pushed; connect \
                 with the API key that it was made with, or give them up by deleting the store"
            )));
        };
        let token = login.token.clone();
        let change = move |work: &mut crate::store::Work<'_>| {
            work.replace_site(login.site)?;
            work.set_login(&login.token, login.certificate.as_ref())
        };
        self.store.write(Durability::Power, change).await?;
        Ok(token)
    }

    /// The store turned out to be an old copy, whose site has gone on elsewhere.
    async fn new_site(&self) -> Result<(), PeerError> {
        let Credentials::ApiKey(key) = &self.settings.credentials else {
            return Err(PeerError::Refused("the store is an old copy; it needs a new site and token".to_owned()));
        };
        let endpoint = Endpoint::new(&self.settings.url, &self.settings.app)?;
        self.log_in_again(&endpoint, key, None).await.map(drop)
    }
}

/// Why connecting did not lead to a session.
enum Ended {
    Closed(pb::Close),
    Failed(PeerError),
}

impl From<PeerError> for Ended {
    fn from(error: PeerError) -> Self {
        Self::Failed(error)
    }
}

/// What to do after a failure on this side of the connection.
fn after_failure(error: &PeerError) -> After {
    match error {
        PeerError::Refused(_)
        | PeerError::Url(_)
        | PeerError::Trust(_)
        | PeerError::OtherApp { .. }
        | PeerError::OtherSite { .. }
        | PeerError::NoSite
        | PeerError::Damaged(_)
        | PeerError::NotAStore { .. }
        | PeerError::Closed => After::Stop,
        PeerError::Unreachable(_) => After::Reconnect(Duration::ZERO),
        // A full disk, or a server that does not follow the protocol: someone has to mend it, and may.
        PeerError::Store(_)
        | PeerError::Io { .. }
        | PeerError::Protocol(_)
        | PeerError::StoreInUse(_)
        | PeerError::Dql(_)
        | PeerError::WrongStatement(_)
        | PeerError::TransactionTooLarge(_)
        | PeerError::Abandoned(_)
        | PeerError::NoSubscription(_)
        | PeerError::NoAttachment(_)
        | PeerError::Rejected { .. }
        | PeerError::NotConnected => After::Reconnect(Duration::from_secs(5)),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Until the peer is told to disconnect, or nobody is there to tell it.
pub(crate) async fn told(stopped: &mut watch::Receiver<bool>) {
    let _told = stopped.wait_for(|stop| *stop).await.map(drop);
}
