//! What this process knows of sites without asking: what it itself committed within the last moments.
//!
//! # Consistency
//! After this process has applied a site's `seq` at version V, the next one can only be applied after V. So a commit that
//! depends on the next `seq` since V, or since any version before V, needs no read: if somebody else was faster, it fails,
//! and the next try reads. A read version may be five seconds old; what is remembered is used for two.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bigpeer_types::{Lsn, SiteId};
use tokio::time::Instant;

/// How long it is used.
const FRESH: Duration = Duration::from_secs(2);
/// Most sites that are remembered; then all are forgotten, which costs each a read.
const MOST_SITES: usize = 1 << 16;

/// A site of an app, by the app's number.
pub(crate) type SiteOf = (u32, SiteId);

/// A site's last entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    pub(crate) lsn: Lsn,
    /// Before its commit was asked for.
    pub(crate) since: Instant,
}

/// The sites that are known.
#[derive(Debug, Default)]
pub(crate) struct KnownSites(Mutex<HashMap<SiteOf, Known>>);

impl KnownSites {
    /// What is known of a site, if it is fresh.
    pub(crate) fn get(&self, site: SiteOf) -> Option<Known> {
        let sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sites.get(&site).filter(|known| known.since.elapsed() < FRESH).copied()
    }

    pub(crate) fn learn(&self, learned: impl Iterator<Item = (SiteOf, Known)>) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= MOST_SITES {
            sites.clear();
        }
        sites.extend(learned);
    }

    pub(crate) fn forget<'a>(&self, forgotten: impl Iterator<Item = &'a SiteOf>) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for site in forgotten {
            sites.remove(site);
        }
    }
}
