//! `Odometer`: how many transactions and bytes lie between two positions of a log, whose LSNs can only be compared. Marks
//! are set along the log as it is read; when there are too many, old ones are thinned out, and counts from there on are rather
//! more than less.

use std::collections::VecDeque;

use bigpeer_log::{ReadError, TransactionLog};
use bigpeer_types::{AppId, Lsn};
use serde::Serialize;

use crate::registry::Checkpoint;

/// Most marks; when there are more, every other of the older half is given up.
const MAX_MARKS: usize = 64 * 1024;
/// Bytes that one call reads at most.
const READ_BYTES: usize = 64 << 20;

/// How far a feed is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Lag {
    /// Transactions that are not delivered.
    pub(crate) transactions: u64,
    /// Their bytes in the log.
    pub(crate) bytes: u64,
    /// How long the first of them has waited, in milliseconds; rather more than less.
    pub(crate) ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: Lsn,
    transactions: u64,
    bytes: u64,
}

/// Marks along an app's log.
#[derive(Debug, Default)]
pub(crate) struct Odometer {
    marks: VecDeque<Mark>,
    /// The end of what was read.
    end: Option<Mark>,
}

impl Odometer {
    /// Reads on from where it stopped, or from `from`; not always to the end.
    pub(crate) async fn advance(&mut self, log: &dyn TransactionLog, app: &AppId, from: Lsn) -> Result<(), ReadError> {
        if self.marks.front().is_some_and(|first| first.lsn > from) {
            *self = Self::default();
        }
        let mut read = 0;
        while read < READ_BYTES {
            let mut end = self.end.unwrap_or(Mark { lsn: from, transactions: 0, bytes: 0 });
            if self.marks.is_empty() {
                self.marks.push_back(end);
            }
            let batch = match log.read(app, end.lsn, 1 << 20).await {
                Ok(batch) => batch,
                Err(ReadError::Trimmed { kept_after }) if kept_after > end.lsn => {
                    // What was trimmed is not counted.
                    end.lsn = kept_after;
                    self.end = Some(end);
                    self.marks.push_back(end);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if batch.entries.is_empty() {
                self.end = Some(end);
                break;
            }
            for entry in batch.entries {
                read += entry.payload.len() + 1;
                end = Mark {
                    lsn: entry.lsn,
                    transactions: end.transactions + 1,
                    bytes: end.bytes + entry.payload.len() as u64,
                };
                self.marks.push_back(end);
            }
            self.end = Some(end);
            if self.marks.len() > MAX_MARKS {
                let mut place = 0;
                self.marks.retain(|_| {
                    place += 1;
                    place > MAX_MARKS / 2 || place % 2 == 1
                });
            }
        }
        Ok(())
    }

    /// Forgets marks that no position from `from` on needs.
    pub(crate) fn forget(&mut self, from: Lsn) {
        while self.marks.get(1).is_some_and(|next| next.lsn <= from) {
            self.marks.pop_front();
        }
    }

    /// How far behind a feed is.
    pub(crate) fn lag(&self, at: Lsn, checkpoint: &Checkpoint, now_ms: u64) -> Lag {
        let Some(end) = self.end.filter(|end| end.lsn > at) else { return Lag::default() };
        let next = self.marks.partition_point(|mark| mark.lsn <= at);
        let mark = next.checked_sub(1).and_then(|before| self.marks.get(before)).or(self.marks.front());
        let mark = mark.copied().unwrap_or(end);
        // It waits since it was written, which was not before the last one that was delivered, nor before nothing waited.
        let since = checkpoint.written_ms.max(checkpoint.caught_up_ms).unwrap_or(now_ms);
        Lag {
            transactions: (end.transactions - mark.transactions).max(1),
            bytes: (end.bytes - mark.bytes).max(1),
            ms: now_ms.saturating_sub(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog};
    use bigpeer_types::SiteId;

    #[tokio::test]
    async fn it_counts_what_lies_behind_a_position() {
        let (log, app) = (MemoryLog::default(), AppId::new("a").unwrap());
        let mut lsns = vec![Lsn::ZERO];
        for seq in 1..=500 {
            let payload = bytes::Bytes::from(vec![0; 10]);
            let entry = AppendEntry { site: SiteId::new(1), seq, writes: Vec::new(), unchanged: Vec::new(), payload };
            match log.append(&app, vec![entry]).await.unwrap().as_slice() {
                [AppendOutcome::Applied(lsn)] => lsns.push(*lsn),
                other => panic!("{other:?}"),
            }
        }
        let mut odometer = Odometer::default();
        odometer.advance(&log, &app, Lsn::ZERO).await.unwrap();
        let checkpoint = Checkpoint { caught_up_ms: Some(1_000), written_ms: Some(500), ..Checkpoint::default() };
        for (at, lsn) in lsns.iter().enumerate() {
            let lag = odometer.lag(*lsn, &checkpoint, 3_000);
            let behind = (500 - at) as u64;
            let ms = if behind == 0 { 0 } else { 2_000 };
            assert_eq!(lag, Lag { transactions: behind, bytes: 10 * behind, ms }, "at {at}");
        }
        odometer.forget(lsns[400]);
        assert_eq!(odometer.lag(lsns[400], &checkpoint, 0).transactions, 100);
        log.trim(&app, lsns[450]).await.unwrap();
        let mut late = Odometer::default();
        late.advance(&log, &app, lsns[100]).await.unwrap();
        assert_eq!(late.lag(lsns[100], &checkpoint, 0).transactions, 50, "what is kept");
    }
}
