//! The real cluster, through the crate `foundationdb` and its client library.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bigpeer_fdb_client::foundationdb::options::{
    ConflictRangeType, DatabaseOption, MutationType, StreamingMode, TransactionOption,
};
use bigpeer_fdb_client::foundationdb::{FdbError, RangeOption, Transaction as Inner, TransactionCommitError};
use bigpeer_fdb_client::{ClientError, Database, open};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::cluster::{Again, Answer, Cluster, CommitFailure, Conflicts, ErrorCode, Page, Stamp, Transaction};

/// A transaction that takes longer is given up: without this, one that cannot reach its cluster waits for ever.
const TIMEOUT_MS: i32 = 10_000;
/// Most watches of a process: one per app that is followed.
const MAX_WATCHES: i32 = 100_000;

/// A cluster that a cluster file names.
pub struct RealCluster {
    database: Arc<Database>,
}

impl fmt::Debug for RealCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealCluster").finish_non_exhaustive()
    }
}

impl RealCluster {
    /// Opens the client library, if this has not happened yet, and the cluster.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub fn open(cluster_file: &Path) -> Result<Self, ClientError> {
        let database = open(cluster_file)?;
        let option = |option: DatabaseOption| {
            let failed = |error: FdbError| ClientError::Start { reason: error.message().to_owned() };
            database.set_option(option).map_err(failed)
        };
        option(DatabaseOption::TransactionTimeout(TIMEOUT_MS))?;
        option(DatabaseOption::MaxWatches(MAX_WATCHES))?;
        Ok(Self { database: Arc::new(database) })
    }
}

fn code(error: FdbError) -> ErrorCode {
    ErrorCode(error.code())
}

impl Cluster for RealCluster {
    fn begin(&self) -> Result<Box<dyn Transaction>, ErrorCode> {
        Ok(Box::new(RealTransaction(self.database.create_trx().map_err(code)?)))
    }
}

#[derive(Debug)]
struct RealTransaction(Inner);

impl RealTransaction {
    /// Of the next write.
    fn no_conflicts(&self) {
        // If it cannot be said, the write conflicts needlessly.
        let _ = self.0.set_option(TransactionOption::NextWriteNoWriteConflictRange);
    }

    fn next_write(&self, conflicts: Conflicts) {
        if conflicts == Conflicts::No {
            self.no_conflicts();
        }
    }
}

impl Transaction for RealTransaction {
    fn set_read_version(&self, version: u64) {
        self.0.set_read_version(i64::try_from(version).unwrap_or(i64::MAX));
    }

    fn read_version(&self) -> Answer<u64> {
        let version = self.0.get_read_version();
        async move { Ok(u64::try_from(version.await.map_err(code)?).unwrap_or_default()) }.boxed()
    }

    fn get(&self, key: &[u8]) -> Answer<Option<Bytes>> {
        let value = self.0.get(key, true);
        async move { Ok(value.await.map_err(code)?.map(|value| Bytes::copy_from_slice(&value))) }.boxed()
    }

    fn range(&self, begin: &[u8], end: &[u8], bytes: usize) -> Answer<Page> {
        let mut option = RangeOption::from((begin, end));
        // As many bytes as were asked for, however many answers of servers that takes.
        (option.mode, option.target_bytes) = (StreamingMode::Exact, bytes.max(1));
        let values = self.0.get_range(&option, 1, true);
        async move {
            let values = values.await.map_err(code)?;
            // One copy of the page, of which the rows are slices.
            let total = values.iter().map(|row| row.key().len() + row.value().len()).sum();
            let mut all = bytes::BytesMut::with_capacity(total);
            let mut rows = Vec::with_capacity(values.len());
            for row in values.iter() {
                all.extend_from_slice(row.key());
                let key = all.split().freeze();
                all.extend_from_slice(row.value());
                rows.push((key, all.split().freeze()));
            }
            Ok(Page { rows, more: values.more() })
        }
        .boxed()
    }

    fn set(&self, key: &[u8], value: &[u8], conflicts: Conflicts) {
        self.next_write(conflicts);
        self.0.set(key, value);
    }

    fn set_stamped_key(&self, key: &[u8], at: usize, value: &[u8]) {
        let at = u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes();
        self.no_conflicts();
        self.0.atomic_op(&[key, &at].concat(), value, MutationType::SetVersionstampedKey);
    }

    fn set_stamped_value(&self, key: &[u8], value: &[u8], conflicts: Conflicts) {
        self.next_write(conflicts);
        self.0.atomic_op(key, &[value, &0_u32.to_le_bytes()].concat(), MutationType::SetVersionstampedValue);
    }

    fn clear(&self, key: &[u8], conflicts: Conflicts) {
        self.next_write(conflicts);
        self.0.clear(key);
    }

    fn clear_range(&self, begin: &[u8], end: &[u8]) {
        if begin < end {
            self.no_conflicts();
            self.0.clear_range(begin, end);
        }
    }

    fn depend_on(&self, begin: &[u8], end: &[u8]) -> Result<(), ErrorCode> {
        self.0.add_conflict_range(begin, end, ConflictRangeType::Read).map_err(code)
    }

    fn conflict_with(&self, begin: &[u8], end: &[u8]) -> Result<(), ErrorCode> {
        self.0.add_conflict_range(begin, end, ConflictRangeType::Write).map_err(code)
    }

    fn watch(&self, key: &[u8]) -> Answer<()> {
        let fired = self.0.watch(key);
        async move { fired.await.map_err(code) }.boxed()
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Stamp, CommitFailure>> {
        // To be asked for before the commit; answered after it.
        let stamp = self.0.get_versionstamp();
        let committed = self.0.commit();
        async move {
            let committed = committed.await.map_err(failure)?;
            match stamp.await {
                Ok(stamp) => match stamp.first_chunk() {
                    Some(stamp) => Ok(Stamp::from_bytes(*stamp)),
                    None => Err(without_stamp(committed.reset())),
                },
                Err(error) if code(error) == ErrorCode::NO_COMMIT_VERSION => Ok(Stamp::default()),
                // It happened, but where is not known: found out as if it were not known whether.
                Err(_) => Err(without_stamp(committed.reset())),
            }
        }
        .boxed()
    }

    fn on_error(self: Box<Self>, error: ErrorCode) -> Again {
        let again = self.0.on_error(FdbError::from_code(error.0));
        async move { Ok(Box::new(RealTransaction(again.await.map_err(code)?)) as Box<dyn Transaction>) }.boxed()
    }
}

fn failure(error: TransactionCommitError) -> CommitFailure {
    let code_of_commit = ErrorCode(error.code());
    let again = async move {
        let again = error.on_error().await.map_err(code)?;
        Ok(Box::new(RealTransaction(again)) as Box<dyn Transaction>)
    };
    CommitFailure { code: code_of_commit, again: again.boxed() }
}

fn without_stamp(transaction: Inner) -> CommitFailure {
    let again = async move { Ok(Box::new(RealTransaction(transaction)) as Box<dyn Transaction>) };
    CommitFailure { code: ErrorCode::COMMIT_UNKNOWN_RESULT, again: again.boxed() }
}
