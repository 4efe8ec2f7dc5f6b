//! Feeds to Kafka: exactly once, on brokers that keep Kafka's promises and fail in every way that these allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bigpeer_changefeed::{
    Buried, ChangefeedContext, ChangefeedSettings, Event, Kafka, Opening, Topic, TopicError, run_feeds,
};
use bigpeer_types::{IdGenerator, SeededIds};
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use crate::receiver::{check_order, until};
use crate::served::{Served, name, serve};

/// Brokers of one topic.
#[derive(Debug)]
struct Brokers {
    state: Mutex<State>,
    chance: SeededIds,
    /// One in so many calls fails; 0: none.
    faults: u64,
    /// Commits wait for a permit, when it is set.
    gate: Option<Semaphore>,
    /// Whether commits happen and their answers are lost.
    deaf: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By transactional id: its epoch, and the number that was committed last.
    producers: BTreeMap<String, (u64, Option<u64>)>,
    /// What was committed.
    topic: Vec<Json>,
    sends: u64,
}

impl Brokers {
    fn new(seed: u64, faults: u64, gate: Option<Semaphore>) -> Arc<Self> {
        let deaf = std::sync::atomic::AtomicBool::new(false);
        Arc::new(Self { state: Mutex::default(), chance: SeededIds::new(seed), faults, gate, deaf })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Which of so many faults happens now, if one does.
    fn fault(&self, kinds: u64) -> Option<u64> {
        (self.faults > 0 && self.chance.next_u64().is_multiple_of(self.faults)).then(|| self.chance.next_u64() % kinds)
    }

    fn commit(&self, id: &str, epoch: u64, open: Option<Vec<Json>>, number: u64) -> Result<(), TopicError> {
        let mut state = self.state();
        let producer = state.producers.get_mut(id).unwrap();
        if producer.0 != epoch {
            return Err(TopicError::Broken("fenced".to_owned()));
        }
        // Of one that was committed the answer was lost.
        if let Some(events) = open {
            producer.1 = Some(number);
            state.topic.extend(events);
        }
        Ok(())
    }

    fn topic(&self) -> Vec<Json> {
        self.state().topic.clone()
    }
}

#[derive(Debug)]
struct Client(Arc<Brokers>);

#[async_trait]
impl Kafka for Client {
    async fn open(&self, opening: Opening) -> Result<(Box<dyn Topic>, Option<u64>), String> {
        if self.0.fault(1).is_some() {
            return Err("away".to_owned());
        }
        let mut state = self.0.state();
        let producer = state.producers.entry(opening.producer.clone()).or_default();
        producer.0 += 1;
        let (epoch, committed) = *producer;
        drop(state);
        Ok((Box::new(Producer { brokers: Arc::clone(&self.0), id: opening.producer, epoch, open: None }), committed))
    }
}

#[derive(Debug)]
struct Producer {
    brokers: Arc<Brokers>,
    id: String,
    epoch: u64,
    open: Option<Vec<Json>>,
}

impl Producer {
    fn commit_now(&mut self, number: u64) -> Result<(), TopicError> {
        self.brokers.commit(&self.id, self.epoch, self.open.take(), number)
    }
}

#[async_trait]
impl Topic for Producer {
    async fn send(&mut self, events: Arc<[Event]>) -> Result<(), TopicError> {
        assert!(self.open.is_none(), "a transaction is under way");
        self.brokers.state().sends += 1;
        tokio::task::yield_now().await;
        match self.brokers.fault(2) {
            Some(0) => return Err(TopicError::Aborted("by chance".to_owned())),
            Some(_) => return Err(TopicError::Broken("by chance".to_owned())),
            None => {}
        }
        self.open = Some(events.iter().map(|event| serde_json::from_slice(&event.json).unwrap()).collect());
        Ok(())
    }

