//! Those who wait at the end of an app's log: one watch per app and process, however many wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bigpeer_types::{AppId, Lsn};
use tokio::sync::watch;

use super::cluster::{Answer, CommitFailure};
use super::core::{Core, Trouble};
use super::keys::decode_lsn;

/// After so long the cluster is asked again without its watch having fired, and an app for which nobody waits is left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How far an app's log is known to go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) head: Lsn,
    /// The log is closed.
    pub(crate) ended: bool,
}

/// The apps that are followed in this process.
#[derive(Debug, Default)]
pub(crate) struct Tails(Mutex<BTreeMap<AppId, watch::Sender<Progress>>>);

impl Tails {
    fn map(&self) -> MutexGuard<'_, BTreeMap<AppId, watch::Sender<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that an entry at `head` can be read.
    pub(crate) fn advance(&self, app: &AppId, head: Lsn) {
        if let Some(sender) = self.map().get(app) {
            sender.send_if_modified(|progress| {
                let is_news = head > progress.head;
                progress.head = progress.head.max(head);
                is_news
            });
        }
    }

    /// Wakes all who wait: the log is closed.
    pub(crate) fn end(&self) {
        for sender in std::mem::take(&mut *self.map()).into_values() {
            sender.send_modify(|progress| progress.ended = true);
        }
    }
}

/// Follows an app's progress, from now on.
pub(crate) fn follow(core: &Arc<Core>, app: &AppId) -> watch::Receiver<Progress> {
    let mut map = core.tails.map();
    // Under the lock: closing looks at the map after it has said so.
    if core.is_closed() {
        return watch::channel(Progress { ended: true, ..Progress::default() }).1;
    }
    if let Some(sender) = map.get(app) {
        return sender.subscribe();
    }
    let (sender, receiver) = watch::channel(Progress::default());
    map.insert(app.clone(), sender);
    tokio::spawn(run(Arc::clone(core), app.clone()));
    receiver
}

/// Keeps one app's progress up to date for as long as somebody wants to know it.
async fn run(core: Arc<Core>, app: AppId) {
    let mut closed = core.closed.subscribe();
    loop {
        let looked = tokio::select! {
            looked = look(&core, &app) => looked,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        let fired = match looked {
            Ok((head, fired)) => {
                core.tails.advance(&app, head);
                fired
            }
            Err(trouble) => {
                tracing::warn!(%app, reason = trouble.reason(), "the end of the log cannot be watched; trying again");
                Box::pin(async { Ok(()) })
            }
        };
        tokio::select! {
            // An error too is a reason to look again.
            _ = fired => {}
            _ = closed.wait_for(|closed| *closed) => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {
                let mut map = core.tails.map();
                if map.get(&app).is_none_or(|sender| sender.receiver_count() == 0) {
                    map.remove(&app);
                    return;
                }
            }
        }
    }
}

/// The head, and what ends when there is another.
async fn look(core: &Core, app: &AppId) -> Result<(Lsn, Answer<()>), Trouble> {
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        let read = async {
            let Some(number) = core.number_in(&*transaction, app).await? else {
                return Ok((Lsn::ZERO, core.space.app_number(app)));
            };
            let key = core.space.app(number).head();
            let head = transaction.get(&key).await?;
            let head = head.map_or(Some(Lsn::ZERO), |head| decode_lsn(&head)).ok_or(Trouble::Damage("the head"))?;
            Ok((head, key))
        };
        match read.await {
            Ok((head, key)) => {
                let fired = transaction.watch(&key);
                match transaction.commit().await {
                    Ok(_) => return Ok((head, fired)),
                    Err(CommitFailure { code, again }) => tries.failed(code, again).await?,
                }
            }
            Err(trouble) => tries.troubled(transaction, trouble).await?,
        }
    }
}
