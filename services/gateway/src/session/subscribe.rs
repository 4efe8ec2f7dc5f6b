//! Subscriptions of a session: opening, catching up one group after the other, and going live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_crdt::{Object, Value};
use bigpeer_protocol::pb::{self, CloseCode, RefuseCode};
use bigpeer_protocol::{PageWriter, Progress};
use bigpeer_tables::TablesError;
use bigpeer_types::limits::MAX_STATEMENT_BYTES;
use bigpeer_types::{CollectionName, Lsn};
use tokio::time::Instant;

use super::Session;
use super::catch_up::{CatchUp, Member, Step};
use super::since::Since;
use crate::hub::Matcher;
use crate::metrics;
use crate::rules::{self, Allowed};

/// How long the tail may take to show what another gateway has shown.
const TAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take to say what it holds.
const HELD_TIMEOUT: Duration = Duration::from_secs(30);

impl Session {
    pub(super) async fn subscribe(&mut self, subscribe: pb::Subscribe) {
        let id = subscribe.id;
        let plan = match arguments(&subscribe).and_then(|arguments| rules::bind(&subscribe.query, &arguments)) {
            Ok(plan) => plan,
            Err(message) => return self.refuse(id, RefuseCode::RefuseInvalidQuery, message),
        };
        let read = self.rules.read(plan.collection());
        if matches!(read, Allowed::Nothing) {
            let message = format!("the permissions do not allow to read '{}'", plan.collection());
            return self.refuse(id, RefuseCode::RefuseForbidden, message);
        }
        let Some(place) = self.meter.subscription() else {
            let message = "the app has as many subscriptions as its quota allows";
            return self.refuse(id, RefuseCode::RefuseLimit, message.to_owned());
        };
        self.places.insert(id, place);
        let matcher = self.app.hub.shared(Matcher::new(plan, read));
        // A peer that stores the new scope beside a cursor of the old one, and hears no more, would go on from it.
        let is_of_another_scope = subscribe.resume.as_ref().is_some_and(|resume| {
            resume.lsn.is_some_and(|lsn| Lsn::from(lsn) > Lsn::ZERO) && resume.scope != matcher.scope()
        });
        if is_of_another_scope {
            self.cannot_resume(id);
        }
        let effects = self.machine.subscribed(id, matcher.scope());
        self.answer(effects);
        let since = match self.since(subscribe).await {
            Ok(since) => since.filter(|_| !is_of_another_scope),
            Err(close) => return self.end(close.code(), &close.message),
        };
        self.device.subscribed(id, &matcher);
        self.subscriptions.insert(id, Arc::clone(&matcher));
        if since.is_none() && !is_of_another_scope {
            self.cannot_resume(id);
        }
        self.waiting.push(Member { id, matcher, since: since.unwrap_or_default() });
    }

    fn cannot_resume(&mut self, id: u32) {
        metrics::resync();
        let effects = self.machine.resync(&[id]);
        self.answer(effects);
    }

    fn refuse(&mut self, id: u32, code: RefuseCode, message: String) {
        let effects = self.machine.refused(id, code, message);
        self.answer(effects);
    }

    /// Where the subscription goes on; none if it has to start again.
    async fn since(&mut self, subscribe: pb::Subscribe) -> Result<Option<Since>, pb::Close> {
        let Some(resume) = subscribe.resume else { return Ok(Some(Since::default())) };
        let since = Since::read(&resume, &subscribe.reached)
            .map_err(|message| pb::Close::new(CloseCode::CloseProtocolError, message))?;
        let Some(lsn) = since.newest() else { return Ok(Some(since)) };
        if lsn > self.app.hub.position() {
            // Another gateway may be ahead of this one; but nobody is ahead of the log.
            let unavailable = || pb::Close::new(CloseCode::CloseUnavailable, "the log cannot be read now");
            let head = self.gateway.context.log.head(&self.app.id).await.map_err(|_| unavailable())?;
            if lsn > head {
                return Ok(None);
            }
            let reached = tokio::time::timeout(TAIL_TIMEOUT, self.app.hub.reached(lsn)).await;
            reached.map_err(|_| unavailable())?;
        }
        Ok(Some(since))
    }

    pub(super) fn unsubscribe(&mut self, id: u32) {
        self.app.hub.detach(self.number(), id);
        self.subscriptions.remove(&id);
        self.places.remove(&id);
        self.fenced.remove(&id);
        self.device.unsubscribed(id);
        self.waiting.retain(|member| member.id != id);
        if self.catching_up.as_mut().is_some_and(|catching_up| catching_up.remove(id)) {
            self.catching_up = None;
            self.asked_at = None;
            self.machine.withdraw_ask();
            self.outbox.drop_page();
        }
    }

