//! How much of the log to keep behind the manifest.

use std::collections::VecDeque;
use std::time::Duration;

use bigpeer_types::Lsn;

use crate::{CompactorSettings, Needed};

/// One flush.
#[derive(Clone, Copy, Debug)]
struct Flush {
    /// When, by the monotonic clock.
    at: Duration,
    /// Everything up to here is in segments since.
    lsn: Lsn,
    /// Bytes in memory of what it flushed.
    bytes: u64,
}

/// The flushes of late, and when they were: what can be trimmed by and by.
#[derive(Debug)]
pub(crate) struct Tail {
    keep: Duration,
    keep_flushes: usize,
    flushes: VecDeque<Flush>,
}

impl Tail {
    /// Starts with what was in segments already.
    pub(crate) fn new(settings: &CompactorSettings, flushed: Lsn) -> Self {
        Self {
            keep: settings.keep_tail,
            keep_flushes: settings.keep_tail_flushes,
            flushes: VecDeque::from([Flush { at: settings.clock.monotonic(), lsn: flushed, bytes: 0 }]),
        }
    }

    /// Everything up to `lsn` is in segments since `now`; that was so many bytes in memory.
    pub(crate) fn flushed(&mut self, now: Duration, lsn: Lsn, bytes: usize) {
        self.flushes.push_back(Flush { at: now, lsn, bytes: bytes as u64 });
    }

    /// Through where the log can be trimmed; none when there is nothing to trim. What is needed is kept up to its limits.
    pub(crate) fn take_due(&mut self, now: Duration, needed: Option<Needed>) -> Option<Lsn> {
        let mut due = None;
        let mut bytes: u64 = self.flushes.iter().map(|flush| flush.bytes).sum();
        while let Some(flush) = self.flushes.front() {
            let age = now.saturating_sub(flush.at);
            if self.flushes.len() <= self.keep_flushes && age < self.keep {
                break;
            }
            let holds = |needed: Needed| needed.after < flush.lsn && age < needed.keep && bytes < needed.keep_bytes;
            if needed.is_some_and(holds) {
                break;
            }
            due = Some(flush.lsn);
            bytes -= flush.bytes;
            self.flushes.pop_front();
        }
        due.filter(|lsn| *lsn > Lsn::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_kept_for_a_time_and_a_number_of_flushes() {
        let settings = CompactorSettings {
            keep_tail: Duration::from_secs(10),
            keep_tail_flushes: 2,
            ..CompactorSettings::default()
        };
        let start = settings.clock.monotonic();
        let mut tail = Tail::new(&settings, Lsn::ZERO);
        tail.flushed(start + Duration::from_secs(1), Lsn::new(5, 0), 10);
        assert_eq!(tail.take_due(start + Duration::from_secs(2), None), None);
        tail.flushed(start + Duration::from_secs(3), Lsn::new(7, 0), 10);
        tail.flushed(start + Duration::from_secs(4), Lsn::new(9, 0), 10);
        assert_eq!(
            tail.take_due(start + Duration::from_secs(4), None),
            Some(Lsn::new(5, 0)),
            "only two flushes are kept"
        );
        assert_eq!(tail.take_due(start + Duration::from_secs(13), None), Some(Lsn::new(7, 0)), "and only ten seconds");
        assert_eq!(tail.take_due(start + Duration::from_secs(15), None), Some(Lsn::new(9, 0)));
        assert_eq!(tail.take_due(start + Duration::from_secs(99), None), None);
    }

    #[test]
    fn what_a_reader_needs_is_kept_up_to_a_time_and_a_size() {
        let settings = CompactorSettings {
            keep_tail: Duration::from_secs(10),
            keep_tail_flushes: 1,
            ..CompactorSettings::default()
        };
        let start = settings.clock.monotonic();
        let at = |secs| start + Duration::from_secs(secs);
        let mut tail = Tail::new(&settings, Lsn::ZERO);
        for n in 1..=5 {
            tail.flushed(at(n), Lsn::new(n * 10, 0), 100);
        }
        let needed = Some(Needed { after: Lsn::new(25, 0), keep: Duration::from_secs(100), keep_bytes: 1_000 });
        assert_eq!(tail.take_due(at(50), needed), Some(Lsn::new(20, 0)), "what comes after 25 can be read from 20 on");
        assert_eq!(tail.take_due(at(99), needed), None);
        assert_eq!(tail.take_due(at(103), needed), Some(Lsn::new(30, 0)), "too long");
        tail.flushed(at(103), Lsn::new(60, 0), 900);
        assert_eq!(tail.take_due(at(103), needed), Some(Lsn::new(50, 0)), "too much");
        // Limits may change while it is kept.
        tail.flushed(at(104), Lsn::new(70, 0), 100);
        tail.flushed(at(105), Lsn::new(80, 0), 100);
        let more = needed.map(|needed| Needed { keep: Duration::from_secs(1_000), keep_bytes: 2_000, ..needed });
        assert_eq!(tail.take_due(at(300), more), None);
        assert_eq!(tail.take_due(at(300), needed), Some(Lsn::new(80, 0)));
    }
}
