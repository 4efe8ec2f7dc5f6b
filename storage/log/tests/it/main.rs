//! Tests of the log from outside.

use bigpeer_log::{AppendEntry, AppendOutcome, EmbeddedLog, EmbeddedSettings, TransactionLog};
use bigpeer_types::{AppId, Lsn, SiteId};

#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let app = AppId::new("a").unwrap();
    let entry = |seq: u64| AppendEntry {
        site: SiteId::new(1),
        seq,
        writes: vec![],
        unchanged: vec![],
        payload: vec![7; 300].into(),
    };
    let log = EmbeddedLog::open(dir.path(), EmbeddedSettings::default()).unwrap();
    for seq in 1..=100 {
        assert!(matches!(log.append(&app, vec![entry(seq)]).await.unwrap()[0], AppendOutcome::Applied(_)));
    }
    assert!(
        EmbeddedLog::open(dir.path(), EmbeddedSettings::default())
            .unwrap_err()
            .to_string()
            .contains("in use by process")
    );
    assert_eq!(log.read(&app, Lsn::ZERO, 1 << 20).await.unwrap().entries.len(), 100);
    log.close().await;
    let log = EmbeddedLog::open(dir.path(), EmbeddedSettings::default()).unwrap();
    let batch = log.read(&app, Lsn::ZERO, 1 << 20).await.unwrap();
    assert_eq!(batch.entries.len(), 100);
    assert_eq!(log.last_seq(&app, SiteId::new(1)).await.unwrap(), 100);
    assert!(matches!(
        log.append(&app, vec![entry(100), entry(101)]).await.unwrap()[..],
        [AppendOutcome::Duplicate { .. }, AppendOutcome::Applied(_)]
    ));
}