    async fn commit(&mut self, number: u64) -> Result<Vec<Buried>, TopicError> {
        tokio::task::yield_now().await;
        if self.brokers.gate.is_some() {
            // Goes on when nobody waits for it.
            let (brokers, id, epoch) = (Arc::clone(&self.brokers), self.id.clone(), self.epoch);
            let open = self.open.take();
            let later = tokio::spawn(async move {
                brokers.gate.as_ref().unwrap().acquire().await.unwrap().forget();
                brokers.commit(&id, epoch, open, number)
            });
            return later.await.unwrap().map(|()| Vec::new());
        }
        match self.brokers.fault(5) {
            Some(0) => return Err(TopicError::Pending("not done".to_owned())),
            Some(1) => {
                self.commit_now(number)?;
                return Err(TopicError::Pending("done".to_owned()));
            }
            Some(2) => {
                self.open = None;
                return Err(TopicError::Aborted("by chance".to_owned()));
            }
            Some(3) => return Err(TopicError::Broken("not done".to_owned())),
            Some(_) => {
                self.commit_now(number)?;
                return Err(TopicError::Broken("done".to_owned()));
            }
            None => {}
        }
        self.commit_now(number)?;
        if self.brokers.deaf.load(std::sync::atomic::Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Vec::new())
    }
}

fn spec() -> Json {
    json!({"owner": "all", "sink": {"type": "kafka", "brokers": "a:9092,b:9092", "topic": "t"}})
}

fn settings() -> ChangefeedSettings {
    ChangefeedSettings { lease: std::time::Duration::from_millis(300), ..ChangefeedSettings::default() }
}

async fn made(served: &Served) {
    let context = served.context.clone();
    // Kafka is known to a process, not to the records.
    let registry = context.registry();
    let spec = serde_json::from_value(spec()).unwrap();
    let start = "0.0".parse().unwrap();
    registry.put(&served.app, &name("f"), spec, &start).await.unwrap();
}

fn process(served: &Served, brokers: &Arc<Brokers>) -> ChangefeedContext {
    served.another().with_kafka(Arc::new(Client(Arc::clone(brokers))))
}

async fn write(served: &mut Served, from: i64, to: i64) {
    for n in from..to {
        served.put("cars", n % 7, json!({"n": n})).await;
    }
}

async fn has(brokers: &Arc<Brokers>, events: usize) {
    until("events are committed", async || (brokers.topic().len() >= events).then_some(())).await;
}

/// Every event once, in order.
fn check(topic: &[Json], events: usize) {
    let ids: BTreeSet<&str> = topic.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), topic.len()), (events, events), "each event is there, and once");
    check_order(topic);
}

#[tokio::test]
async fn events_are_committed_exactly_once_whatever_fails_and_whoever_takes_over() {
    for seed in 0..3 {
        let brokers = Brokers::new(seed, 6, None);
        let mut served = serve(settings()).await;
        made(&served).await;
        let mut running = tokio::spawn(run_feeds(process(&served, &brokers)));
        for round in 0..4 {
            write(&mut served, round * 30, round * 30 + 15).await;
            // As if the process had been killed: nothing is released.
            running.abort();
            running = tokio::spawn(run_feeds(process(&served, &brokers)));
            write(&mut served, round * 30 + 15, round * 30 + 30).await;
            has(&brokers, (round as usize + 1) * 30).await;
        }
        running.abort();
        check(&brokers.topic(), 120);
    }
}

