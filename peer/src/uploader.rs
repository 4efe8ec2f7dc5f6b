//! `Uploader`: pushes ready-made transactions over one connection, without a local store, for bulk writers.

use std::collections::VecDeque;
use std::sync::Arc;

use bigpeer_protocol::limits::MAX_PUSH_TRANSACTIONS;
use bigpeer_protocol::{PeerEffect, VERSION, pb};
use bigpeer_types::{Lsn, RandomIds, SiteId};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::session::{
    After, Backoff, Endpoint, Link, after_close, device, log_in_without_refresh_token, refresh, told,
};
use crate::{ConnectSettings, Credentials, PeerError, Secret};

/// Bytes of transactions that are pushed and not acknowledged; a push beyond waits.
const WINDOW_BYTES: usize = 32 * 1024 * 1024;

/// What an uploader goes on with after a restart: keep it where only its user can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploaderState {
    /// The site that the transactions are written as.
    pub site: SiteId,
    /// The newest token of the site; an expired one is good for a new one.
    pub token: Secret,
}

/// How far the server has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Everything up to this sequence number is durable.
    pub seq: u64,
    /// An LSN at or after it.
    pub lsn: Lsn,
}

/// A connection that writes as one site. Transactions are numbered by the caller, from [`Self::last_seq`] + 1 on without
/// gaps; they may be pushed as fast as they are made, a bounded number of bytes are under way. When the connection is lost
/// the uploader reconnects and pushes again what is not acknowledged: each transaction is applied once.
#[derive(Debug)]
pub struct Uploader {
    site: SiteId,
    last_seq: u64,
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    progress: watch::Receiver<Progress>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Progress {
    acknowledged: Acknowledged,
    token: Secret,
    /// Why it is over.
    failure: Option<PeerError>,
}

/// A transaction that is not acknowledged; it gives its room back when it is dropped.
#[derive(Debug)]
struct Queued {
    seq: u64,
    transaction: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Uploader {
    /// Logs in, connects, and learns what the log holds of the site. With a `state` from before the site is the same one,
    /// and [`Self::last_seq`] says where to go on.
    ///
    /// # Errors
    /// [`PeerError::Url`], [`PeerError::Refused`], [`PeerError::Unreachable`], [`PeerError::Protocol`].
    pub async fn connect(settings: ConnectSettings, state: Option<UploaderState>) -> Result<Self, PeerError> {
        let endpoint = Endpoint::new(&settings.url, &settings.app)?;
        let state = match (state, &settings.credentials) {
            (Some(state), Credentials::ApiKey(_)) => {
                let login = refresh(&endpoint, &state.token, None, &settings).await?;
                UploaderState { site: login.site, token: login.token.token }
            }
            (None, Credentials::ApiKey(key)) => {
                let login = log_in_without_refresh_token(&endpoint, key, &settings).await?;
                UploaderState { site: login.site, token: login.token.token }
            }
            (_, Credentials::Token { site, token }) => UploaderState { site: *site, token: token.clone() },
        };
        let (queue, queued) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let progress = Progress { acknowledged: Acknowledged::default(), token: state.token.clone(), failure: None };
        let (progress_sender, progress) = watch::channel(progress);
        let mut pump = Pump {
            endpoint,
            settings,
            site: state.site,
            progress: progress_sender,
            queued,
            unacknowledged: VecDeque::new(),
            sent: 0,
        };
        let (link, last_seq) = pump.connect().await?;
        let task = tokio::spawn(pump.run(link, stopped));
        let room = Arc::new(Semaphore::new(WINDOW_BYTES));
        Ok(Self { site: state.site, last_seq, queue, room, progress, stop, task })
    }

    /// The site that the transactions are written as: their stamps must be its own.
    #[must_use]
    pub const fn site(&self) -> SiteId {
        self.site
    }

    /// The newest sequence number of the site that the log held when the uploader connected.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// What to give to [`Self::connect`] to go on as the same site.
    #[must_use]
    pub fn state(&self) -> UploaderState {
        UploaderState { site: self.site, token: self.progress.borrow().token.clone() }
    }

    /// Pushes a transaction (from a `TransactionBuilder`), `seq` being one more than the last. Waits for room, not for the
    /// acknowledgement.
    ///
    /// # Errors
    /// What ended the uploader: [`PeerError::Rejected`], [`PeerError::Refused`], [`PeerError::Closed`].
    pub async fn push(&self, seq: u64, transaction: Bytes) -> Result<(), PeerError> {
        let bytes = u32::try_from(transaction.len().clamp(1, WINDOW_BYTES)).unwrap_or(u32::MAX);
        let mut progress = self.progress.clone();
        let room = tokio::select! {
            biased;
            failed = progress.wait_for(|progress| progress.failure.is_some()) => return Err(failure_of(failed.ok().as_deref())),
            room = Arc::clone(&self.room).acquire_many_owned(bytes) => room.map_err(|_| PeerError::Closed)?,
        };
        self.queue.send(Queued { seq, transaction, _room: room }).map_err(|_| failure_of(Some(&self.progress.borrow())))
    }

    /// How far the server has acknowledged, now.
    #[must_use]
    pub fn acknowledged(&self) -> Acknowledged {
        self.progress.borrow().acknowledged
    }

    /// Waits until everything up to `seq` is durable.
    ///
    /// # Errors
    /// What ended the uploader before: [`PeerError::Rejected`], [`PeerError::Refused`], [`PeerError::Closed`].
    pub async fn wait_acknowledged(&self, seq: u64) -> Result<Acknowledged, PeerError> {
        let mut progress = self.progress.clone();
        let reached = |progress: &Progress| progress.acknowledged.seq >= seq || progress.failure.is_some();
        let now = progress.wait_for(reached).await.map_err(|_| PeerError::Closed)?;
        if now.acknowledged.seq >= seq { Ok(now.acknowledged) } else { Err(failure_of(Some(&now))) }
    }

    /// Ends the connection. What is not acknowledged may or may not become durable; see [`Self::wait_acknowledged`].
    pub async fn close(self) {
        let _gone = self.stop.send(true);
        if self.task.await.is_err() {
            tracing::error!("the uploader's task panicked");
        }
    }
}

fn failure_of(progress: Option<&Progress>) -> PeerError {
    progress.and_then(|progress| progress.failure.clone()).unwrap_or(PeerError::Closed)
}

/// The task: keeps a connection, and what is not acknowledged.
struct Pump {
    endpoint: Endpoint,
    settings: ConnectSettings,
    site: SiteId,
    progress: watch::Sender<Progress>,
    queued: mpsc::UnboundedReceiver<Queued>,
    /// In `seq` order.
    unacknowledged: VecDeque<Queued>,
    /// How many of those were sent over the present connection.
    sent: usize,
}

impl Pump {
    /// Connects, and answers what the log holds of the site.
    async fn connect(&mut self) -> Result<(Link, u64), PeerError> {
        let (token, acknowledged) = {
            let progress = self.progress.borrow();
            (progress.token.clone(), progress.acknowledged.seq)
        };
        let hello = pb::Hello {
            versions: vec![VERSION],
            site: self.site.get(),
            access_token: token.reveal().to_owned(),
            device: Some(device(&self.settings)),
            // An uploader keeps no count of its own: the log's is the truth.
            last_seq: u64::MAX,
            acknowledged_seq: acknowledged,
            compressions: vec![pb::Compression::Zstd.into()],
            ..pb::Hello::default()
        };
        let tls = self.settings.network.tls();
        let mut link = Link::connect(&self.endpoint, &self.settings, tls, hello).await?;
        let welcome = tokio::time::timeout(self.settings.connect_timeout, link.next())
            .await
            .map_err(|_| PeerError::Unreachable("no welcome within the time allowed".to_owned()))??;
        for effect in welcome {
            if let PeerEffect::Welcomed(welcome) = effect {
                self.acknowledge(welcome.last_seq, Lsn::ZERO);
                self.sent = 0;
                return Ok((link, welcome.last_seq));
            }
            if let PeerEffect::Closed(close) = effect {
                return Err(closed(&close));
            }
        }
        Err(PeerError::Protocol("the session did not begin with a welcome".to_owned()))
    }

