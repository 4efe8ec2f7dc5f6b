//! A transaction of the cluster in memory.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::super::cluster::{Again, Answer, CommitFailure, Conflicts, ErrorCode, Page, Stamp, Transaction};
use super::super::keys::next;
use super::history::{Proposal, Range, Write};
use super::{MAX_KEY_BYTES, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, SimCluster, Watch, faults};

pub(super) struct SimTransaction {
    cluster: SimCluster,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    read_version: Option<u64>,
    depends_on: Vec<Range>,
    conflicts_with: Vec<Range>,
    writes: Vec<Write>,
    stamped: Vec<Vec<u8>>,
    bytes: usize,
    /// What the client found wrong with a write; told at the commit.
    deferred: Option<ErrorCode>,
    watches: Vec<Watch>,
}

impl fmt::Debug for SimTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTransaction").finish_non_exhaustive()
    }
}

impl SimTransaction {
    pub(super) fn new(cluster: SimCluster) -> Self {
        Self { cluster, parts: Mutex::default() }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The read version, taken now if there is none yet.
    fn version(&self) -> u64 {
        let readable = self.cluster.state().history.readable();
        *self.parts().read_version.get_or_insert(readable)
    }

    /// An answer computed now, told later, or an error in its place.
    fn answer<T: Send + 'static>(&self, compute: impl FnOnce(&SimCluster, u64) -> T) -> Answer<T> {
        let cluster = self.cluster.clone();
        let version = self.version();
        if cluster.chance(cluster.0.faults.pauses) {
            cluster.pass(super::WINDOW + 1_000_000);
        }
        let failure = if cluster.chance(cluster.0.faults.reads) {
            let at = cluster.random(faults::OF_READS.len() as u64);
            usize::try_from(at).ok().and_then(|at| faults::OF_READS.get(at).copied())
        } else if cluster.state().history.is_too_old(version) {
            Some(ErrorCode::TRANSACTION_TOO_OLD)
        } else {
            None
        };
        let result = match failure {
            Some(code) => Err(code),
            None => Ok(compute(&cluster, version)),
        };
        async move {
            cluster.wander().await;
            result
        }
        .boxed()
    }

    fn write(&self, key: &[u8], value_bytes: usize, extra_bytes: usize, conflicts: Conflicts, write: Write) {
        let mut parts = self.parts();
        if key.len() > MAX_KEY_BYTES {
            parts.deferred.get_or_insert(ErrorCode::KEY_TOO_LARGE);
        }
        if value_bytes > MAX_VALUE_BYTES {
            parts.deferred.get_or_insert(ErrorCode::VALUE_TOO_LARGE);
        }
        parts.bytes += key.len() + value_bytes + extra_bytes;
        if conflicts == Conflicts::Yes {
            let range = (key.to_vec(), next(key));
            parts.bytes += range.0.len() + range.1.len();
            parts.conflicts_with.push(range);
        }
        parts.writes.push(write);
    }
}

impl Transaction for SimTransaction {
    fn set_read_version(&self, version: u64) {
        assert!(version <= self.cluster.state().history.readable(), "a read version that nobody has committed");
        self.parts().read_version = Some(version);
    }

    fn read_version(&self) -> Answer<u64> {
        self.answer(|_, version| version)
    }

    fn get(&self, key: &[u8]) -> Answer<Option<Bytes>> {
        if self.parts().stamped.iter().any(|stamped| stamped == key) {
            return async { Err(ErrorCode::ACCESSED_UNREADABLE) }.boxed();
        }
        self.answer(|cluster, version| cluster.state().history.get(key, version))
    }

    fn range(&self, begin: &[u8], end: &[u8], bytes: usize) -> Answer<Page> {
        self.answer(|cluster, version| {
            let cut = cluster.chance(cluster.0.faults.ranges);
            let most = if cut { usize::try_from(cluster.random(300)).unwrap_or(bytes).min(bytes) } else { bytes };
            let state = cluster.state();
            let mut page = Page::default();
            let mut total = 0;
            for (key, value) in state.history.range(begin, end, version) {
                if total > 0 && total >= most {
                    page.more = true;
                    break;
                }
                total += key.len() + value.len();
                page.rows.push((Bytes::copy_from_slice(key), value));
            }
            page.more |= cut;
            page
        })
    }

    fn set(&self, key: &[u8], value: &[u8], conflicts: Conflicts) {
        let write = Write::Set(key.to_vec(), Bytes::copy_from_slice(value));
        self.write(key, value.len(), 0, conflicts, write);
    }

    fn set_stamped_key(&self, key: &[u8], at: usize, value: &[u8]) {
        assert!(at + Stamp::BYTES <= key.len(), "no place for the versionstamp");
        let write = Write::StampedKey(key.to_vec(), at, Bytes::copy_from_slice(value));
        self.write(key, value.len(), 4, Conflicts::No, write);
    }