    /// Whether the catch-up may look for the next page.
    pub(super) fn may_scan(&self) -> bool {
        self.catching_up.as_ref().is_some_and(|catching_up| !catching_up.is_asking())
            && !self.outbox.has_page()
            && self.machine.may_send_documents()
            // Pages are made ahead while there is room for them.
            && !self.gateway.budget.is_exceeded()
    }

    /// After every event: what the hub has said, and what may begin.
    pub(super) fn look_at_queue(&mut self) {
        if self.queue.has_failed() {
            return self.end(CloseCode::CloseUnavailable, "the store has stopped");
        }
        if let Some(lagged_at) = self.lagged_at.take() {
            self.put_back(lagged_at);
        }
        if self.catching_up.is_none() && self.machine.is_open() {
            self.start();
        }
        if self.catching_up.is_none() {
            self.turn.leave();
        }
    }

    /// Puts the live subscriptions back to catching up. The peer hears it at once, in a page without documents for each
    /// collection: `through` is not theirs from here on, also while some of them are live again and others still wait.
    fn put_back(&mut self, lagged_at: Lsn) {
        // The hub need not know yet: another app's may have emptied the queue.
        self.app.hub.detach_all(self.number());
        self.queue.begin_again();
        // Nothing is queued for those that are catching up either, though they were attached: once more, from there.
        if let Some(catching_up) = &mut self.catching_up {
            catching_up.detached();
        }
        let mut of_collection: BTreeMap<CollectionName, Vec<u32>> = BTreeMap::new();
        for (id, since) in self.machine.put_back() {
            if let Some(matcher) = self.subscriptions.get(&id) {
                let since = Since::at(since.max(lagged_at));
                of_collection.entry(matcher.collection().clone()).or_default().push(id);
                self.waiting.push(Member { id, matcher: Arc::clone(matcher), since });
            }
        }
        for (collection, ids) in of_collection {
            let page = PageWriter::new(collection.as_str(), lagged_at, &ids, 0);
            self.outbox.documents_next(page.finish(Progress::None, self.machine.compression()));
        }
    }

    /// Begins to catch up with the first that waits, and all that go the same way.
    fn start(&mut self) {
        if self.awaits_hub().is_some() {
            return;
        }
        let Some(first) = self.waiting.first() else { return };
        let (collection, since) = (first.matcher.collection().clone(), first.since.clone());
        let same = |member: &Member| *member.matcher.collection() == collection && member.since == since;
        let members: Vec<Member> = self.waiting.iter().filter(|member| same(member)).cloned().collect();
        let long = since.is_first_sync();
        let snapshot = if long {
            // Nothing is queued meanwhile; what changes until the end is a second, short catch-up.
            self.app.hub.snapshot()
        } else {
            let listeners: Vec<_> = members.iter().map(|member| (member.id, Arc::clone(&member.matcher))).collect();
            match self.app.hub.attach(&self.queue, &self.rules, &listeners) {
                Ok(snapshot) => snapshot,
                // What is queued must go first; then this is tried again.
                Err(crate::hub::NotYet) => return,
            }
        };
        self.waiting.retain(|member| !same(member));
        self.catching_up = CatchUp::new(members, snapshot, !long, &self.app.store).map(Box::new);
    }

    /// A subscription begins with a snapshot that has what the peer was told is durable: a peer takes what a first sync
    /// does not name for gone. This is where the hub has to come first.
    pub(super) fn awaits_hub(&self) -> Option<Lsn> {
        let told = self.machine.accepted_lsn();
        let waits = self.catching_up.is_none() && !self.waiting.is_empty() && self.app.hub.position() < told;
        waits.then_some(told)
    }

    /// What the catch-up came up with.
    pub(super) fn step(&mut self, step: Result<Step, TablesError>) {
        match step {
            Ok(Step::Page(page, documents)) => {
                metrics::caught_up_documents(documents);
                self.outbox.page(page, &self.gateway.budget);
            }
            Ok(Step::Done) => self.caught_up(),
            Ok(Step::Resync) => self.start_again(),
            Ok(Step::Ask(at_most)) => self.ask_held(at_most),
            Err(error) => self.unavailable(&error),
        }
    }

