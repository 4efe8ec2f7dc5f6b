//! Leases on the metadata space: work that must have one owner, fenced by a number and not by the clock.

use std::time::Duration;

use bigpeer_types::Clock;
use bytes::Bytes;
use thiserror::Error;

use crate::{MetaError, MetaOp, Metadata};

/// First byte of the stored form.
const LEASE_FORMAT: u8 = 1;

/// A lease that was held when it was last written.
///
/// # Consistency
/// Time only decides when another owner may try; two owners with differing clocks may believe in the lease at once. What
/// protects is the fencing token, greater for every acquisition: put it into what is committed to, or put
/// [`Lease::check`] into a metadata commit, which then happens only while nobody else has acquired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    key: Bytes,
    owner: String,
    token: u64,
    expires_ms: u64,
    revision: u64,
}

/// Why a lease is not held.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error("the lease is held by {owner} until {expires_ms} ms")]
    Held {
        /// Who.
        owner: String,
        /// Until when, in milliseconds since the epoch by the holder's clock.
        expires_ms: u64,
    },
    /// Somebody else acquired it since; stop the work.
    #[error("the lease was taken over")]
    Lost,
    /// What is stored is not a lease.
    #[error("the stored lease cannot be read: {0}")]
    Damaged(&'static str),
    /// The metadata space failed. After [`MetaError::Unknown`] acquire again under the same owner.
    #[error(transparent)]
    Metadata(#[from] MetaError),
}

impl Lease {
    /// Acquires the lease `name` for `owner`, until `ttl` from now. It is free when nobody has it, when it was released,
    /// when it expired by this clock, or when `owner` itself has it: a name must belong to one living process.
    ///
    /// # Errors
    /// [`LeaseError::Held`]; what the metadata space fails with.
    pub async fn acquire(
        metadata: &dyn Metadata,
        name: &str,
        owner: &str,
        ttl: Duration,
        clock: &dyn Clock,
    ) -> Result<Self, LeaseError> {
        let key = Bytes::from(format!("lease/{name}"));
        let now_ms = clock.now_ms();
        let stored = metadata.get(&key).await?;
        let mut token = 0;
        if let Some(stored) = &stored {
            let current = decode(&stored.value)?;
            if current.expires_ms > now_ms && current.owner != owner {
                return Err(LeaseError::Held { owner: current.owner, expires_ms: current.expires_ms });
            }
            token = current.token;
        }
        let token = token + 1;
        let expires_ms = until(now_ms, ttl);
        let check = stored.map(|stored| stored.revision);
        let mut lease = Self { key, owner: owner.to_owned(), token, expires_ms, revision: 0 };
        match metadata.commit(lease.write(check)).await {
            Ok(revision) => {
                lease.revision = revision;
                Ok(lease)
            }
            Err(MetaError::Conflict { .. }) => Err(Self::holder(metadata, &lease.key).await?),
            Err(error) => Err(error.into()),
        }
    }

    async fn holder(metadata: &dyn Metadata, key: &[u8]) -> Result<LeaseError, LeaseError> {
        let Some(stored) = metadata.get(key).await? else { return Ok(LeaseError::Lost) };
        let current = decode(&stored.value)?;
        Ok(LeaseError::Held { owner: current.owner, expires_ms: current.expires_ms })
    }

    /// Extends the lease to `ttl` from now. Works after the expiry too, if nobody else has acquired it.
    ///
    /// # Errors
    /// [`LeaseError::Lost`]: stop the work. What the metadata space fails with: the lease is as it was or extended.
    pub async fn renew(&mut self, metadata: &dyn Metadata, ttl: Duration, clock: &dyn Clock) -> Result<(), LeaseError> {
        let before = self.clone();
        self.expires_ms = until(clock.now_ms(), ttl);
        match self.rewrite(metadata).await {
            Ok(revision) => {
                self.revision = revision;
                Ok(())
            }
            Err(error) => {
                *self = before;
                Err(error)
            }
        }
    }

    /// Gives the lease up, so that another may acquire it at once. The token is remembered.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if it was lost already; what the metadata space fails with: it will expire.
    pub async fn release(mut self, metadata: &dyn Metadata) -> Result<(), LeaseError> {
        self.expires_ms = 0;
        self.rewrite(metadata).await.map(|_| ())
    }

    /// Writes what this now says over what this lease last wrote. An earlier write of ours whose outcome was not known
    /// is recognized by token and owner.
    async fn rewrite(&self, metadata: &dyn Metadata) -> Result<u64, LeaseError> {
        let mut revision = self.revision;
        loop {
            match metadata.commit(self.write(Some(revision))).await {
                Ok(revision) => return Ok(revision),
                Err(MetaError::Conflict { .. }) => {
                    let Some(stored) = metadata.get(&self.key).await? else { return Err(LeaseError::Lost) };
                    let current = decode(&stored.value)?;
                    if (current.token, current.owner.as_str()) != (self.token, self.owner.as_str())
                        || stored.revision == revision
                    {
                        return Err(LeaseError::Lost);
                    }
                    revision = stored.revision;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The fencing token: greater than that of every acquisition before.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Until when it was acquired or last extended, in milliseconds since the epoch.
    #[must_use]
    pub const fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// A check for a metadata commit: it holds while this lease's last write stands. Made again after each renewal.
    #[must_use]
    pub fn check(&self) -> MetaOp {
        MetaOp::Check { key: self.key.clone(), revision: Some(self.revision) }
    }

    fn write(&self, revision: Option<u64>) -> Vec<MetaOp> {
        let mut value = vec![LEASE_FORMAT];
        value.extend_from_slice(&self.token.to_le_bytes());
        value.extend_from_slice(&self.expires_ms.to_le_bytes());
        value.extend_from_slice(self.owner.as_bytes());
        let key = self.key.clone();
        vec![MetaOp::Check { key: key.clone(), revision }, MetaOp::Put { key, value: value.into() }]
    }
}

fn until(now_ms: u64, ttl: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

struct Stored {
    token: u64,
    expires_ms: u64,
    owner: String,
}

fn decode(value: &[u8]) -> Result<Stored, LeaseError> {
    let short = LeaseError::Damaged("it is too short");
    let (format, rest) = value.split_first().ok_or(short.clone())?;
    if *format != LEASE_FORMAT {
        return Err(LeaseError::Damaged("its format is not known to this version"));
    }
    let (token, rest) = rest.split_first_chunk::<8>().ok_or(short.clone())?;
    let (expires, owner) = rest.split_first_chunk::<8>().ok_or(short)?;
    let owner = std::str::from_utf8(owner).map_err(|_| LeaseError::Damaged("its owner is not text"))?;
    Ok(Stored { token: u64::from_le_bytes(*token), expires_ms: u64::from_le_bytes(*expires), owner: owner.to_owned() })
}
