//! `Guesses`: keys, tokens and logins that were wrong, by the address that they came from. An address may be wrong so often; then
//! nothing that it shows is looked at until some time has passed, whether it is right or wrong, so that nobody learns anything.
//!
//! What was right lately is let in all the same: who shares an address with an attacker, behind a proxy say, goes on. For one who
//! guesses that changes nothing.
//!
//! # Limits
//! So many addresses are remembered, those of IPv6 by their network. An attacker with more of them than that has a fresh start
//! for each; keys have 256 random bits.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::Bucket;
use crate::client::current_client;
use crate::{ApiError, Catalogue, ErrorCode, Recent, metrics};

/// How often an address may be wrong at once.
const AT_ONCE: u64 = 200;
/// How often again, each second.
const PER_SECOND: u64 = 5;
/// Addresses that are remembered, twice.
const MAX_ADDRESSES: usize = 8192;
/// Keys and tokens that were right and are remembered, twice.
const MAX_RIGHT: usize = 16_384;

/// What was tried.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    wrong: Recent<Network, Arc<Mutex<Bucket>>>,
    /// Hashes of what was right.
    right: Recent<u64, ()>,
}

/// An address of IPv4, or the 64 bits that whoever has an address of IPv6 cannot choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d].into_iter().fold(0, |bits, part| bits << 16 | u64::from(part)))
            }
        }
    }
}

impl Guesses {
    /// How long `from` has to wait before what it shows is looked at.
    fn wait(&self, from: IpAddr, now: Duration) -> Duration {
        let known = self.wrong.get(&Network::from(from));
        known.map_or(Duration::ZERO, |bucket| {
            // Room for the next one, or there is none.
            let mut bucket = *bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(1, now).err().unwrap_or_default()
        })
    }

    fn wrong(&self, from: IpAddr, now: Duration) {
        let network = Network::from(from);
        let bucket = self.wrong.get(&network).unwrap_or_else(|| {
            let new = Arc::new(Mutex::new(Bucket::new(PER_SECOND, AT_ONCE, now)));
            self.wrong.add(network, Arc::clone(&new), MAX_ADDRESSES);
            new
        });
        // At most that much: requests that are looked at at the same time do not make it longer.
        let _full = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(1, now);
    }
}

impl Catalogue {
    /// Whether what the current client shows may be looked at: it has not been wrong too often, or this was right lately.
    ///
    /// # Errors
    /// `too_many_requests`, with a time to wait.
    pub fn may_try(&self, credential: &str) -> Result<(), ApiError> {
        let Some(from) = current_client() else { return Ok(()) };
        let wait = self.guesses().wait(from, self.clock().monotonic());
        if wait.is_zero() || self.guesses().right.get(&xxh3_64(credential.as_bytes())).is_some() {
            return Ok(());
        }
        metrics::guess("limited");
        let message =
            "too many keys, tokens or logins from this address were wrong; wait, and look whether yours is right";
        Err(ApiError::new(ErrorCode::TooManyRequests, message).retry_after(crate::error::whole_secs(wait)))
    }

    /// What the current client showed was wrong.
    pub fn was_wrong(&self) {
        metrics::guess("wrong");
        if let Some(from) = current_client() {
            self.guesses().wrong(from, self.clock().monotonic());
        }
    }

    /// What the current client showed was right.
    pub(crate) fn was_right(&self, credential: &str) {
        if current_client().is_some() {
            let hash = xxh3_64(credential.as_bytes());
            if self.guesses().right.get(&hash).is_none() {
                self.guesses().right.add(hash, (), MAX_RIGHT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_looked_at_again_after_a_while_and_others_always() {
        let guesses = Guesses::default();
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let at = Duration::from_secs;
        for _ in 0..AT_ONCE {
            assert_eq!(guesses.wait(a, at(1)), Duration::ZERO);
            guesses.wrong(a, at(1));
        }
        let wait = guesses.wait(a, at(1));
        assert_eq!(wait, Duration::from_millis(1000 / PER_SECOND));
        // What is under way when it is full does not make it longer.
        guesses.wrong(a, at(1));
        assert_eq!(guesses.wait(a, at(1)), wait);
        assert_eq!(guesses.wait(address("::ffff:192.0.2.1"), at(1)), wait);
        assert_eq!(guesses.wait(b, at(1)), Duration::ZERO);
        assert_eq!(guesses.wait(a, at(1) + wait), Duration::ZERO);
        guesses.wrong(a, at(1) + wait);
        assert_eq!(guesses.wait(a, at(1) + wait), wait);
        assert_eq!(guesses.wait(a, at(1000)), Duration::ZERO);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_the_table_is_bounded() {
        let guesses = Guesses::default();
        for n in 0..AT_ONCE {
            guesses.wrong(address(&format!("2001:db8:0:1:{n:x}::1")), Duration::ZERO);
        }
        assert!(guesses.wait(address("2001:db8:0:1::"), Duration::ZERO) > Duration::ZERO);
        assert_eq!(guesses.wait(address("2001:db8:0:2::"), Duration::ZERO), Duration::ZERO);
        for n in 0..3 * MAX_ADDRESSES {
            guesses.wrong(address(&format!("2001:db8:{:x}:{:x}::", n >> 16, n & 0xffff)), Duration::ZERO);
        }
        assert!(guesses.wrong.len() <= 2 * MAX_ADDRESSES + 1, "{}", guesses.wrong.len());
    }
}
