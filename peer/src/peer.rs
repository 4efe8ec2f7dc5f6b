//! `Peer`: the handle that an app holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_crdt::{Attachment, DocId, Object, Value};
use bigpeer_dql::QueryType;
use bigpeer_types::{CollectionName, Lsn, SiteId};
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use crate::attachments::{Attachments, Fetch};
use crate::local::{Evaluation, WriteTransaction, parse, parse_arguments, run_select};
use crate::session::{Background, login_into};
use crate::signals::Signals;
use crate::store::{Durability, Store, blocking};
use crate::{
    Certificate, ConnectSettings, Connection, LiveQuery, Params, PeerError, PeerEvent, PeerSettings, QueryResult,
    Rejection, Status, SubscriptionId, WriteStatus,
};

/// A Small Peer: a local store, and its session with a bigpeer. Cheap to clone; all clones are the same peer.
#[derive(Clone, Debug)]
pub struct Peer {
    store: Store,
    signals: Arc<Signals>,
    evaluation: Evaluation,
    settings: Arc<PeerSettings>,
    background: Arc<Background>,
    attachments: Attachments,
}

impl Peer {
    /// Opens the store, and makes it when it is new. Offline until [`Self::connect`].
    ///
    /// # Errors
    /// [`PeerError::StoreInUse`] when another process has it open, [`PeerError::NotAStore`] when it is of another version
    /// or none at all, and failures of the file system.
    pub async fn open(settings: PeerSettings) -> Result<Self, PeerError> {
        let signals = Arc::new(Signals::new());
        let (dir, of_store) = (settings.store_dir.clone(), Arc::clone(&signals));
        let store = blocking(move || Store::open(&dir, of_store)).await??;
        let evaluation = Evaluation::new(&settings);
        let attachments = Attachments::open(store.clone(), Arc::clone(&signals), &settings).await?;
        let background = Arc::default();
        Ok(Self { store, signals, evaluation, settings: Arc::new(settings), background, attachments })
    }

    /// Ends the session and closes the store. Other clones of the peer answer [`PeerError::Closed`] from then on.
    pub async fn close(&self) {
        self.disconnect().await;
        self.store.close().await;
    }

