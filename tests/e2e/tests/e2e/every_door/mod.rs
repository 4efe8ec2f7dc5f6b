//! Random rules, claims, documents and histories: no door of the real server ever shows a document that the rules forbid by a
//! naive model of them, and none hides one that they allow. Rules and claims change in the middle, documents move into what may
//! be read and out of it, are deleted and come back, and are partly in segments and partly in memory.
//!
//! `BIGPEER_DOORS_SEEDS=17` runs one seed, `100..400` others. What fails names its seed.

mod caller;
mod changes;
mod flight;
mod history;
mod http;
mod large;
mod look;
mod postgres;
mod rules;
mod sql;
mod sync;
mod world;

use std::sync::Arc;

use bigpeer_types::Lsn;
use futures::StreamExt;
use serde_json::json;

use caller::Caller;
use history::History;
use look::Look;
use rules::{Chance, Condition, condition, drawn};
use sync::Peer;
use world::{App, World};

/// How many seeds run when nothing else is asked for.
const SEEDS: u64 = 8;
/// How many of them at a time.
const AT_ONCE: usize = 3;
/// How often in a seed everybody goes to all doors.
const ROUNDS: usize = 5;

/// Seeds that found something once: they always run.
const FOUND: [u64; 0] = [];

fn seeds(default: u64) -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("BIGPEER_DOORS_SEEDS is a number, or FROM..TO");
    match std::env::var("BIGPEER_DOORS_SEEDS").ok().as_deref() {
        None => (0..default).chain(FOUND).collect(),
        Some(text) => match text.split_once("..") {
            Some((from, to)) => (number(from)..number(to)).collect(),
            None => vec![number(text)],
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_door_shows_what_the_rules_forbid_and_none_hides_what_they_allow() {
    let world = Arc::new(World::start().await);
    let seeds = seeds(SEEDS);
    let many = seeds.len() as u64 >= SEEDS;
    let runs = seeds.into_iter().map(|seed| {
        let world = Arc::clone(&world);
        async move { (seed, tokio::spawn(async move { Run::start(&world, seed).await.finish().await }).await) }
    });
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    let (mut failed, mut judged) = (Vec::new(), [0, 0]);
    while let Some((seed, ended)) = runs.next().await {
        match ended {
            Ok([seen, hidden]) => judged = [judged[0] + seen, judged[1] + hidden],
            Err(error) => {
                eprintln!("BIGPEER_DOORS_SEEDS={seed} runs it again: {error}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "these seeds failed, see above: {failed:?}");
    let both = judged.iter().all(|count| *count > 100);
    assert!(both || !many, "documents that were to be seen, and that were not: {judged:?}");
}

/// One seed: an app, its history, who comes, and a peer of one of them.
struct Run<'w> {
    world: &'w World,
    app: App,
    seed: u64,
    chance: Chance,
    history: History,
    callers: [Caller; 2],
    peer: Peer,
    /// Whose peer it is.
    syncs: usize,
}

impl<'w> Run<'w> {
    async fn start(world: &'w World, seed: u64) -> Self {
        let chance = Chance::new(seed);
        let app = world.app(&format!("seed-{seed}")).await;
        let history = History::begin(world, &app, &chance).await;
        let callers =
            [Caller::key(world, &app, &chance, &history).await, Caller::user(world, &app, &chance, &history).await];
        let splits = |one: &Condition| history.is_split(|version| one.holds(version, &json!({})));
        let subscribed = chance.one_in(2).then(|| drawn(&chance, || condition(&chance, 1, false), splits));
        let peer = Peer::new(&format!("seed {seed}"), subscribed);
        let syncs = chance.below(2);
        Self { world, app, seed, chance, history, callers, peer, syncs }
    }

    /// Answers how many documents were to be seen at all looks, and how many were not.
    async fn finish(mut self) -> [usize; 2] {
        let mut judged = [0, 0];
        for round in 0..ROUNDS {
            self.write().await;
            if self.peer.is_connected() && self.chance.one_in(3) {
                self.peer.disconnect();
                self.write().await;
            }
            if !self.peer.is_connected() {
                // Rules change while the peer is away, too.
                if self.chance.one_in(2) {
                    self.change_rules().await;
                }
                self.peer.connect(self.world, &self.app, &self.callers[self.syncs], &self.chance).await;
            }
            self.settle().await;
            if self.chance.one_in(2) {
                self.write().await;
                self.change_rules().await;
                // The session need not know of the rules yet.
                self.write().await;
                self.settle().await;
            }
            let all = self.history.documents.len();
            for caller in &self.callers {
                let seen = caller.view.of(&self.history.documents).len();
                judged = [judged[0] + seen, judged[1] + all - seen];
            }
            self.look(round).await;
        }
        let who = self.chance.below(2);
        self.look_of(who, "at the end").export().await;
        judged
    }

    /// Some transactions, with everything put into segments here and there.
    async fn write(&mut self) {
        for _ in 0..1 + self.chance.below(4) {
            self.history.step(self.world, &self.app, &self.chance).await;
            if self.chance.one_in(5) {
                self.world.compact(&self.app).await;
            }
        }
    }

    /// The rules or the claims of one of the callers change.
    async fn change_rules(&mut self) {
        let who = self.chance.below(2);
        let (world, app, chance) = (self.world, &self.app, &self.chance);
        let caller = &mut self.callers[who];
        let syncs = who == self.syncs;
        if caller.is_user && chance.one_in(2) {
            let view = caller.next_claims(chance, &self.history);
            if syncs {
                self.peer.expect_rules(&view);
            }
            caller.put_claims(world, app, view).await;
            if syncs {
                self.peer.renew(&caller.access_token).await;
            }
            return;
        }
        let (view, which) = caller.next_rules(chance, &self.history);
        if syncs {
            self.peer.expect_rules(&view);
        }
        caller.put_rules(world, app, (view, which)).await;
    }

    /// Until the peer has heard of everything.
    async fn settle(&mut self) {
        let number = self.history.next();
        let beat = [("UPDATE beat SET n = :n WHERE _id = 1".to_owned(), json!({"n": number}))];
        let target = Lsn::new(self.world.write(&self.app, &beat).await, 0);
        self.peer.settle(&self.history, target).await;
        self.peer.holds_what_it_may(&self.history);
    }

    fn look_of(&self, who: usize, when: impl std::fmt::Display) -> Look<'_> {
        let case = format!("seed {}, {when}", self.seed);
        let (world, app, history, chance) = (self.world, &self.app, &self.history, &self.chance);
        Look { world, app, history, caller: &self.callers[who], chance, case }
    }

    /// Both callers go to every door.
    async fn look(&mut self, round: usize) {
        for who in 0..2 {
            let look = self.look_of(who, format!("round {round}"));
            http::the_model_is_true(&look, &self.history).await;
            look.data_api().await;
            look.sql().await;
            look.changes().await;
            if look.view().is_nothing() || !self.chance.one_in(3) {
                continue;
            }
            let number = self.history.next();
            let (transaction, changes) = self.look_of(who, format!("round {round}")).touch(number).await;
            if !changes.is_empty() {
                self.history.record(transaction, changes);
            }
        }
    }
}
