//! `Hlc`, `SiteId` and `Stamp`: the total order in which conflicts are decided, and the clock that hands stamps out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Clock;

/// Hybrid logical clock reading: 48 bits of milliseconds since the epoch, 16 bits of counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every other reading.
    pub const ZERO: Self = Self(0);
    /// Most milliseconds that fit (the year 10889).
    pub const MAX_MILLIS: u64 = (1 << 48) - 1;

    /// The reading of `millis` and `counter`; `millis` above [`Self::MAX_MILLIS`] is capped.
    #[must_use]
    pub const fn new(millis: u64, counter: u16) -> Self {
        let millis = if millis > Self::MAX_MILLIS { Self::MAX_MILLIS } else { millis };
        Self((millis << 16) | counter as u64)
    }

    /// From the 64 bits of the encodings.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits of the encodings; their order is the order of readings.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The counter among readings of one millisecond.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low 16 bits are the counter")]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }

    /// The next reading in order, or none after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.millis(), self.counter())
    }
}

/// One writer of an app: a Small Peer installation, or a server process that writes for HTTP clients. Unique in its
/// app, given by the authentication service. Text form: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteId(u64);

impl SiteId {
    /// The site with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The site's number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<SiteId> for String {
    fn from(site: SiteId) -> Self {
        site.to_string()
    }
}

impl TryFrom<String> for SiteId {
    type Error = ClockError;
    fn try_from(text: String) -> Result<Self, ClockError> {
        text.parse()
    }
}

impl FromStr for SiteId {
    type Err = ClockError;
    fn from_str(text: &str) -> Result<Self, ClockError> {
        let valid = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(number) if valid => Ok(Self(number)),
            Ok(_) | Err(_) => Err(ClockError::NotASite(text.chars().take(32).collect())),
        }
    }
}

/// When and by whom something was written: greater stamps win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// When.
    pub hlc: Hlc,
    /// By whom; decides between equal readings.
    pub site: SiteId,
}

impl Stamp {
    /// The stamp of `site` at `hlc`.
    #[must_use]
    pub const fn new(hlc: Hlc, site: SiteId) -> Self {
        Self { hlc, site }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hlc, self.site)
    }
}

/// A stamp, reading or site that cannot be accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClockError {
    /// Text that is not a site.
    #[error("'{0}' is not a site; expected 16 hexadecimal digits")]
    NotASite(String),
    /// A reading too far ahead of this clock.
    #[error(
        "the reading {hlc} is {ahead_ms} ms ahead of this clock ({now_ms} ms); set the device's clock and try again"
    )]
    TooFarAhead {
        /// The reading.
        hlc: Hlc,
        /// How far ahead it is, in milliseconds.
        ahead_ms: u64,
        /// This clock, in milliseconds since the epoch.
        now_ms: u64,
    },
}

/// A site's hybrid logical clock: strictly increasing stamps, never behind what the site has seen.
#[derive(Debug, Clone)]
pub struct HlcClock {
    site: SiteId,
    last: Hlc,
    clock: Arc<dyn Clock>,
}

impl HlcClock {
    /// The clock of `site`. `last` is the newest reading that the site handed out or saw before (zero for a new site).
    #[must_use]
    pub fn new(site: SiteId, last: Hlc, clock: Arc<dyn Clock>) -> Self {
        Self { site, last, clock }
    }

    /// Whose clock this is.
    #[must_use]
    pub const fn site(&self) -> SiteId {
        self.site
    }

    /// The newest reading handed out or seen: what must be stored to go on after a restart.
    #[must_use]
    pub const fn last(&self) -> Hlc {
        self.last
    }

    /// A stamp greater than every stamp handed out or seen before. When the wall clock stands still or goes back the
    /// counter moves, and carries into the milliseconds.
    pub fn tick(&mut self) -> Stamp {
        let wall = Hlc::new(self.clock.now_ms(), 0);
        self.last = wall.max(Hlc::from_bits(self.last.to_bits().saturating_add(1)));
        Stamp::new(self.last, self.site)
    }

    /// Moves the clock forward past what was seen.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }

    /// Refuses a reading more than `max_ahead_ms` ahead of the wall clock.
    ///
    /// # Errors
    /// [`ClockError::TooFarAhead`], with this clock's time.
    pub fn check(clock: &dyn Clock, hlc: Hlc, max_ahead_ms: u64) -> Result<(), ClockError> {
        let now_ms = clock.now_ms();
        let ahead_ms = hlc.millis().saturating_sub(now_ms);
        if ahead_ms > max_ahead_ms { Err(ClockError::TooFarAhead { hlc, ahead_ms, now_ms }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;
    use proptest::prelude::*;

    fn clock_at(now_ms: u64) -> (Arc<ManualClock>, HlcClock) {
        let wall = Arc::new(ManualClock::new(now_ms));
        (Arc::clone(&wall), HlcClock::new(SiteId::new(7), Hlc::ZERO, wall))
    }

    proptest! {
        #[test]
        fn stamps_strictly_increase_whatever_the_wall_clock_does(moves in prop::collection::vec((any::<u32>(), any::<Option<u32>>()), 1..200)) {
            let (wall, mut clock) = clock_at(0);
            let mut last = None;
            for (now, seen) in moves {
                wall.set(u64::from(now));
                if let Some(seen) = seen {
                    clock.observe(Hlc::new(u64::from(seen), 3));
                    last = last.max(Some(Hlc::new(u64::from(seen), 3)));
                }
                let stamp = clock.tick();
                prop_assert!(Some(stamp.hlc) > last);
                last = Some(stamp.hlc);
            }
        }

        #[test]
        fn parts_round_trip(millis in 0..=Hlc::MAX_MILLIS, counter: u16) {
            let hlc = Hlc::new(millis, counter);
            prop_assert_eq!((hlc.millis(), hlc.counter()), (millis, counter));
            prop_assert_eq!(Hlc::from_bits(hlc.to_bits()), hlc);
        }
    }

    #[test]
    fn a_counter_that_overflows_carries_into_the_milliseconds() {
        let (_, mut clock) = clock_at(10);
        clock.observe(Hlc::new(10, u16::MAX));
        assert_eq!(clock.tick().hlc, Hlc::new(11, 0));
    }

    #[test]
    fn readings_from_the_far_future_are_refused_with_the_servers_time() {
        let wall = ManualClock::new(1_000);
        assert_eq!(HlcClock::check(&wall, Hlc::new(1_500, 0), 500), Ok(()));
        let error = HlcClock::check(&wall, Hlc::new(1_501, 0), 500).unwrap_err();
        assert!(error.to_string().contains("1000 ms"), "{error}");
    }

    #[test]
    fn sites_are_sixteen_hex_digits() {
        let site = SiteId::new(0xabc);
        assert_eq!(site.to_string().parse::<SiteId>(), Ok(site));
        for bad in ["", "abc", "+000000000000abc", "zzzzzzzzzzzzzzzz"] {
            assert!(bad.parse::<SiteId>().is_err(), "{bad}");
        }
    }
}