    /// Runs one DQL statement over the local store. A mutation is on disk, as one transaction, when this returns, and is
    /// pushed when there is a session.
    ///
    /// # Errors
    /// When the statement is wrong or cannot be done, [`PeerError::NoSite`] for a mutation before the first login, and
    /// failures of the store. Nothing has changed then.
    pub async fn execute(&self, statement: &str, params: Params) -> Result<QueryResult, PeerError> {
        let statement = parse(statement)?;
        let query_type = statement.query_type();
        let plan = self.evaluation.plan(statement, &params)?;
        match (query_type, plan) {
            (QueryType::Select, bigpeer_dql::Plan::Select(plan)) => {
                let items = self.store.read(move |tables| run_select(tables, plan)).await?;
                Ok(QueryResult { items, ..QueryResult::default() })
            }
            (QueryType::Select | QueryType::Mutation, plan) => {
                let evaluation = self.evaluation.clone();
                let change = move |work: &mut crate::store::Work<'_>| {
                    let mut transaction = WriteTransaction::begin(work, evaluation)?;
                    let mut result = transaction.run(plan)?;
                    result.seq = transaction.finish()?;
                    Ok(result)
                };
                self.store.write(Durability::Power, change).await
            }
        }
    }

    /// Runs several statements as one transaction: all of it is committed, and later pushed, or nothing. `statements` runs
    /// on the store's own thread; while it runs nothing else is written.
    ///
    /// Answers what `statements` answered, and the transaction's sequence number if it changed anything.
    ///
    /// # Errors
    /// What `statements` answers with (use [`PeerError::Abandoned`] for reasons of your own), and as
    /// [`Self::execute`].
    pub async fn transaction<T, F>(&self, statements: F) -> Result<(T, Option<u64>), PeerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut WriteTransaction<'_, '_>) -> Result<T, PeerError> + Send + 'static,
    {
        let evaluation = self.evaluation.clone();
        let change = move |work: &mut crate::store::Work<'_>| {
            let mut transaction = WriteTransaction::begin(work, evaluation)?;
            let answer = statements(&mut transaction)?;
            Ok((answer, transaction.finish()?))
        };
        self.store.write(Durability::Power, change).await
    }

    /// A SELECT that answers now, and again whenever its result has changed.
    ///
    /// # Errors
    /// When the query is wrong, or not a SELECT.
    pub fn observe(&self, query: &str, params: Params) -> Result<LiveQuery, PeerError> {
        let plan = self.evaluation.select(query, &params)?;
        let versions = self.signals.versions.subscribe();
        Ok(LiveQuery::new(self.store.clone(), plan, versions, Arc::clone(&self.settings.clock)))
    }

    /// Asks the server for every document that matches `query` (`SELECT * FROM collection [WHERE condition]`), now and as
    /// they change. Kept in the store until [`Self::unsubscribe`]; the same query with the same arguments is the same
    /// subscription.
    ///
    /// # Errors
    /// When the query cannot be subscribed to, and failures of the store.
    pub async fn subscribe(&self, query: &str, arguments: Params) -> Result<SubscriptionId, PeerError> {
        self.evaluation
            .select(query, &arguments)?
            .is_subscription()
            .map_err(|error| PeerError::Dql(error.to_string()))?;
        let arguments =
            if arguments.is_empty() { String::new() } else { Value::Object(arguments).to_json().to_string() };
        let query = query.to_owned();
        let (id, _new) =
            self.store.write(Durability::Power, move |work| work.add_subscription(&query, &arguments)).await?;
        Ok(id)
    }

    /// Ends a subscription. Its documents stay, without being updated (unless another subscription matches them), until
    /// they are evicted: `EVICT FROM collection WHERE …`.
    ///
    /// # Errors
    /// [`PeerError::NoSubscription`], and failures of the store.
    pub async fn unsubscribe(&self, id: SubscriptionId) -> Result<(), PeerError> {
        self.store.write(Durability::Power, move |work| work.remove_subscription(id)).await
    }

    /// The queries that are subscribed to, with their arguments: what [`Self::observe`] takes, too.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn subscribed(&self) -> Result<Vec<(String, Params)>, PeerError> {
        let stored = self.store.read(|tables| tables.subscriptions()).await?.into_iter();
        stored.map(|one| Ok((one.query, parse_arguments(&one.arguments)?))).collect()
    }

    /// The collections that ever had a document here.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn collections(&self) -> Result<Vec<CollectionName>, PeerError> {
        self.store.read(|tables| tables.collections()).await
    }

    /// Logs in, which gives a new store its site, and with it the right to write. [`Self::connect`] does so by itself.
    ///
    /// # Errors
    /// [`PeerError::Refused`], [`PeerError::Unreachable`], [`PeerError::OtherApp`], [`PeerError::OtherSite`].
    pub async fn login(&self, settings: &ConnectSettings) -> Result<SiteId, PeerError> {
        login_into(&self.store, settings, &*self.settings.ids).await
    }

    /// The certificate that says who this peer is, as of the last login or renewal, whether or not it has ended: for other peers
    /// of its app. Servers give one where they are spoken to below TLS.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn certificate(&self) -> Result<Option<Certificate>, PeerError> {
        self.store.read(|tables| tables.certificate()).await
    }

    /// Starts a background session, in place of the one there may be. A store that has no site yet logs in first, and
    /// this fails if that does; otherwise this returns at once, and the session comes when the server can be reached.
    ///
    /// # Errors
    /// As [`Self::login`] for a store without a site; [`PeerError::Url`], [`PeerError::OtherApp`] and
    /// [`PeerError::OtherSite`] for any.
    pub async fn connect(&self, settings: ConnectSettings) -> Result<(), PeerError> {
        self.disconnect().await;
        crate::session::prepare(&self.store, &settings, &*self.settings.ids).await?;
        self.attachments.start(&settings);
        self.background.start(
            self.store.clone(),
            Arc::clone(&self.signals),
            self.evaluation.clone(),
            settings,
            &self.settings,
        );
        Ok(())
    }

    /// Ends the background session and waits for its end. What is not pushed stays queued.
    pub async fn disconnect(&self) {
        self.attachments.stop().await;
        self.background.stop().await;
        self.signals.set_connection(Connection::Offline);
    }

    /// Copies a file into the store as an attachment, and answers its token for a document: pass [`Attachment::to_value`]
    /// for a field that the statement declares `ATTACHMENT`. The blob is sent to the server in the background, whenever there
    /// is a session; documents do not wait for it. `metadata` is for whoever reads the token: a name, a media type.
    ///
    /// # Errors
    /// When the file cannot be read or the store cannot be written.
    pub async fn attach(&self, file: impl AsRef<Path> + Send, metadata: Object) -> Result<Attachment, PeerError> {
        self.attachments.attach_file(file.as_ref(), metadata).await
    }

    /// [`Self::attach`], for bytes in memory.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub async fn attach_bytes(
        &self,
        content: impl Into<Bytes> + Send,
        metadata: Object,
    ) -> Result<Attachment, PeerError> {
        self.attachments.attach_bytes(content.into(), metadata).await
    }

    /// Gets the attachment of a document: at once when it is here, else from the server, which gives it to whoever may read
    /// the document. Goes on where an earlier fetch was broken off.
    #[must_use]
    pub fn fetch_attachment(&self, collection: &CollectionName, id: &DocId, attachment: &Attachment) -> Fetch {
        self.attachments.fetch(collection.as_str(), id, attachment)
    }

    /// The file of an attachment, if it is here. Nothing is asked of the server.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn attachment(&self, attachment: &Attachment) -> Result<Option<PathBuf>, PeerError> {
        self.attachments.local(attachment.sha256).await
    }

    /// Removes attachments that the server has, least recently used first, until at most `keep_bytes` of attachments are
    /// left. Answers how many bytes went. They can be fetched again.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn evict_attachments(&self, keep_bytes: u64) -> Result<u64, PeerError> {
        self.attachments.evict(keep_bytes, None).await
    }

    /// What became of a local transaction, by its sequence number ([`QueryResult::seq`]).
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn write_status(&self, seq: u64) -> Result<WriteStatus, PeerError> {
        let status = self.status();
        let (Some(site), true) = (status.site, (1..=status.committed).contains(&seq)) else {
            return Ok(WriteStatus::Unknown);
        };
        if seq > status.acknowledged {
            return Ok(WriteStatus::Waiting);
        }
        let found = self.store.read(move |tables| Ok((tables.rejection_of(site, seq)?, tables.lsn_of(seq)?)));
        Ok(match found.await? {
            (Some(rejection), _) => WriteStatus::Rejected(rejection),
            (None, lsn) => WriteStatus::Durable { lsn: lsn.or(status.acknowledged_lsn).unwrap_or(Lsn::ZERO) },
        })
    }

    /// The local transactions that the server rejected and that were not dismissed, oldest first. They are kept in the
    /// store, so that an app that was not running then can still tell whoever made the change.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn rejections(&self) -> Result<Vec<Rejection>, PeerError> {
        self.store.read(|tables| tables.rejections()).await
    }

    /// Takes note of a rejection: [`Self::rejections`] does not tell it again. Says whether there was one of this number.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn dismiss_rejection(&self, number: u64) -> Result<bool, PeerError> {
        self.store.write(Durability::Power, move |work| work.dismiss_rejection(number)).await
    }

    /// Where things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        self.signals.status.borrow().clone()
    }

    /// [`Self::status`], and word of every change of it.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.signals.status.subscribe()
    }

    /// Events from now on. A receiver that is more than 1024 behind is told so, and misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.signals.events.subscribe()
    }

    /// Waits until the session stands.
    ///
    /// # Errors
    /// [`PeerError::NotConnected`] without a session in the background, [`PeerError::Refused`].
    pub async fn wait_connected(&self) -> Result<(), PeerError> {
        self.wait(|status| status.is_connected().then_some(Ok(()))).await
    }

    /// Waits until the server has answered for every local transaction committed so far: made it durable, or rejected it
    /// (see [`PeerEvent::WriteRejected`]). Answers an LSN at or after all of them, `None` if there never was one.
    ///
    /// # Errors
    /// As [`Self::wait_connected`].
    pub async fn wait_pushed(&self) -> Result<Option<Lsn>, PeerError> {
        let target = self.status().committed;
        self.wait(|status| (status.acknowledged >= target).then_some(Ok(status.acknowledged_lsn))).await
    }

    /// Waits until the server has answered for a local transaction, by its sequence number; answers what it said.
    ///
    /// # Errors
    /// As [`Self::wait_connected`].
    pub async fn wait_written(&self, seq: u64) -> Result<WriteStatus, PeerError> {
        self.wait(|status| (seq > status.committed || status.acknowledged >= seq).then_some(Ok(()))).await?;
        self.write_status(seq).await
    }

    /// Waits until the server has every attachment of this store, or has said that it never will.
    ///
    /// # Errors
    /// As [`Self::wait_connected`].
    pub async fn wait_uploaded(&self) -> Result<(), PeerError> {
        self.wait(|status| (status.uploads == 0).then_some(Ok(()))).await
    }

    /// Waits until the subscription has everything that the server had when it was asked, in this session. Answers up to
    /// where.
    ///
    /// # Errors
    /// As [`Self::wait_connected`], [`PeerError::NoSubscription`], and [`PeerError::Refused`] when the server does not
    /// accept the subscription.
    pub async fn wait_caught_up(&self, subscription: SubscriptionId) -> Result<Lsn, PeerError> {
        self.wait_subscription(subscription, |status| status.cursor.filter(|_| status.caught_up)).await
    }

    /// Waits until the subscription has everything up to `lsn`. Answers up to where it has.
    ///
    /// # Errors
    /// As [`Self::wait_caught_up`].
    pub async fn wait_for(&self, subscription: SubscriptionId, lsn: Lsn) -> Result<Lsn, PeerError> {
        self.wait_subscription(subscription, |status| status.cursor.filter(|cursor| *cursor >= lsn)).await
    }

    async fn wait_subscription(
        &self,
        id: SubscriptionId,
        reached: impl Fn(&crate::SubscriptionStatus) -> Option<Lsn> + Send + Sync,
    ) -> Result<Lsn, PeerError> {
        self.wait(|status| match status.subscriptions.get(&id) {
            None => Some(Err(PeerError::NoSubscription(id.get()))),
            Some(subscription) => match (reached(subscription), &subscription.refused) {
                (Some(lsn), _) => Some(Ok(lsn)),
                (None, Some(reason)) => Some(Err(PeerError::Refused(reason.clone()))),
                (None, None) => None,
            },
        })
        .await
    }

    /// Waits for `done` to answer, or for the session to be such that it never will.
    async fn wait<T>(&self, done: impl Fn(&Status) -> Option<Result<T, PeerError>> + Send) -> Result<T, PeerError> {
        let mut status = self.signals.status.subscribe();
        loop {
            {
                let now = status.borrow_and_update();
                if let Some(answer) = done(&now) {
                    return answer;
                }
                match &now.connection {
                    Connection::Offline => return Err(PeerError::NotConnected),
                    Connection::Refused { reason } => return Err(PeerError::Refused(reason.clone())),
                    Connection::Connecting { .. } | Connection::Connected => {}
                }
            }
            status.changed().await.map_err(|_| PeerError::Closed)?;
        }
    }
}
