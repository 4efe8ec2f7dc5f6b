//! One caller at one time before the doors: what the model expects of them, and the judgement of what they say.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::caller::{Caller, View};
use super::history::{Documents, History, Stored, ids, mark_of, marks};
use super::rules::{Chance, Condition, condition, drawn};
use super::world::{App, World};

pub(super) struct Look<'a> {
    pub(super) world: &'a World,
    pub(super) app: &'a App,
    pub(super) history: &'a History,
    pub(super) caller: &'a Caller,
    pub(super) chance: &'a Chance,
    /// Says which seed and step this is.
    pub(super) case: String,
}

impl<'a> Look<'a> {
    pub(super) fn view(&self) -> &'a View {
        &self.caller.view
    }

    /// What the caller may see now.
    pub(super) fn seen(&self) -> Vec<&'a Stored> {
        self.view().of(&self.history.documents)
    }

    /// For messages: where it is, who asks, by which rules.
    pub(super) fn at(&self, door: &str) -> String {
        let who = if self.caller.is_user { "the user" } else { "the key" };
        format!("{}: {who} at {door}\n  {}", self.case, self.view().describe())
    }

    /// An answer shows exactly these versions, by their marks, and names no other document.
    pub(super) fn shows(&self, door: &str, answer: &[u8], expected: &[&Stored]) {
        self.shows_of(door, answer, expected.iter().map(|stored| &stored.json));
    }

    pub(super) fn shows_of<'j>(&self, door: &str, answer: &[u8], expected: impl Iterator<Item = &'j Json>) {
        let expected: BTreeSet<String> = expected.map(mark_of).collect();
        let shown = marks(answer);
        let text = || String::from_utf8_lossy(answer).chars().take(2000).collect::<String>();
        let which = |marks: &BTreeSet<String>, others: &BTreeSet<String>| {
            let versions = marks.difference(others).map(|mark| format!("{mark} {:?}", self.history.versions.get(mark)));
            versions.collect::<Vec<_>>().join("\n    ")
        };
        assert!(
            shown == expected,
            "{}\n  shows what it must not: {}\n  hides what it must show: {}\n  answer: {}",
            self.at(door),
            which(&shown, &expected),
            which(&expected, &shown),
            text()
        );
        self.names(door, answer);
    }

    /// An answer shows none of the versions that may not be seen, of now or of any time.
    pub(super) fn leaks_nothing(&self, door: &str, answer: &[u8]) {
        let may = self.view().marks(self.history);
        let shown = marks(answer);
        let text = String::from_utf8_lossy(answer);
        assert!(shown.is_subset(&may), "{} shows {:?}: {text}", self.at(door), shown.difference(&may));
        self.names(door, answer);
    }

    /// An answer shows nothing. It may repeat an id that was asked for.
    pub(super) fn is_silent(&self, door: &str, answer: &[u8]) {
        assert!(marks(answer).is_empty(), "{} shows {:?}", self.at(door), String::from_utf8_lossy(answer));
    }

    /// Documents of which no version may be seen are not even named.
    fn names(&self, door: &str, answer: &[u8]) {
        let versions = self.history.versions.values().filter(|version| self.view().allows(version));
        let may: BTreeSet<String> = versions.map(super::history::id_of).collect();
        let named = ids(answer);
        let text = String::from_utf8_lossy(answer);
        assert!(named.is_subset(&may), "{} names {:?}: {text}", self.at(door), named.difference(&may));
    }

    pub(super) fn equal(&self, door: &str, found: &Json, expected: &Json) {
        assert!(found == expected, "{}\n  answers  {found}\n  expected {expected}", self.at(door));
    }

    /// A condition for a question, without claims.
    pub(super) fn question(&self) -> Condition {
        let splits = |one: &Condition| self.history.is_split(|version| one.holds(version, &Json::Null));
        drawn(self.chance, || condition(self.chance, 1, false), splits)
    }

    /// A document that the caller may not see now.
    pub(super) fn forbidden(&self) -> Option<&'a Stored> {
        let forbidden: Vec<_> =
            self.history.documents.values().filter(|stored| !self.view().allows(&stored.json)).collect();
        (!forbidden.is_empty()).then(|| self.chance.pick(&forbidden))
    }

    /// Some moment of the past: its transaction, and the documents after it.
    pub(super) fn moment(&self) -> (u64, &'a Documents) {
        let past = self.history.at(self.chance.below(self.history.transactions.len()));
        (past.id, &past.after)
    }
}