#[tokio::test]
async fn who_was_overtaken_commits_nothing() {
    let brokers = Brokers::new(1, 0, Some(Semaphore::new(0)));
    let mut served = serve(settings()).await;
    made(&served).await;
    let first = tokio::spawn(run_feeds(process(&served, &brokers)));
    write(&mut served, 0, 10).await;
    until("the first has sent", async || (brokers.state().sends == 1).then_some(())).await;
    // Another takes the feed over while the first believes in it: its lease is renewed no more.
    let lease = format!("lease/feeds/{}/f", served.app);
    served.forget(&lease).await;
    let second = tokio::spawn(run_feeds(process(&served, &brokers)));
    until("the second has sent", async || (brokers.state().sends == 2).then_some(())).await;
    write(&mut served, 10, 20).await;
    brokers.gate.as_ref().unwrap().add_permits(1000);
    has(&brokers, 20).await;
    check(&brokers.topic(), 20);
    first.abort();
    second.abort();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_repeated() {
    let brokers = Brokers::new(1, 0, None);
    let mut served = serve(settings()).await;
    made(&served).await;
    brokers.deaf.store(true, std::sync::atomic::Ordering::SeqCst);
    let first = tokio::spawn(run_feeds(process(&served, &brokers)));
    write(&mut served, 0, 10).await;
    until("something is committed", async || (!brokers.topic().is_empty()).then_some(())).await;
    first.abort();
    brokers.deaf.store(false, std::sync::atomic::Ordering::SeqCst);
    let second = tokio::spawn(run_feeds(process(&served, &brokers)));
    write(&mut served, 10, 20).await;
    has(&brokers, 20).await;
    check(&brokers.topic(), 20);
    second.abort();
}

#[tokio::test]
async fn a_feed_that_is_paused_or_rewound_says_so_exactly() {
    let brokers = Brokers::new(1, 0, None);
    let mut served = serve(settings()).await;
    made(&served).await;
    let running = tokio::spawn(run_feeds(process(&served, &brokers)));
    write(&mut served, 0, 10).await;
    has(&brokers, 10).await;
    let (_, paused) = served.admin("POST", "/f/pause", json!(null)).await;
    assert_eq!(paused["state"], "paused");
    write(&mut served, 10, 20).await;
    served.admin("POST", "/f/resume", json!(null)).await;
    has(&brokers, 20).await;
    check(&brokers.topic(), 20);
    let cursor = brokers.topic()[4]["cursor"].clone();
    served.admin("POST", "/f/rewind", json!({"cursor": cursor})).await;
    has(&brokers, 35).await;
    assert_eq!(brokers.topic()[20..], brokers.topic()[5..20]);
    running.abort();
}

#[tokio::test]
async fn specs_that_cannot_work_are_refused_and_secrets_are_kept() {
    let mut served = serve(settings()).await;
    let (status, answer) = served.admin("PUT", "/f", spec()).await;
    assert!(status == 400 && answer.to_string().contains("no Kafka"), "{status} {answer}");
    served.with(process(&served, &Brokers::new(0, 0, None)));
    let with = |extra: Json| {
        let mut spec = spec();
        spec["sink"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    let sasl = |mechanism: &str, password: &str| json!({"mechanism": mechanism, "username": "u", "password": password});
    for (extra, word) in [
        (json!({"brokers": ""}), "brokers"),
        (json!({"brokers": "a"}), "host:port"),
        (json!({"brokers": "a:1,,b:2"}), "host:port"),
        (json!({"topic": "with space"}), "not a topic"),
        (json!({"topic": ".."}), "not a topic"),
        (json!({"deadLetterTopic": "t"}), "another topic"),
        (json!({"maxMessageBytes": 10}), "maxMessageBytes"),
        (json!({"create": {"partitions": 0}}), "partitions"),
        (json!({"compression": "zstd"}), "zstd"),
        (json!({"tls": {"certificate": "x"}}), "belong together"),
        (json!({"sasl": sasl("PLAIN", "p")}), "tls"),
        (json!({"sasl": sasl("SCRAM-SHA-256", "")}), "empty"),
        (json!({"sasl": sasl("SCRAM-SHA-256", "(hidden)")}), "none to keep"),
        (json!({"sasl": sasl("MD5", "p")}), "MD5"),
    ] {
        let (status, answer) = served.admin("PUT", "/f", with(extra.clone())).await;
        assert!(status == 400 && answer.to_string().contains(word), "{extra}: {status} {answer}");
    }
    let tls = json!({"certificate": "c", "key": "my-key"});
    let secrets = json!({"tls": tls, "sasl": sasl("PLAIN", "my-password")});
    let (status, made) = served.admin("PUT", "/f", with(secrets)).await;
    assert!(status == 201 && !made.to_string().contains("my-"), "{status} {made}");
    let (status, again) = served.admin("PUT", "/f", made["spec"].clone()).await;
    assert_eq!((status, &again["createdAt"]), (200, &made["createdAt"]));
    // Without the key the password stays in its place.
    let mut other = made["spec"].clone();
    other["sink"]["tls"] = json!({});
    let (status, answer) = served.admin("PUT", "/f", other).await;
    assert_eq!(status, 200, "{answer}");
    let entry = served.context.registry().entry(&served.app, &name("f")).await.unwrap().unwrap();
    let bigpeer_changefeed::SinkSpec::Kafka(kept) = entry.record.spec.sink else { panic!("not Kafka") };
    assert_eq!(kept.sasl.unwrap().password.expose(), "my-password");
    assert!(kept.tls.unwrap().key.is_none());
}
