//! Every key that feeds have in the log's metadata space, with layout and lifetime. The parts that vary cannot hold `/`.

use std::str::FromStr;

use bigpeer_chassis::Name;
use bigpeer_types::AppId;
use bytes::Bytes;

/// A key of the metadata space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// `feeds/entries/{app}/{name}`: what the feed is to be. Until it is deleted.
    Entry(AppId, Name),
    /// `feeds/cursors/{app}/{name}`: how far it has come. As long as the entry. Outside of what is watched.
    Checkpoint(AppId, Name),
    /// `feeds/dead/{app}/{name}/{id}`: why an event was given up. Until it is delivered or discarded, at most as long as the
    /// entry.
    DeadLetter(AppId, Name, String),
    /// `feeds/dead-bodies/{app}/{name}/{id}/{part:06}`: a part of what was to be sent. As long as the letter.
    DeadBody(AppId, Name, String, u32),
    /// `feeds/dead-counts/{app}/{name}`: how many dead letters there are. At most as long as the entry.
    DeadCount(AppId, Name),
    /// `feeds/deliveries/{app}/{name}/{u64::MAX - number:020}`: attempts of a webhook, a page of them, so that the newest page
    /// comes first. Until there are newer ones enough, or it is old; at most as long as the entry.
    Deliveries(AppId, Name, u64),
    /// `feeds/retention/{app}`: how much of the app's past is kept for its feeds; none: as by default. As long as the app.
    Retention(AppId),
}

/// What every entry's key starts with.
pub(crate) const ENTRIES: &str = "feeds/entries/";

/// What the keys of an app's entries start with.
pub(crate) fn entries_of(app: &AppId) -> String {
    format!("{ENTRIES}{app}/")
}

/// What the keys of a feed's dead letters start with.
pub(crate) fn dead_letters_of(app: &AppId, name: &Name) -> String {
    format!("feeds/dead/{app}/{name}/")
}

/// What the keys of a dead letter's parts start with.
pub(crate) fn dead_bodies_of(app: &AppId, name: &Name, id: &str) -> String {
    format!("feeds/dead-bodies/{app}/{name}/{id}/")
}

/// What the keys of a feed's deliveries start with.
pub(crate) fn deliveries_of(app: &AppId, name: &Name) -> String {
    format!("feeds/deliveries/{app}/{name}/")
}

impl Key {
    pub(crate) fn encode(&self) -> Bytes {
        let text = match self {
            Self::Entry(app, name) => format!("{ENTRIES}{app}/{name}"),
            Self::Checkpoint(app, name) => format!("feeds/cursors/{app}/{name}"),
            Self::DeadLetter(app, name, id) => format!("feeds/dead/{app}/{name}/{id}"),
            Self::DeadBody(app, name, id, part) => format!("feeds/dead-bodies/{app}/{name}/{id}/{part:06}"),
            Self::DeadCount(app, name) => format!("feeds/dead-counts/{app}/{name}"),
            Self::Deliveries(app, name, number) => {
                format!("{}{:020}", deliveries_of(app, name), u64::MAX - number)
            }
            Self::Retention(app) => format!("feeds/retention/{app}"),
        };
        text.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let parts: Vec<&str> = std::str::from_utf8(bytes).ok()?.split('/').collect();
        Some(match parts.as_slice() {
            ["feeds", "entries", app, name] => Self::Entry(app.parse().ok()?, name.parse().ok()?),
            ["feeds", "cursors", app, name] => Self::Checkpoint(app.parse().ok()?, name.parse().ok()?),
            ["feeds", "retention", app] => Self::Retention(app.parse().ok()?),
            ["feeds", "dead", app, name, id] => Self::DeadLetter(app.parse().ok()?, name.parse().ok()?, letter(id)?),
            ["feeds", "dead-counts", app, name] => Self::DeadCount(app.parse().ok()?, name.parse().ok()?),
            ["feeds", "dead-bodies", app, name, id, part] => {
                Self::DeadBody(app.parse().ok()?, name.parse().ok()?, letter(id)?, digits(part, 6)?)
            }
            ["feeds", "deliveries", app, name, number] => {
                let number = u64::MAX - digits::<u64>(number, 20)?;
                Self::Deliveries(app.parse().ok()?, name.parse().ok()?, number)
            }
            _ => return None,
        })
    }
}

/// A number that is written with so many digits.
fn digits<T: FromStr>(text: &str, count: usize) -> Option<T> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The id of a dead letter, if it is one.
pub(crate) fn letter(id: &str) -> Option<String> {
    let good = (1..=40).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    good.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Key> {
        let name = || "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}".prop_map(|text| text.parse::<Name>().unwrap());
        let app = || "[a-z0-9][a-z0-9-]{0,62}".prop_map(|text| AppId::new(&text).unwrap());
        let id = || "[a-z0-9-]{1,40}";
        prop_oneof![
            (app(), name()).prop_map(|(app, name)| Key::Entry(app, name)),
            (app(), name()).prop_map(|(app, name)| Key::Checkpoint(app, name)),
            (app(), name(), id()).prop_map(|(app, name, id)| Key::DeadLetter(app, name, id)),
            (app(), name()).prop_map(|(app, name)| Key::DeadCount(app, name)),
            (app(), name(), any::<u64>()).prop_map(|(app, name, number)| Key::Deliveries(app, name, number)),
            app().prop_map(Key::Retention),
            (app(), name(), id(), 0..1_000_000_u32)
                .prop_map(|(app, name, id, part)| Key::DeadBody(app, name, id, part)),
        ]
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_never_meet(a in keys(), b in keys()) {
            prop_assert_eq!(Key::decode(&a.encode()), Some(a.clone()));
            prop_assert_eq!(a.encode() == b.encode(), a == b);
        }
    }
}
