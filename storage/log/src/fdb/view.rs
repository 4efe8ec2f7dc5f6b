//! What a commit is decided from: what the log says, at one version, of the sites and keys that its entries name.

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_types::Lsn;
use futures::future::try_join_all;

use super::cluster::Transaction;
use super::core::{Core, Trouble};
use super::keys::{SiteState, decode_lsn};
use super::known::{Known, SiteOf};
use super::queue::Request;
use crate::ConflictKey;

/// Most reads under way in one transaction.
const READS: usize = 1024;

/// What is known before a commit.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Where the commit's dependencies stand; `None`: where the transaction's reads stand.
    pub(crate) version: Option<u64>,
    pub(crate) sites: BTreeMap<SiteOf, SiteView>,
    /// When keys were last written, of those that entries depend on.
    pub(crate) keys: BTreeMap<(u32, ConflictKey), Lsn>,
    pub(crate) apps: BTreeMap<u32, AppView>,
}

/// A site's last entry. `seq` 0: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SiteView {
    pub(crate) seq: u64,
    pub(crate) lsn: Lsn,
    /// Of the commit that wrote it.
    pub(crate) nonce: Option<u64>,
}

/// What counts for all keys of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppView {
    /// When an entry that counts as writing every key was last written.
    pub(crate) wrote_many: Lsn,
    /// Writes up to here may be forgotten.
    pub(crate) forgotten: Lsn,
}

impl View {
    /// What this process remembers, if that is enough.
    pub(crate) fn remembered(core: &Core, requests: &[Request]) -> Option<Self> {
        let mut view = Self::default();
        for request in requests {
            if request.entries.iter().any(|entry| !entry.unchanged.is_empty()) {
                return None;
            }
            for site in request.sites() {
                let Known { seq, lsn, .. } = core.known.get(site)?;
                view.sites.insert(site, SiteView { seq, lsn, nonce: None });
            }
        }
        view.version = view.sites.values().map(|site| site.lsn.version).min();
        Some(view)
    }

    /// Asks the cluster.
    pub(crate) async fn read(
        core: &Core,
        transaction: &dyn Transaction,
        requests: &[Request],
    ) -> Result<Self, Trouble> {
        let mut view = Self::default();
        let sites: BTreeSet<_> = requests.iter().flat_map(Request::sites).collect();
        let keys: BTreeSet<_> = requests
            .iter()
            .flat_map(|request| request.entries.iter().map(|entry| (request.number, entry)))
            .flat_map(|(number, entry)| entry.unchanged.iter().map(move |&(key, _)| (number, key)))
            .collect();
        let apps: BTreeSet<_> = keys.iter().map(|(number, _)| *number).collect();
        for number in apps {
            let app = core.space.app(number);
            let (many, forgotten) =
                futures::try_join!(transaction.get(&app.wrote_many()), transaction.get(&app.forgotten()))?;
            let wrote_many = lsn_or_zero(many.as_deref(), "when very many keys were written")?;
            let forgotten = lsn_or_zero(forgotten.as_deref(), "up to where writes are forgotten")?;
            view.apps.insert(number, AppView { wrote_many, forgotten });
        }
        for some in chunks(&sites) {
            let values =
                try_join_all(some.iter().map(|&(number, site)| transaction.get(&core.space.app(number).site(site))));
            for (site, value) in some.iter().zip(values.await?) {
                let state = value.map(|value| SiteState::decode(&value).ok_or(Trouble::Damage("a site's last entry")));
                let state =
                    state.transpose()?.map(|SiteState { seq, nonce, lsn }| SiteView { seq, lsn, nonce: Some(nonce) });
                view.sites.insert(*site, state.unwrap_or_default());
            }
        }
        for some in chunks(&keys) {
            let values =
                try_join_all(some.iter().map(|&(number, key)| transaction.get(&core.space.app(number).written(key))));
            for (key, value) in some.iter().zip(values.await?) {
                if let Some(value) = value {
                    view.keys.insert(*key, decode_lsn(&value).ok_or(Trouble::Damage("when a key was written"))?);
                }
            }
        }
        Ok(view)
    }
}

pub(crate) fn lsn_or_zero(value: Option<&[u8]>, what: &'static str) -> Result<Lsn, Trouble> {
    value.map_or(Ok(Lsn::ZERO), |value| decode_lsn(value).ok_or(Trouble::Damage(what)))
}

fn chunks<T: Copy>(set: &BTreeSet<T>) -> impl Iterator<Item = Vec<T>> {
    let mut all = set.iter().copied().peekable();
    std::iter::from_fn(move || {
        all.peek()?;
        Some(all.by_ref().take(READS).collect())
    })
}
