//! The checkers. Each looks at something from outside, and compares it with the truth.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bigpeer_crdt::{DocId, Document, Object};
use bigpeer_dql::SelectPlan;
use bigpeer_log::{ReadError, TransactionLog};
use bigpeer_types::{AppId, CollectionName, Lsn, SiteId};

use crate::{Checker, Entry, Readable, Truth, Violation};

/// Which document.
pub type Place = (CollectionName, DocId);

/// What a peer shows: the visible documents of its store.
pub type Held = BTreeMap<Place, Object>;

/// A subscription, and how far it is.
#[derive(Clone, Debug)]
pub struct Subscribed {
    /// What it asks for.
    pub plan: SelectPlan,
    /// Up to where the peer has everything; none while it is catching up, or when it was refused.
    pub cursor: Option<Lsn>,
}

/// A peer at one moment.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// The site that it writes as.
    pub site: Option<SiteId>,
    /// All of its subscriptions.
    pub subscriptions: &'a [Subscribed],
    /// What it holds.
    pub held: &'a Held,
    /// Documents that it wrote to in a way that the cut at its cursor does not have, or not yet.
    pub dirty: &'a BTreeSet<Place>,
    /// Documents that it wrote to, and that may go a moment after they left: when those writes have come through.
    pub late: &'a BTreeSet<Place>,
    /// The permissions that may be in force for it; at least one.
    pub readable: &'a [Readable],
}

/// Checkers 4 and 6: what a peer holds of its live subscriptions is the app at one position, no document more, none less,
/// none in another state, but for those that it writes itself.
///
/// # Errors
/// The first difference.
pub fn check_cut(truth: &Truth, reader: &Reader<'_>) -> Result<(), Violation> {
    let mut first = None;
    for readable in reader.readable {
        match check_cut_under(truth, reader, readable) {
            Ok(()) => return Ok(()),
            Err(violation) => first = first.or(Some(violation)),
        }
    }
    first.map_or(Ok(()), Err)
}

fn check_cut_under(truth: &Truth, reader: &Reader<'_>, readable: &Readable) -> Result<(), Violation> {
    let name = reader.name;
    let mut expected = BTreeSet::new();
    for subscription in reader.subscriptions {
        let Some(cursor) = subscription.cursor else { continue };
        let collection = subscription.plan.collection();
        for (id, document) in truth.matching(&subscription.plan, cursor) {
            if !readable.allows(collection, &id, &document) {
                continue;
            }
            let place = (collection.clone(), id);
            if !reader.dirty.contains(&place) {
                let wanted = document.to_object();
                let found = reader.held.get(&place);
                if found != Some(&wanted) {
                    let found = found.map_or_else(|| "nothing".to_owned(), show);
                    let (place, wanted) = (show_place(&place), show(&wanted));
                    let what = format!("{name}, at cursor {cursor}: {place} is {found}, and should be {wanted}");
                    return Err(Checker::OneCut.broken(what));
                }
            }
            expected.insert(place);
        }
    }
    if reader.subscriptions.iter().any(|subscription| subscription.cursor.is_none()) {
        return Ok(());
    }
    for (place, object) in reader.held {
        if !expected.contains(place)
            && !reader.dirty.contains(place)
            && !reader.late.contains(place)
            && !stays(truth, reader, place, readable)
        {
            let cursors: Vec<String> = reader
                .subscriptions
                .iter()
                .filter_map(|subscription| subscription.cursor)
                .map(|lsn| lsn.to_string())
                .collect();
            let what = format!(
                "{name}, at cursors {}: {} does not match, and is still held: {}",
                cursors.join(" "),
                show_place(place),
                show(object)
            );
            return Err(Checker::LeftIsGone.broken(what));
        }
    }
    Ok(())
}

/// Whether nobody tells the peer that a document does not match: it wrote it itself, and it did not match then either.
fn stays(truth: &Truth, reader: &Reader<'_>, place: &Place, readable: &Readable) -> bool {
    let Some(site) = reader.site else { return false };
    let touches = |entry: &&Entry| {
        let mut changes = entry.transaction.changes().iter();
        entry.site == site && changes.any(|change| (&change.collection, &change.id) == (&place.0, &place.1))
    };
    let Some(last) = truth.entries().iter().rev().find(touches) else { return false };
    let Some(document) = truth.document(place, last.lsn) else { return false };
    let matched = |subscription: &Subscribed| {
        *subscription.plan.collection() == place.0 && subscription.plan.matches(&place.1, document)
    };
    !(readable.allows(&place.0, &place.1, document) && reader.subscriptions.iter().any(matched))
}

/// Checker 5: every document that is held was readable in some state, or is the holder's own.
///
/// # Errors
/// The first one that was not.
pub fn check_permitted(truth: &Truth, reader: &Reader<'_>) -> Result<(), Violation> {
    for (place, object) in reader.held {
        let is_own = reader.dirty.contains(place)
            || reader.site.is_some_and(|site| {
                let of_site = truth.entries().iter().filter(|entry| entry.site == site);
                of_site
                    .flat_map(|entry| entry.transaction.changes())
                    .any(|change| (&change.collection, &change.id) == (&place.0, &place.1))
            });
        // In the very state that is held.
        let states =
            || truth.versions(place).map(|document| &**document).filter(|document| document.to_object() == *object);
        if !is_own && !reader.readable.iter().any(|readable| readable.allows_any(place, states())) {
            let what = format!("{} holds {}: {}", reader.name, show_place(place), show(object));
            return Err(Checker::Permitted.broken(what));
        }
    }
    Ok(())
}