    async fn run(mut self, mut link: Link, mut stopped: watch::Receiver<bool>) {
        let mut backoff = Backoff::new(self.settings.backoff_min, self.settings.backoff_max);
        let failure = loop {
            let ended = tokio::select! {
                biased;
                () = told(&mut stopped) => break PeerError::Closed,
                ended = self.session(&mut link) => ended,
            };
            if !ended.is_retryable() {
                break ended;
            }
            backoff.reset();
            let again = tokio::select! {
                biased;
                () = told(&mut stopped) => break PeerError::Closed,
                again = self.connect_again(&mut backoff) => again,
            };
            match again {
                Ok(new) => link = new,
                Err(error) => break error,
            }
        };
        link.close(pb::Close::new(pb::CloseCode::CloseDone, "done")).await;
        self.progress.send_modify(|progress| progress.failure = Some(failure));
    }

    /// Tries until there is a session, or no hope of one.
    async fn connect_again(&mut self, backoff: &mut Backoff) -> Result<Link, PeerError> {
        loop {
            tokio::time::sleep(backoff.next(&RandomIds)).await;
            let error = match self.renew_and_connect().await {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            if !error.is_retryable() {
                return Err(error);
            }
            tracing::debug!(%error, "the uploader is not connected; trying again");
        }
    }

    async fn renew_and_connect(&mut self) -> Result<Link, PeerError> {
        if matches!(self.settings.credentials, Credentials::ApiKey(_)) {
            let old = self.progress.borrow().token.clone();
            let login = refresh(&self.endpoint, &old, None, &self.settings).await?;
            self.progress.send_modify(|progress| progress.token = login.token.token);
        }
        Ok(self.connect().await?.0)
    }

    /// Pushes and hears until the session ends; answers why it did.
    async fn session(&mut self, link: &mut Link) -> PeerError {
        let mut queue_open = true;
        loop {
            if let Err(error) = self.push(link) {
                return error;
            }
            tokio::select! {
                biased;
                effects = link.next() => match effects {
                    Ok(effects) => {
                        for effect in effects {
                            if let Some(ended) = self.effect(effect) {
                                return ended;
                            }
                        }
                    }
                    Err(error) => return error,
                },
                queued = self.queued.recv(), if queue_open => match queued {
                    Some(queued) => {
                        self.unacknowledged.push_back(queued);
                        while let Ok(more) = self.queued.try_recv() {
                            self.unacknowledged.push_back(more);
                        }
                    }
                    None => queue_open = false,
                },
            }
        }
    }

    /// Sends as much as the window takes.
    fn push(&mut self, link: &mut Link) -> Result<(), PeerError> {
        while let Some(window) = link.session.push_window() {
            let (mut bytes, mut transactions) = (0, Vec::new());
            for queued in self.unacknowledged.iter().skip(self.sent) {
                bytes += queued.transaction.len();
                let most = window.max_transactions.min(MAX_PUSH_TRANSACTIONS);
                if bytes > window.max_bytes || transactions.len() >= most {
                    break;
                }
                let (seq, transaction) = (queued.seq, queued.transaction.clone());
                // Nothing of an uploader builds on what was rejected: a rejection ends it.
                transactions.push(pb::PushedTransaction { seq, transaction, basis: seq - 1, more: false });
                // One transaction a frame once they are large: a frame must not pass the server's limit.
                if bytes >= bigpeer_protocol::limits::TARGET_FRAME_BYTES {
                    break;
                }
            }
            if transactions.is_empty() {
                return Ok(());
            }
            self.sent += transactions.len();
            let effects = link.session.push(transactions).map_err(|error| PeerError::Protocol(error.to_string()))?;
            link.execute(effects);
        }
        Ok(())
    }

    fn effect(&mut self, effect: PeerEffect) -> Option<PeerError> {
        match effect {
            PeerEffect::Accepted { seq, lsn } => {
                self.acknowledge(seq, lsn);
                None
            }
            PeerEffect::Rejected(rejected) => {
                let code = rejected.code().as_str_name().to_owned();
                Some(PeerError::Rejected { seq: rejected.seq, code, message: rejected.message })
            }
            PeerEffect::Closed(close) => Some(closed(&close)),
            PeerEffect::Send(_)
            | PeerEffect::Welcomed(_)
            | PeerEffect::Subscribed(_)
            | PeerEffect::Apply { .. }
            | PeerEffect::Left { .. }
            | PeerEffect::CaughtUp { .. }
            | PeerEffect::Resync { .. }
            | PeerEffect::Refused(_)
            | PeerEffect::AskHeld(_) => None,
        }
    }

    /// Everything up to `seq` is durable.
    fn acknowledge(&mut self, seq: u64, lsn: Lsn) {
        while self.unacknowledged.front().is_some_and(|queued| queued.seq <= seq) {
            self.unacknowledged.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        self.progress.send_if_modified(|progress| {
            let before = progress.acknowledged;
            let now = &mut progress.acknowledged;
            *now = Acknowledged { seq: now.seq.max(seq), lsn: now.lsn.max(lsn) };
            *now != before
        });
    }
}

/// The end of a session as an error: retryable when a new session may do better.
fn closed(close: &pb::Close) -> PeerError {
    match after_close(close) {
        After::Reconnect(_) | After::NewToken => PeerError::Unreachable(close.message.clone()),
        After::NewSite | After::Stop => PeerError::Refused(close.message.clone()),
    }
}