    fn set_stamped_value(&self, key: &[u8], value: &[u8], conflicts: Conflicts) {
        assert!(value.len() >= Stamp::BYTES, "no place for the versionstamp");
        let write = Write::StampedValue(key.to_vec(), Bytes::copy_from_slice(value));
        self.write(key, value.len() + 4, 0, conflicts, write);
        self.parts().stamped.push(key.to_vec());
    }

    fn clear(&self, key: &[u8], conflicts: Conflicts) {
        let end = next(key);
        self.write(key, end.len(), 0, conflicts, Write::ClearRange(key.to_vec(), end.clone()));
    }

    fn clear_range(&self, begin: &[u8], end: &[u8]) {
        if begin < end {
            let write = Write::ClearRange(begin.to_vec(), end.to_vec());
            self.write(begin, end.len(), 0, Conflicts::No, write);
        }
    }

    fn depend_on(&self, begin: &[u8], end: &[u8]) -> Result<(), ErrorCode> {
        assert!(begin < end, "an empty range to depend on");
        let mut parts = self.parts();
        parts.bytes += begin.len() + end.len();
        parts.depends_on.push((begin.to_vec(), end.to_vec()));
        Ok(())
    }

    fn conflict_with(&self, begin: &[u8], end: &[u8]) -> Result<(), ErrorCode> {
        assert!(begin < end, "an empty range to conflict with");
        let mut parts = self.parts();
        parts.bytes += begin.len() + end.len();
        parts.conflicts_with.push((begin.to_vec(), end.to_vec()));
        Ok(())
    }

    fn watch(&self, key: &[u8]) -> Answer<()> {
        let (fire, fired) = oneshot::channel();
        let version = self.version();
        let value = self.cluster.state().history.get(key, version);
        self.parts().watches.push(Watch { key: key.to_vec(), value, fire });
        async move { fired.await.unwrap_or(Err(ErrorCode::TRANSACTION_CANCELLED)) }.boxed()
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Stamp, CommitFailure>> {
        async move {
            let version = self.version();
            let mut parts = std::mem::take(&mut *self.parts());
            let watches = std::mem::take(&mut parts.watches);
            let code = match self.try_commit(parts, version).await {
                Ok(stamp) => {
                    self.arm(watches);
                    return Ok(stamp);
                }
                Err(code) => code,
            };
            for watch in watches {
                // Whoever does not wait any more is not told.
                let _ = watch.fire.send(Err(code));
            }
            Err(CommitFailure { code, again: self.on_error(code) })
        }
        .boxed()
    }

    fn on_error(self: Box<Self>, code: ErrorCode) -> Again {
        async move {
            self.cluster.wander().await;
            if faults::is_retryable(code) {
                Ok(Box::new(Self::new(self.cluster.clone())) as Box<dyn Transaction>)
            } else {
                Err(code)
            }
        }
        .boxed()
    }
}

impl SimTransaction {
    async fn try_commit(&self, parts: Parts, read_version: u64) -> Result<Stamp, ErrorCode> {
        let cluster = &self.cluster;
        if let Some(code) = parts.deferred {
            return Err(code);
        }
        if parts.bytes > MAX_TRANSACTION_BYTES {
            return Err(ErrorCode::TRANSACTION_TOO_LARGE);
        }
        if parts.writes.is_empty() && parts.conflicts_with.is_empty() {
            return Ok(Stamp::default());
        }
        let Parts { depends_on, conflicts_with, writes, .. } = parts;
        let proposal = Proposal { read_version, depends_on, conflicts_with, writes };
        if cluster.chance(cluster.0.faults.pauses) {
            cluster.pass(super::WINDOW + 1_000_000);
        }
        if cluster.chance(cluster.0.faults.conflicts) {
            return Err(ErrorCode::NOT_COMMITTED);
        }
        if !cluster.chance(cluster.0.faults.unknown) {
            return cluster.commit(proposal).await;
        }
        match cluster.random(5) {
            0 => Err(ErrorCode::COMMIT_UNKNOWN_RESULT),
            1 => Err(cluster.commit(proposal).await.err().unwrap_or(ErrorCode::COMMIT_UNKNOWN_RESULT)),
            2 => Err(cluster.commit(proposal).await.err().unwrap_or(ErrorCode::TRANSACTION_TIMED_OUT)),
            3 => {
                cluster.abandon(proposal);
                Err(ErrorCode::TRANSACTION_TIMED_OUT)
            }
            _ => {
                cluster.abandon(proposal);
                Err(ErrorCode::CLUSTER_VERSION_CHANGED)
            }
        }
    }

    fn arm(&self, watches: Vec<Watch>) {
        let cluster = &self.cluster;
        for watch in watches {
            let answer = if cluster.chance(cluster.0.faults.watches) {
                Some(if cluster.chance(2) { Ok(()) } else { Err(ErrorCode::OPERATION_CANCELLED) })
            } else {
                None
            };
            let mut state = cluster.state();
            let answer = answer.or((state.history.newest(&watch.key) != watch.value).then_some(Ok(())));
            match answer {
                Some(answer) => drop(watch.fire.send(answer)),
                None => state.watches.push(watch),
            }
        }
    }
}
