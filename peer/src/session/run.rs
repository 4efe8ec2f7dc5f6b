//! `Runner`: what the background task does.
//!
//! # Consistency
//! What the session says is stored in the order in which it was said, in batches: while one batch is being written, the
//! next one gathers, bounded by the credit that the server was given. Credit is given back when a batch is committed.
//!
//! # Cancellation
//! The task ends between two steps, after the batch that is being written; nothing is half done then, nor when the
//! process is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_protocol::{PeerEffect, VERSION, pb};
use bigpeer_types::{Clock, IdGenerator};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{After, Backoff, Endpoint, Link, Login, after_close, log_in, refresh};
use crate::apply::{Applied, SessionIds, apply, prepare};
use crate::local::Evaluation;
use crate::signals::Signals;
use crate::store::{Durability, Store, Token, Unpushed};
use crate::{ConnectSettings, Connection, Credentials, PeerError, PeerEvent, Status, SubscriptionId};

/// Bytes of documents that the server may have under way: what is received but not yet stored is never more.
const CREDIT_BYTES: u64 = 8 * 1024 * 1024;

/// A token is renewed when it has this long to live.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

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
enum End {
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
        let (link, welcome, token) = match connected {
            Ok(connected) => connected,
            Err(Ended::Closed(close)) => return End::Closed(close),
            Err(Ended::Failed(error)) => return End::Failed(error),
        };
        backoff.reset();
        self.signals.set_connection(Connection::Connected);
        self.signals.event(PeerEvent::Connected);
        let expires_ms = if welcome.expires_at_ms == 0 { token.expires_ms } else { welcome.expires_at_ms };
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
    async fn connect(&self, new_token: bool) -> Result<(Link, pb::Welcome, Token), Ended> {
        let endpoint = Endpoint::new(&self.settings.url, &self.settings.app)?;
        let token = self.token(&endpoint, new_token).await?;
        let begin = |work: &mut crate::store::Work<'_>| {
            work.begin_session();
            Ok(work.status.clone())
        };
        let status = self.store.write(Durability::Process, begin).await?;
        let hello = self.hello(&status, &token)?;
        let mut link = Link::connect(&endpoint, &self.settings, hello).await?;
        let welcome = tokio::time::timeout(self.settings.connect_timeout, link.next())
            .await
            .map_err(|_| PeerError::Unreachable("no welcome within the time allowed".to_owned()))??;
        for effect in welcome {
            match effect {
                PeerEffect::Welcomed(welcome) => return Ok((link, welcome, token)),
                PeerEffect::Closed(close) => return Err(Ended::Closed(close)),
                _other => {}
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
            device: Some(pb::Device { name: self.settings.device.clone(), ..pb::Device::default() }),
            last_lsn: last_lsn.map(pb::Lsn::from),
            last_seq: status.committed,
            acknowledged_seq: status.acknowledged,
            compressions: vec![pb::Compression::Zstd.into()],
            credit: CREDIT_BYTES,
        })
    }

    /// A token that is good for a while: the stored one, or a new one for the same site.
    async fn token(&self, endpoint: &Endpoint, new_token: bool) -> Result<Token, PeerError> {
        let stored = self.store.read(|tables| tables.token()).await?;
        let Credentials::ApiKey(key) = &self.settings.credentials else {
            let refused = || PeerError::Refused("the token was refused; get a new one".to_owned());
            return if new_token { Err(refused()) } else { stored.ok_or_else(refused) };
        };
        let Some(stored) = stored else { return self.log_in_again(endpoint, key).await };
        let good_until = stored.expires_ms.saturating_sub(millis(RENEW_BEFORE));
        if !new_token && self.clock.now_ms() < good_until {
            return Ok(stored);
        }
        match refresh(endpoint, &stored.token, self.settings.connect_timeout).await {
            Ok(login) => self.keep(login).await,
            // The key that the old token came from may be gone, and this one good.
            Err(PeerError::Refused(_)) => self.log_in_again(endpoint, key).await,
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, login: Login) -> Result<Token, PeerError> {
        let token = login.token.clone();
        let app = self.settings.app.clone();
        let change = move |work: &mut crate::store::Work<'_>| {
            work.adopt(&app, login.site)?;
            work.set_token(&login.token)
        };
        self.store.write(Durability::Power, change).await?;
        Ok(token)
    }

    /// A login gives a new site. The store can take it when nothing of the old one waits to be pushed.
    async fn log_in_again(&self, endpoint: &Endpoint, key: &crate::Secret) -> Result<Token, PeerError> {
        let unpushed = self.signals.status.borrow().unpushed;
        if unpushed > 0 {
            return Err(PeerError::Refused(format!(
                "the store's site may not be used any more, and {unpushed} transactions of it are not pushed; connect \
                 with the API key that it was made with, or give them up by deleting the store"
            )));
        }
        let login = log_in(endpoint, key, self.settings.connect_timeout).await?;
        let token = login.token.clone();
        let change = move |work: &mut crate::store::Work<'_>| {
            work.replace_site(login.site)?;
            work.set_token(&login.token)
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
        self.log_in_again(&endpoint, key).await.map(drop)
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
        | PeerError::Rejected { .. }
        | PeerError::NotConnected => After::Reconnect(Duration::from_secs(5)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An open session.
struct Active<'r> {
    runner: &'r Runner,
    link: Link,
    status: watch::Receiver<Status>,
    /// The session's names of subscriptions; only grows and shrinks here.
    names: Arc<SessionIds>,
    last_name: u32,
    /// What was said and is not being stored yet.
    batch: Vec<PeerEffect>,
    /// The batch that is being stored; answers with its cost in credit.
    storing: Option<BoxFuture<'static, Result<(Applied, usize), PeerError>>>,
    /// Local transactions being read.
    reading: Option<BoxFuture<'static, Result<Vec<Unpushed>, PeerError>>>,
    /// A new token on its way.
    renewing: Option<BoxFuture<'static, Result<Login, PeerError>>>,
    /// When the token needs renewing.
    renew_at: Option<Instant>,
}

impl<'r> Active<'r> {
    fn new(runner: &'r Runner, link: Link, expires_ms: u64) -> Self {
        let mut active = Self {
            runner,
            link,
            status: runner.signals.status.subscribe(),
            names: Arc::default(),
            last_name: 0,
            batch: Vec::new(),
            storing: None,
            reading: None,
            renewing: None,
            renew_at: None,
        };
        active.status.mark_changed();
        active.schedule_renewal(expires_ms);
        active
    }

    async fn run(&mut self, stopped: &mut watch::Receiver<bool>) -> End {
        let mut end = loop {
            match self.step(stopped).await {
                Ok(None) => {}
                Ok(Some(end)) => break end,
                Err(error) => break End::Failed(error),
            }
        };
        // What was said before the end still counts: a Close may come right behind a Rejected.
        if let Err(error) = self.store_rest().await {
            end = End::Failed(error);
        }
        end
    }

    /// Waits for one thing to happen, and deals with it.
    async fn step(&mut self, stopped: &mut watch::Receiver<bool>) -> Result<Option<End>, PeerError> {
        if self.storing.is_none() && !self.batch.is_empty() {
            self.storing = Some(self.store_batch());
        }
        let renew_at = self.renew_at.filter(|_| self.renewing.is_none());
        tokio::select! {
            biased;
            () = told(stopped) => return Ok(Some(End::Stopped)),
            stored = pending(&mut self.storing) => {
                self.storing = None;
                self.stored(stored?).await?;
            }
            read = pending(&mut self.reading) => {
                self.reading = None;
                self.push(read?)?;
            }
            login = pending(&mut self.renewing) => {
                self.renewing = None;
                self.renewed(login).await?;
            }
            changed = self.status.changed() => {
                changed.map_err(|_| PeerError::Closed)?;
                self.match_subscriptions().await?;
                self.look_for_unpushed();
            }
            effects = self.link.next() => return self.received(effects?),
            () = at(renew_at) => self.renew(),
        }
        Ok(None)
    }

    fn received(&mut self, effects: Vec<PeerEffect>) -> Result<Option<End>, PeerError> {
        for effect in effects {
            match effect {
                PeerEffect::Closed(close) => return Ok(Some(End::Closed(close))),
                PeerEffect::Send(_) | PeerEffect::Welcomed(_) => {}
                PeerEffect::Accepted { .. }
                | PeerEffect::Rejected(_)
                | PeerEffect::Subscribed(_)
                | PeerEffect::Apply { .. }
                | PeerEffect::Left { .. }
                | PeerEffect::CaughtUp { .. }
                | PeerEffect::Resync { .. }
                | PeerEffect::Refused(_) => self.batch.push(effect),
            }
        }
        // An outcome makes room for more.
        self.look_for_unpushed();
        Ok(None)
    }

    /// Stores what has gathered, in one transaction.
    fn store_batch(&mut self) -> BoxFuture<'static, Result<(Applied, usize), PeerError>> {
        let effects = std::mem::take(&mut self.batch);
        let cost = effects.iter().map(cost).sum();
        let (names, evaluation) = (Arc::clone(&self.names), self.runner.evaluation.clone());
        let store = self.runner.store.clone();
        async move {
            let change = move |work: &mut crate::store::Work<'_>| apply(work, effects, &names, &evaluation);
            Ok((store.write(Durability::Process, change).await?, cost))
        }
        .boxed()
    }

    async fn stored(&mut self, (applied, cost): (Applied, usize)) -> Result<(), PeerError> {
        if cost > 0 {
            let effects = self.link.session.applied(cost);
            self.link.execute(effects);
        }
        if !applied.start_over.is_empty() {
            self.forget_names(|id| applied.start_over.contains(&id));
            self.match_subscriptions().await?;
        }
        Ok(())
    }

    async fn store_rest(&mut self) -> Result<(), PeerError> {
        if let Some(storing) = self.storing.take() {
            storing.await?;
        }
        if !self.batch.is_empty() {
            self.store_batch().await?;
        }
        Ok(())
    }

    /// Makes the server's subscriptions those of the store.
    async fn match_subscriptions(&mut self) -> Result<(), PeerError> {
        let wanted: BTreeSet<SubscriptionId> = self.status.borrow_and_update().subscriptions.keys().copied().collect();
        self.forget_names(|id| !wanted.contains(&id));
        let known: BTreeSet<SubscriptionId> = self.names.values().copied().collect();
        let missing: Vec<SubscriptionId> = wanted.difference(&known).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let evaluation = self.runner.evaluation.clone();
        let change = move |work: &mut crate::store::Work<'_>| prepare(work, &missing, &evaluation);
        for subscription in self.runner.store.write(Durability::Process, change).await? {
            self.last_name += 1;
            let id = self.last_name;
            let resume = match (subscription.page, subscription.cursor) {
                (Some((snapshot, position)), _) => Some((snapshot, position)),
                (None, Some(cursor)) => Some((cursor, bytes::Bytes::new())),
                (None, None) => None,
            };
            let scope = subscription.scope;
            let resume = resume.map(|(lsn, position)| pb::Resume { lsn: Some(lsn.into()), position, scope });
            let subscribe =
                pb::Subscribe { id, query: subscription.query, arguments_json: subscription.arguments, resume };
            Arc::make_mut(&mut self.names).insert(id, subscription.id);
            let effects = self.link.session.subscribe(subscribe).map_err(misuse)?;
            self.link.execute(effects);
        }
        Ok(())
    }

    /// Ends the server's side of subscriptions.
    fn forget_names(&mut self, which: impl Fn(SubscriptionId) -> bool) {
        let gone: Vec<u32> = self.names.iter().filter(|(_, id)| which(**id)).map(|(name, _)| *name).collect();
        for name in gone {
            Arc::make_mut(&mut self.names).remove(&name);
            let effects = self.link.session.unsubscribe(name);
            self.link.execute(effects);
        }
    }

    /// Reads local transactions when there are some, and room to push them.
    fn look_for_unpushed(&mut self) {
        let Some(window) = self.link.session.push_window() else { return };
        if self.reading.is_some() || self.status.borrow().committed < window.next_seq {
            return;
        }
        let store = self.runner.store.clone();
        let after = window.next_seq - 1;
        let read = async move { store.read(move |tables| tables.unpushed_after(after, window.max_bytes)).await };
        self.reading = Some(read.boxed());
    }

    fn push(&mut self, unpushed: Vec<Unpushed>) -> Result<(), PeerError> {
        let Some(window) = self.link.session.push_window() else { return Ok(()) };
        let mut bytes = 0_usize;
        let fits = |unpushed: &Unpushed| {
            bytes = bytes.saturating_add(unpushed.payload.len());
            bytes <= window.max_bytes
        };
        let transactions = unpushed.into_iter().take(window.max_transactions).take_while(fits);
        let transactions: Vec<pb::PushedTransaction> = transactions
            .map(|Unpushed { seq, basis, payload }| pb::PushedTransaction { seq, transaction: payload, basis })
            .collect();
        if transactions.is_empty() {
            return Ok(());
        }
        let effects = self.link.session.push(transactions).map_err(misuse)?;
        self.link.execute(effects);
        self.look_for_unpushed();
        Ok(())
    }

    fn schedule_renewal(&mut self, expires_ms: u64) {
        let in_ms = expires_ms.saturating_sub(self.runner.clock.now_ms()).saturating_sub(millis(RENEW_BEFORE));
        // A timer cannot be arbitrarily far away; a token that lives for a month is renewed at the next connect.
        let soon = in_ms < millis(Duration::from_secs(30 * 24 * 3600));
        let by_key = matches!(self.runner.settings.credentials, Credentials::ApiKey(_));
        self.renew_at = (soon && by_key).then(|| Instant::now() + Duration::from_millis(in_ms.max(1000)));
    }

    fn renew(&mut self) {
        let (store, settings) = (self.runner.store.clone(), self.runner.settings.clone());
        let renewing = async move {
            let endpoint = Endpoint::new(&settings.url, &settings.app)?;
            let token = store.read(|tables| tables.token()).await?.ok_or(PeerError::NoSite)?;
            refresh(&endpoint, &token.token, settings.connect_timeout).await
        };
        self.renewing = Some(renewing.boxed());
    }

    async fn renewed(&mut self, login: Result<Login, PeerError>) -> Result<(), PeerError> {
        match login {
            Ok(login) => {
                let expires_ms = login.token.expires_ms;
                let token = self.runner.keep(login).await?;
                let effects = self.link.session.renew(token.token.reveal().to_owned());
                self.link.execute(effects);
                self.schedule_renewal(expires_ms);
            }
            // The session lives as long as its token does; the next connect sees to the rest.
            Err(error) => {
                tracing::debug!(%error, "the token was not renewed");
                self.renew_at = Some(Instant::now() + Duration::from_secs(10));
            }
        }
        Ok(())
    }
}

fn misuse(error: impl std::fmt::Display) -> PeerError {
    PeerError::Protocol(error.to_string())
}

/// What an effect takes of the credit.
fn cost(effect: &PeerEffect) -> usize {
    match effect {
        PeerEffect::Apply { bytes, .. } | PeerEffect::Left { bytes, .. } => *bytes,
        PeerEffect::Send(_)
        | PeerEffect::Welcomed(_)
        | PeerEffect::Accepted { .. }
        | PeerEffect::Rejected(_)
        | PeerEffect::Subscribed(_)
        | PeerEffect::CaughtUp { .. }
        | PeerEffect::Resync { .. }
        | PeerEffect::Refused(_)
        | PeerEffect::Closed(_) => 0,
    }
}

/// Until the peer is told to disconnect, or nobody is there to tell it.
pub(crate) async fn told(stopped: &mut watch::Receiver<bool>) {
    let _told = stopped.wait_for(|stop| *stop).await.map(drop);
}

/// The future's answer if there is a future; for ever otherwise. Cancel safe: the future stays where it is.
async fn pending<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