    /// Asks the peer what it holds of the collection that catches up.
    fn ask_held(&mut self, at_most: usize) {
        let Some(catching_up) = &mut self.catching_up else { return };
        let salt = self.gateway.context.ids.next_u64();
        let effects = self.machine.ask_held(catching_up.collection().as_str(), salt, at_most);
        if effects.is_empty() {
            return catching_up.silent();
        }
        metrics::asked_held();
        catching_up.asked(salt, at_most);
        self.asked_at = Some(Instant::now());
        self.answer(effects);
    }

    /// The peer has said what it holds.
    pub(super) fn held(&mut self, held: &pb::Held) {
        self.asked_at = None;
        if let Some(catching_up) = &mut self.catching_up {
            catching_up.answered(held);
        }
    }

    /// A peer that does not answer is told what may be told without.
    pub(super) fn give_up_asking(&mut self) {
        if self.asked_at.is_some_and(|asked| asked.elapsed() >= HELD_TIMEOUT)
            && let Some(catching_up) = &mut self.catching_up
        {
            self.asked_at = None;
            self.machine.withdraw_ask();
            catching_up.silent();
        }
    }

    fn caught_up(&mut self) {
        let Some(done) = self.catching_up.take() else { return };
        if done.is_attached() {
            let ids: Vec<u32> = done.members().iter().map(|member| member.id).collect();
            let effects = self.machine.caught_up(&ids, done.lsn());
            self.answer(effects);
            return;
        }
        let since = Since::at(done.lsn());
        // Before others: what has changed meanwhile grows.
        let members = done.members().iter().map(|member| Member { since: since.clone(), ..member.clone() });
        self.waiting.splice(0..0, members);
    }

    /// First syncs for those that are catching up: a cursor is not enough.
    fn start_again(&mut self) {
        let Some(broken) = self.catching_up.take() else { return };
        self.outbox.drop_page();
        let ids: Vec<u32> = broken.members().iter().map(|member| member.id).collect();
        for id in ids {
            self.resync(id);
        }
    }

    /// Lets a subscription start from nothing.
    pub(super) fn resync(&mut self, id: u32) {
        let Some(matcher) = self.subscriptions.get(&id).cloned() else { return };
        metrics::resync();
        self.app.hub.detach(self.number(), id);
        self.fenced.insert(id, self.app.hub.snapshot().lsn());
        let effects = self.machine.resync(&[id]);
        self.answer(effects);
        let effects = self.machine.subscribed(id, matcher.scope());
        self.answer(effects);
        self.waiting.push(Member { id, matcher, since: Since::default() });
    }

    /// The permissions have changed: what may be read decides anew, from a snapshot.
    pub(super) fn rules_changed(&mut self) {
        let ids: Vec<u32> = self.subscriptions.keys().copied().collect();
        for id in ids {
            let Some(matcher) = self.subscriptions.get(&id).cloned() else { continue };
            let read = self.rules.read(matcher.collection());
            if read.text() == matcher.rule().text() {
                continue;
            }
            if matches!(read, Allowed::Nothing) {
                self.unsubscribe(id);
                let message = format!("the permissions do not allow to read '{}' any more", matcher.collection());
                self.refuse(id, RefuseCode::RefuseForbidden, message);
                continue;
            }
            // Out of whatever it is doing now, with its place.
            let place = self.places.remove(&id);
            self.unsubscribe(id);
            self.places.extend(place.map(|place| (id, place)));
            let matcher = self.app.hub.shared(matcher.with_rule(read));
            self.device.subscribed(id, &matcher);
            self.subscriptions.insert(id, matcher);
            self.resync(id);
        }
    }
}

/// The arguments of a query: a JSON object, or nothing.
fn arguments(subscribe: &pb::Subscribe) -> Result<Object, String> {
    if subscribe.query.len() + subscribe.arguments_json.len() > MAX_STATEMENT_BYTES {
        return Err(format!("the query and its arguments have more than {MAX_STATEMENT_BYTES} bytes"));
    }
    if subscribe.arguments_json.is_empty() {
        return Ok(Object::default());
    }
    let json = serde_json::from_str(&subscribe.arguments_json)
        .map_err(|error| format!("the arguments are not JSON: {error}"))?;
    let value = Value::from_json(json).map_err(|error| error.to_string())?;
    let object = if let Value::Object(object) = value { Some(object) } else { None };
    object.ok_or_else(|| "the arguments must be a JSON object".to_owned())
}
