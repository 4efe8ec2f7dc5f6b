//! `Active`: an open session. Subscribes, pushes, and stores what the server says.
//!
//! # Consistency
//! What the session says is stored in the order in which it was said, in batches: while one batch is being written, the
//! next one gathers, bounded by the credit that the server was given. Credit is given back when a batch is committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_protocol::{PeerEffect, pb};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::run::{End, RENEW_BEFORE, Runner, millis, told};
use super::{Endpoint, Link, Login, refresh, request};
use crate::apply::{Applied, Ready, SessionIds, apply, prepare};
use crate::store::{Durability, Unpushed};
use crate::{Credentials, PeerError, Status, SubscriptionId};

/// A question, the keys of the documents that are here (none, if there are too many), and how many there are.
type Told = (pb::AskHeld, Vec<bytes::Bytes>, u32);

/// An open session.
pub(super) struct Active<'r> {
    runner: &'r Runner,
    pub(super) link: Link,
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
    /// What the server asked: which documents of a collection are here.
    telling: Option<BoxFuture<'static, Result<Told, PeerError>>>,
    /// A new token on its way.
    renewing: Option<BoxFuture<'static, Result<Login, PeerError>>>,
    /// When the token, or the certificate, needs renewing.
    renew_at: Option<Instant>,
}

impl<'r> Active<'r> {
    pub(super) fn new(runner: &'r Runner, link: Link, expires_ms: u64) -> Self {
        let mut active = Self {
            runner,
            link,
            status: runner.signals.status.subscribe(),
            names: Arc::default(),
            last_name: 0,
            batch: Vec::new(),
            storing: None,
            reading: None,
            telling: None,
            renewing: None,
            renew_at: None,
        };
        active.status.mark_changed();
        active.schedule_renewal(expires_ms);
        active
    }

    pub(super) async fn run(&mut self, stopped: &mut watch::Receiver<bool>) -> End {
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
            told = pending(&mut self.telling) => {
                self.telling = None;
                let (ask, keys, count) = told?;
                let effects = self.link.session.tell_held(&ask, keys, count);
                self.link.execute(effects);
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
                | PeerEffect::AskHeld(_)
                | PeerEffect::Refused(_) => self.batch.push(effect),
            }
        }
        // An outcome makes room for more.
        self.look_for_unpushed();
        Ok(None)
    }

    /// Reads which documents of a collection are here. Only the newest question counts.
    fn tell(&mut self, ask: pb::AskHeld) {
        let store = self.runner.store.clone();
        let read = async move {
            let (collection, at_most) = (ask.collection.clone(), ask.at_most);
            let (keys, count) = store.read(move |tables| tables.keys(&collection, at_most)).await?;
            Ok((ask, keys, count))
        };
        self.telling = Some(read.boxed());
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
        if let Some(ask) = applied.asked {
            self.tell(ask);
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
        for Ready { subscription, reached } in self.runner.store.write(Durability::Process, change).await? {
            self.last_name += 1;
            let id = self.last_name;
            let resume = match (subscription.page, subscription.cursor) {
                (Some((snapshot, position)), _) => Some((snapshot, position)),
                (None, Some(cursor)) => Some((cursor, bytes::Bytes::new())),
                (None, None) => None,
            };
            let scope = subscription.scope;
            let resume = resume.map(|(lsn, position)| pb::Resume { lsn: Some(lsn.into()), position, scope });
            let reached = reached.into_iter().map(|(position, lsn)| pb::Reached { position, lsn: Some(lsn.into()) });
            let (query, arguments_json) = (subscription.query, subscription.arguments);
            let subscribe = pb::Subscribe { id, query, arguments_json, resume, reached: reached.collect() };
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
            .map(|Unpushed { seq, basis, payload }| pb::PushedTransaction {
                seq,
                transaction: payload,
                basis,
                more: false,
            })
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
        let ids = Arc::clone(&self.runner.ids);
        let renewing = async move {
            let endpoint = Endpoint::new(&settings.url, &settings.app)?;
            let token = store.read(|tables| tables.token()).await?.ok_or(PeerError::NoSite)?;
            let csr = request(&endpoint, &store, &*ids).await?;
            refresh(&endpoint, token.for_the_next(), csr.as_deref(), &settings).await
        };
        self.renewing = Some(renewing.boxed());
    }

    async fn renewed(&mut self, login: Result<Login, PeerError>) -> Result<(), PeerError> {
        match login {
            Ok(login) => {
                let certificate_ms = login.certificate.as_ref().map(|certificate| certificate.expires_ms);
                let expires_ms = login.token.expires_ms.min(certificate_ms.unwrap_or(u64::MAX));
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
        | PeerEffect::AskHeld(_)
        | PeerEffect::Closed(_) => 0,
    }
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
