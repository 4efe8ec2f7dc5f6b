//! `Ledger`: how far one feed has come, written by its owner only.
//!
//! # Consistency
//! Every write holds only while the lease does, and only over what this ledger wrote or read last: of two owners, or of two
//! attempts of one owner, only the last can move the feed. A sink that keeps a number of its own **prepares** a checkpoint
//! before it commits that number; whoever goes on asks the sink for its number, and knows whether the prepared one holds.

use std::sync::Arc;

use bigpeer_chassis::Name;
use bigpeer_log::{Lease, MetaOp};
use bigpeer_types::AppId;
use tokio::sync::Mutex;

use crate::error::FeedError;
use crate::registry::{Checkpoint, Registry, Stored};

/// The checkpoints of one feed.
#[derive(Debug)]
pub(crate) struct Ledger {
    registry: Registry,
    app: AppId,
    name: Name,
    lease: Arc<Mutex<Lease>>,
    last: Mutex<Stored<Checkpoint>>,
}

impl Ledger {
    /// Goes on from what is stored of the feed of `incarnation`. `committed` is the number that the sink committed last, asked
    /// for when nobody else could commit another any more.
    pub(crate) async fn open(
        registry: Registry,
        (app, name): (AppId, Name),
        lease: Arc<Mutex<Lease>>,
        incarnation: u64,
        committed: Option<u64>,
    ) -> Result<(Self, Checkpoint), FeedError> {
        let stored = registry.checkpoint(&app, &name).await?;
        let stored = stored.filter(|stored| stored.record.incarnation == incarnation);
        let mut last = stored.ok_or_else(|| FeedError::Records("the feed has no cursor".to_owned()))?;
        if let Some(prepared) = last.record.prepared.take()
            && Some(prepared.number) == committed
        {
            last.record = *prepared;
        }
        let base = last.record.clone();
        Ok((Self { registry, app, name, lease, last: Mutex::new(last) }, base))
    }

    /// Writes the checkpoint that the sink is about to commit. What was prepared before was committed: a sink prepares one at
    /// a time.
    pub(crate) async fn prepare(&self, next: Checkpoint) -> Result<(), FeedError> {
        let mut last = self.last.lock().await;
        let confirmed = match &last.record.prepared {
            Some(prepared) => (**prepared).clone(),
            None => last.record.clone(),
        };
        self.write(&mut last, Checkpoint { prepared: Some(Box::new(next)), ..confirmed }, &[]).await
    }

    /// Writes a checkpoint of what was delivered, and does `besides` with it. Answers whether it was written: one that is
    /// behind what is known already is not.
    pub(crate) async fn confirm(&self, checkpoint: Checkpoint, besides: &[MetaOp]) -> Result<bool, FeedError> {
        let mut last = self.last.lock().await;
        // What was prepared after it may be known to be committed already.
        if checkpoint.number < last.record.number {
            return Ok(false);
        }
        let prepared = last.record.prepared.clone().filter(|prepared| prepared.number > checkpoint.number);
        self.write(&mut last, Checkpoint { prepared, ..checkpoint }, besides).await?;
        Ok(true)
    }

    async fn write(
        &self,
        last: &mut Stored<Checkpoint>,
        record: Checkpoint,
        besides: &[MetaOp],
    ) -> Result<(), FeedError> {
        let lease = self.lease.lock().await;
        let at = (&self.app, &self.name);
        let revision = self.registry.advance(at, &lease, last.revision, &record, besides).await?;
        *last = Stored { record, revision };
        Ok(())
    }
}
