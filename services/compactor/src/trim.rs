//! How much of the log to keep behind the manifest.

use std::collections::VecDeque;
use std::time::Duration;

use bigpeer_types::Lsn;

use crate::CompactorSettings;

/// The flushes of late, and when they were: what can be trimmed by and by.
#[derive(Debug)]
pub(crate) struct Tail {
    keep: Duration,
    keep_flushes: usize,
    flushes: VecDeque<(Duration, Lsn)>,
}

impl Tail {
    /// Starts with what was in segments already.
    pub(crate) fn new(settings: &CompactorSettings, flushed: Lsn) -> Self {
        let flushes = VecDeque::from([(settings.clock.monotonic(), flushed)]);
        Self { keep: settings.keep_tail, keep_flushes: settings.keep_tail_flushes, flushes }
    }

    /// Everything up to `lsn` is in segments since `now`.
    pub(crate) fn flushed(&mut self, now: Duration, lsn: Lsn) {
        self.flushes.push_back((now, lsn));
    }

    /// Through where the log can be trimmed; none when there is nothing to trim.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Lsn> {
        let mut due = None;
        while let Some((at, lsn)) = self.flushes.front() {
            if self.flushes.len() <= self.keep_flushes && now.saturating_sub(*at) < self.keep {
                break;
            }
            due = Some(*lsn);
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
        tail.flushed(start + Duration::from_secs(1), Lsn::new(5, 0));
        assert_eq!(tail.take_due(start + Duration::from_secs(2)), None);
        tail.flushed(start + Duration::from_secs(3), Lsn::new(7, 0));
        tail.flushed(start + Duration::from_secs(4), Lsn::new(9, 0));
        assert_eq!(tail.take_due(start + Duration::from_secs(4)), Some(Lsn::new(5, 0)), "only two flushes are kept");
        assert_eq!(tail.take_due(start + Duration::from_secs(13)), Some(Lsn::new(7, 0)), "and only ten seconds");
        assert_eq!(tail.take_due(start + Duration::from_secs(15)), Some(Lsn::new(9, 0)));
        assert_eq!(tail.take_due(start + Duration::from_secs(99)), None);
    }
}
