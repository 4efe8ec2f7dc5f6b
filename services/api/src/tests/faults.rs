//! A log that loses its answers: every write is in the log exactly once all the same.

use async_trait::async_trait;
use bigpeer_log::{AppendError, LogEntry, Metadata, ReadBatch, ReadError};
use bigpeer_types::{Lsn, SeededIds, SiteId};

use super::*;

/// Appends a part of what it is given, or all of it, or nothing, and then often can't say what happened.
#[derive(Debug)]
struct ForgetfulLog {
    inner: Arc<MemoryLog>,
    chance: SeededIds,
}

#[async_trait]
impl TransactionLog for ForgetfulLog {
    async fn append(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        let unknown = || AppendError::Unknown { reason: "forgotten".to_owned() };
        match self.chance.next_u64() % 8 {
            0 => Err(AppendError::Unavailable { reason: "away".to_owned() }),
            1 | 2 => Err(unknown()),
            3 | 4 => {
                let part = entries.len() / 2 + 1;
                let _forgotten = self.inner.append(app, entries.into_iter().take(part).collect()).await?;
                Err(unknown())
            }
            _ => self.inner.append(app, entries).await,
        }
    }

    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        self.inner.read(app, after, max_bytes).await
    }

    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        self.inner.wait_past(app, after).await
    }

    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.inner.head(app).await
    }

    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.inner.trimmed(app).await
    }

    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        self.inner.last_seq(app, site).await
    }

    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        self.inner.trim(app, through).await
    }

    fn metadata(&self) -> &dyn Metadata {
        self.inner.metadata()
    }
}

async fn entries(log: &MemoryLog, app: &AppId) -> Vec<LogEntry> {
    let mut all = Vec::new();
    let mut after = Lsn::ZERO;
    loop {
        let batch = log.read(app, after, usize::MAX).await.unwrap();
        if batch.entries.is_empty() {
            return all;
        }
        after = batch.through;
        all.extend(batch.entries);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_in_the_log_once_and_what_is_refused_is_not() {
    for seed in 0..4 {
        let forgetful = |inner: &Arc<MemoryLog>| -> Arc<dyn TransactionLog> {
            Arc::new(ForgetfulLog { inner: Arc::clone(inner), chance: SeededIds::new(seed) })
        };
        let world = Arc::new(world_over(short(), forgetful).await);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..24_u64 {
            let world = Arc::clone(&world);
            tasks.spawn(async move {
                // Half of them to documents of their own, half to one counter.
                let statement = "INSERT INTO own DOCUMENTS (:d)";
                let (status, json) = world.run(statement, json!({"d": {"_id": n}})).await;
                assert!(status == 200 || status == 503, "seed {seed}: {json}");
                let counter = "INSERT INTO counts DOCUMENTS ({'_id': 1}) ON ID CONFLICT DO NOTHING";
                world.run(counter, json!({})).await;
                let (counted, json) = world.run("UPDATE counts APPLY n INCREMENT BY 1 WHERE _id = 1", json!({})).await;
                assert!(counted == 200 || counted == 503, "seed {seed}: {json}");
                let touched = json["mutatedDocumentIds"].as_array().map_or(0, Vec::len) as u64;
                (n, status == 200, touched)
            });
        }
        let done = tasks.join_all().await;
        let mut wanted: Vec<u64> = done.iter().filter(|(_, written, _)| *written).map(|(n, ..)| *n).collect();
        wanted.sort_unstable();
        let own = world.ok("SELECT _id FROM own ORDER BY _id", json!({})).await;
        let found: Vec<u64> = own["items"].as_array().unwrap().iter().map(|row| row["_id"].as_u64().unwrap()).collect();
        assert_eq!(found, wanted, "seed {seed}");
        let increments: u64 = done.iter().map(|(.., touched)| touched).sum();
        let counts = world.ok("SELECT n FROM counts", json!({})).await;
        let n = counts["items"].get(0).and_then(|row| row["n"].as_u64()).unwrap_or(0);
        assert_eq!(n, increments, "seed {seed}");
        // One site, without gaps and without repetitions.
        let log = entries(&world.log, &world.app).await;
        let seqs: Vec<u64> = log.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_are_applied_once_whatever_the_log_forgets() {
    for seed in 0..4 {
        let forgetful = |inner: &Arc<MemoryLog>| -> Arc<dyn TransactionLog> {
            Arc::new(ForgetfulLog { inner: Arc::clone(inner), chance: SeededIds::new(seed) })
        };
        let world = Arc::new(world_over(ApiSettings { max_transaction_attempts: 200, ..short() }, forgetful).await);
        while world.run("INSERT INTO counts DOCUMENTS ({'_id': 1, 'n': 0})", json!({})).await.0 == 503 {}
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..16_u64 {
            let world = Arc::clone(&world);
            tasks.spawn(async move {
                // A counter by reading and writing, and what it was: both or neither.
                let (status, answer) = world
                    .transact(json!([
                        {"statement": "INSERT INTO seen SELECT :n AS _id, n AS was FROM counts", "args": {"n": n}},
                        {"statement": "UPDATE counts SET n = n + 1 WHERE _id = 1"},
                    ]))
                    .await;
                assert!(status == 200 || status == 503, "seed {seed}: {answer}");
                status == 200
            });
        }
        let written = tasks.join_all().await.into_iter().filter(|written| *written).count();
        let counts = world.ok("SELECT n FROM counts", json!({})).await;
        assert_eq!(counts["items"], json!([{"n": written}]), "seed {seed}");
        let seen = world.ok("SELECT was FROM seen ORDER BY was", json!({})).await;
        let expected: Vec<Value> = (0..written).map(|was| json!({ "was": was })).collect();
        assert_eq!(seen["items"], Value::Array(expected), "seed {seed}");
    }
}