/// Checker 2 and 3: the log holds what the truth saw of it, except for what was trimmed.
///
/// # Errors
/// The first difference.
pub async fn check_log(truth: &Truth, log: &dyn TransactionLog, app: &AppId) -> Result<(), Violation> {
    let lost = |what: String| Checker::NothingLost.broken(what);
    let Ok(mut after) = log.trimmed(app).await else { return Ok(()) };
    let kept_after = after;
    let mut expected = truth.entries().iter().skip_while(|entry| entry.lsn <= kept_after);
    loop {
        let batch = match log.read(app, after, usize::MAX).await {
            Ok(batch) => batch,
            Err(ReadError::Unavailable { .. } | ReadError::Trimmed { .. }) => return Ok(()),
            Err(error @ ReadError::Corrupt { .. }) => return Err(lost(error.to_string())),
        };
        if batch.entries.is_empty() {
            break;
        }
        after = batch.through;
        for entry in batch.entries {
            let Some(known) = expected.next() else { return Ok(()) };
            let is_same = (known.lsn, known.site, known.seq) == (entry.lsn, entry.site, entry.seq)
                && *known.transaction.encoded() == entry.payload;
            if !is_same {
                let (site, seq, lsn) = (known.site, known.seq, known.lsn);
                let what =
                    format!("{site}/{seq} stood at {lsn}; now there is {}/{} at {}", entry.site, entry.seq, entry.lsn);
                return Err(lost(what));
            }
        }
    }
    match expected.next() {
        None => Ok(()),
        Some(Entry { site, seq, lsn, .. }) => Err(lost(format!("{site}/{seq} stood in the log at {lsn}, and is gone"))),
    }
}

/// Checker 2: every number that a peer was told an outcome of stands in the log, as what the peer was told.
///
/// # Errors
/// The first one that does not.
pub fn check_outcomes(
    truth: &Truth,
    name: &str,
    site: SiteId,
    acknowledged: u64,
    rejected: &BTreeSet<u64>,
) -> Result<(), Violation> {
    for seq in 1..=acknowledged {
        let Some(entry) = truth.find(site, seq) else {
            return Err(Checker::NothingLost.broken(format!("{name} was acknowledged {site}/{seq}; the log has none")));
        };
        if entry.is_rejection != rejected.contains(&seq) {
            let (told, stands) = if entry.is_rejection { ("accepted", "rejected") } else { ("rejected", "accepted") };
            let what = format!("{name} was told that {site}/{seq} is {told}; it was {stands}");
            return Err(Checker::NothingLost.broken(what));
        }
    }
    Ok(())
}

/// Checker 3: each counter is the sum of the increments that stand in the log. `increments`: who, number, document, by how much.
///
/// # Errors
/// The first counter that is not.
pub fn check_counters(truth: &Truth, field: &str, increments: &[(SiteId, u64, Place, i64)]) -> Result<(), Violation> {
    let mut sums: BTreeMap<&Place, i64> = BTreeMap::new();
    for (site, seq, place, by) in increments {
        if truth.find(*site, *seq).is_some_and(|entry| !entry.is_rejection) {
            *sums.entry(place).or_default() += by;
        }
    }
    for (place, sum) in sums {
        let document = truth.document(place, Lsn::MAX);
        let value = document.map(|document| document.to_object()).and_then(|object| object.get(field).cloned());
        let value = value.map(|value| value.to_json());
        if value.as_ref().and_then(serde_json::Value::as_i64) != Some(sum) {
            let what = format!("{} counts {value:?}; the increments in the log are {sum}", show_place(place));
            return Err(Checker::NothingTwice.broken(what));
        }
    }
    Ok(())
}

/// Checker 7: documents that were deleted, and never written again, are not there.
///
/// # Errors
/// The first that is.
pub fn check_dead(truth: &Truth, dead: &[(SiteId, u64, Place)], held: &[(&str, &Held)]) -> Result<(), Violation> {
    for (site, seq, place) in dead {
        if truth.find(*site, *seq).is_none_or(|entry| entry.is_rejection) {
            continue;
        }
        if truth.document(place, Lsn::MAX).is_some_and(|document| document.is_visible()) {
            let what = format!("{} was deleted by {site}/{seq}, and is visible", show_place(place));
            return Err(Checker::DeadStayDead.broken(what));
        }
        for (name, held) in held {
            if held.contains_key(place) {
                let what = format!("{} was deleted by {site}/{seq}; {name} holds it", show_place(place));
                return Err(Checker::DeadStayDead.broken(what));
            }
        }
    }
    Ok(())
}

/// Checker 1: a store holds the same states, byte by byte.
///
/// # Errors
/// The first difference.
pub fn check_store(truth: &Truth, name: &str, stored: &BTreeMap<Place, Document>) -> Result<(), Violation> {
    for (place, document) in truth.documents() {
        let same = match stored.get(place) {
            Some(found) => found.encode() == document.encode(),
            // What nobody can see need not be kept.
            None => !document.is_visible(),
        };
        if !same {
            let found = stored.get(place).map(Document::to_object);
            let found = found.map_or_else(|| "nothing".to_owned(), |object| show(&object));
            let what =
                format!("{name}: {} is {found}, and should be {}", show_place(place), show(&document.to_object()));
            return Err(Checker::Convergence.broken(what));
        }
    }
    for place in stored.keys() {
        if truth.document(place, Lsn::MAX).is_none() {
            return Err(Checker::Convergence.broken(format!("{name}: nobody wrote {}", show_place(place))));
        }
    }
    Ok(())
}

/// The first of each value: what stands out in a message is enough.
fn show(object: &Object) -> String {
    let fields = object.iter().map(|(key, value)| {
        let value: String = value.clone().to_json().to_string().chars().take(40).collect();
        format!("{key}: {value}")
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

fn show_place((collection, id): &Place) -> impl fmt::Display + use<> {
    format!("{collection}/{}", id.to_value().to_json())
}
