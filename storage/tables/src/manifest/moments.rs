//! `Moments`: at which time which LSN was in segments; what "thirty days ago" means in the log.
//!
//! Recent ones are dense, older ones sparse: an answer is never too young, and older than asked for by an eighth at most.

use bigpeer_types::Lsn;
use serde::{Deserialize, Serialize};

/// One moment is dropped when those beside it are nearer to each other than this part of their age.
const SPACING: u64 = 8;

/// Times and LSNs, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moments(Vec<(u64, Lsn)>);

impl Moments {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything up to `lsn` is in segments at `now_ms`. Forgets what is of no use any more for questions about up to
    /// `longest_ms` ago.
    pub fn note(&mut self, now_ms: u64, lsn: Lsn, longest_ms: u64) {
        match self.0.last_mut() {
            _ if lsn == Lsn::ZERO => return,
            Some((at, known)) if *at > now_ms || *known >= lsn => return,
            Some((at, known)) if *at == now_ms => *known = lsn,
            Some(_) | None => self.0.push((now_ms, lsn)),
        }
        // The oldest that answers for the longest time stays.
        let useless = self.0.partition_point(|(at, _)| at.saturating_add(longest_ms) <= now_ms).saturating_sub(1);
        self.0.drain(..useless);
        let mut kept: Vec<(u64, Lsn)> = Vec::with_capacity(self.0.len());
        for (place, moment) in self.0.iter().enumerate() {
            let near = match (kept.last(), self.0.get(place + 1)) {
                (Some((before, _)), Some((after, _))) => (after - before) * SPACING < now_ms - after,
                (Some(_) | None, Some(_) | None) => false,
            };
            if !near {
                kept.push(*moment);
            }
        }
        self.0 = kept;
    }

    /// Up to where everything is known to have been written at least `age_ms` before `now_ms`; zero if that is not known
    /// of anything.
    #[must_use]
    pub fn before(&self, now_ms: u64, age_ms: u64) -> Lsn {
        let known = self.0.partition_point(|(at, _)| at.saturating_add(age_ms) <= now_ms);
        known.checked_sub(1).and_then(|last| self.0.get(last)).map_or(Lsn::ZERO, |(_, lsn)| *lsn)
    }

    /// The time by which everything up to `lsn` was in segments, as far as it is known.
    #[must_use]
    pub fn time_of(&self, lsn: Lsn) -> Option<u64> {
        let place = self.0.partition_point(|(_, known)| *known < lsn);
        self.0.get(place).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_never_too_young_and_hardly_too_old() {
        const DAY: u64 = 86_400_000;
        let mut moments = Moments::default();
        let mut now = 1_000_000;
        let mut log = Vec::new();
        for version in 1..60_000 {
            now += 10_000 + version % 7 * 8_000;
            moments.note(now, Lsn::new(version, 0), 20 * DAY);
            log.push((now, version));
        }
        assert!(moments.0.len() < 150, "{}", moments.0.len());
        for age in [60_000, 3_600_000, DAY, 7 * DAY, 20 * DAY] {
            let version = moments.before(now, age).version;
            let (at, _) = log[usize::try_from(version).unwrap() - 1];
            assert!(at + age <= now, "too young");
            assert!(now - at <= age + age / 4 + 60_000, "{age} became {}", now - at);
        }
        assert_eq!(moments.before(now, 40 * DAY), Lsn::ZERO);
        assert_eq!(moments.time_of(Lsn::new(59_999, 0)), Some(now));
        assert_eq!(moments.time_of(Lsn::new(60_000, 0)), None);
    }

    #[test]
    fn what_goes_back_changes_nothing() {
        let mut moments = Moments::default();
        moments.note(10, Lsn::new(5, 0), 100);
        moments.note(20, Lsn::new(5, 0), 100);
        moments.note(9, Lsn::new(6, 0), 100);
        assert_eq!(moments.0, vec![(10, Lsn::new(5, 0))]);
        moments.note(10, Lsn::new(7, 0), 100);
        assert_eq!(moments.0, vec![(10, Lsn::new(7, 0))], "more in the same moment");
    }
}
