//! A real process is killed under 64 appenders, again and again; what it said to be done is there, whole, once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bigpeer_log::{AppendEntry, AppendError, AppendOutcome, EmbeddedLog, EmbeddedSettings, TransactionLog};
use bigpeer_types::{AppId, Lsn, SiteId};
use tokio::sync::mpsc;

use crate::history::read_everything;

fn payload(site: u64, seq: u64) -> Vec<u8> {
    let chance = (site << 32 | seq).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    chance.to_le_bytes().repeat(1 + (chance >> 40) as usize % 100)
}

/// Where the process appends; set only for that process.
const DIR: &str = "BIGPEER_KILL_DIR";

fn settings() -> EmbeddedSettings {
    EmbeddedSettings { segment_bytes: 1 << 20, ..EmbeddedSettings::default() }
}

/// Appends the entries of one site for ever, and tells which were acknowledged.
async fn appends(log: Arc<EmbeddedLog>, site: u64, told: mpsc::UnboundedSender<String>) -> Result<(), AppendError> {
    let (app, id) = (AppId::new("kill").unwrap(), SiteId::new(site));
    let mut seq = log.last_seq(&app, id).await.unwrap() + 1;
    loop {
        let entry = |seq| AppendEntry {
            site: id,
            seq,
            writes: Vec::new(),
            unchanged: Vec::new(),
            payload: payload(site, seq).into(),
        };
        // One at a time or several.
        let count = 1 + seq % 3;
        for outcome in log.append(&app, (seq..seq + count).map(entry).collect()).await? {
            let AppendOutcome::Applied(lsn) = outcome else { panic!("{outcome:?}") };
            told.send(format!("{site} {seq} {}\n", lsn.version)).unwrap();
            // So that segments are used again.
            if site == 1 && seq.is_multiple_of(50) {
                log.trim(&app, Lsn::new(lsn.version.saturating_sub(5000), 0)).await.unwrap();
            }
            seq += 1;
        }
    }
}

/// Not a test: the process that the test below starts and kills. It says on standard output what was acknowledged, one
/// line `site seq version` per entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is started by another test"]
async fn the_process_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let log = Arc::new(EmbeddedLog::open(dir.as_ref(), settings()).unwrap());
    let (told, mut lines) = mpsc::unbounded_channel();
    for site in 1..=64 {
        tokio::spawn(appends(Arc::clone(&log), site, told.clone()));
    }
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.recv().await {
        out.write_all(line.as_bytes()).unwrap();
    }
}

/// Runs the process until so many entries were acknowledged and a random moment more, kills it, and answers what it said.
fn run_and_kill(dir: &Path, lines: u64, more: Duration) -> Vec<(u64, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::the_process_that_is_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard: Vec<String> = said.by_ref().take(lines as usize).map(Result::unwrap).collect();
    let killer = std::thread::Builder::new()
        .spawn(move || {
            // Not to wait for something: the moment of the kill is what is being tried.
            std::thread::sleep(more);
            child.kill().unwrap();
            child.wait().unwrap()
        })
        .unwrap();
    heard.extend(said.map(Result::unwrap));
    killer.join().unwrap();
    let numbers = |line: &String| {
        let mut words = line.split(' ').map(|word| word.parse::<u64>().ok());
        Some((words.next()??, words.next()??, words.next()??))
    };
    // The last line may be cut short, and then names another version. Others are the test runner's.
    heard.pop();
    heard.iter().filter_map(numbers).collect()
}

/// `BIGPEER_KILLS=100` for the long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let rounds: u64 = std::env::var("BIGPEER_KILLS").ok().map_or(8, |rounds| rounds.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let app = AppId::new("kill").unwrap();
    let mut told: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut last_seqs: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..rounds {
        let chance = (round + u64::from(std::process::id())).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let (lines, more) = (chance % 3000, Duration::from_micros(chance % 40_000));
        eprintln!("round {round}: killed after {lines} acknowledged entries and {more:?}");
        for (site, seq, version) in run_and_kill(dir.path(), lines, more) {
            assert_eq!(told.insert(version, (site, seq)), None, "version {version} was told twice");
            let last = last_seqs.entry(site).or_default();
            *last = seq.max(*last);
        }
        let log = EmbeddedLog::open(dir.path(), settings()).unwrap();
        let trimmed = log.trimmed(&app).await.unwrap();
        let mut found = BTreeMap::new();
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in read_everything(&log, &app, trimmed).await {
            let (site, seq) = (entry.site.get(), entry.seq);
            assert!(entry.payload == payload(site, seq), "entry {seq} of site {site} is torn");
            assert!(
                next.insert(site, seq).is_none_or(|before| before + 1 == seq),
                "site {site} has {seq} twice, or a gap"
            );
            found.insert(entry.lsn.version, (site, seq));
        }
        for (version, id) in told.range(trimmed.version + 1..) {
            assert_eq!(found.get(version), Some(id), "an acknowledged entry is missing at {version}");
        }
        for (site, last) in &last_seqs {
            assert!(log.last_seq(&app, SiteId::new(*site)).await.unwrap() >= *last);
        }
        assert!(log.head(&app).await.unwrap() >= Lsn::new(told.last_key_value().map_or(0, |last| *last.0), 0));
    }
}
