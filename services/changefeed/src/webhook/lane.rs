//! `Lane`: one request after the other, each until it is taken or given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

use super::WebhookSpec;
use super::breaker::Breaker;
use super::post::{Answer, Poster};
use crate::event::Event;
use crate::registry::{DeadLetter, Delivery, MAX_DEAD_LETTERS};
use crate::sink::SinkContext;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// How long to wait when there is no room for a dead letter, or it cannot be kept.
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// Events of one request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) events: Vec<Event>,
    /// Counted down when it is done.
    pub(super) left: Arc<AtomicUsize>,
}

pub(super) struct Lane {
    pub(super) poster: Poster,
    pub(super) spec: WebhookSpec,
    pub(super) context: SinkContext,
    pub(super) breaker: Arc<Breaker>,
    pub(super) progress: Arc<Notify>,
}

impl Lane {
    pub(super) async fn run(self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.recv().await {
            self.deliver(&job.events).await;
            if job.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.progress.notify_one();
            }
        }
    }

    async fn deliver(&self, events: &[Event]) {
        let (id, body) = (request_id(events), body(events, self.spec.batch > 1));
        let content_type = self.context.content_type(self.spec.batch > 1);
        let first = self.context.clock.monotonic();
        let (mut attempt, mut counted) = (0_u32, 0_u32);
        let mut seen_alive = self.breaker.times_alive();
        loop {
            self.breaker.enter().await;
            attempt = attempt.saturating_add(1);
            let started = self.context.clock.monotonic();
            let answer = self.poster.post(&id, content_type, attempt, body.clone()).await;
            self.note(&id, events.len(), attempt, started, &answer);
            let (reason, wait) = match answer {
                Answer::Taken(_) => {
                    self.breaker.alive();
                    return;
                }
                Answer::Refused(status) => {
                    self.breaker.alive();
                    counted += 1;
                    (format!("it answered {status}"), None)
                }
                Answer::Failed { retry_after, reason, .. } => {
                    // That it takes others in between says that it is this one that it fails on.
                    counted += u32::from(self.breaker.times_alive() > seen_alive);
                    self.breaker.failed();
                    (reason, retry_after)
                }
            };
            seen_alive = self.breaker.times_alive();
            let tried = self.context.clock.monotonic().saturating_sub(first);
            let given_up = tried >= Duration::from_secs(self.spec.give_up_after_secs);
            if (counted >= self.spec.max_attempts || given_up)
                && self.bury((&id, events), (&reason, attempt), &body).await
            {
                return;
            }
            tokio::time::sleep(wait.unwrap_or_else(|| self.pause(attempt))).await;
        }
    }

    /// Longer each time, and by chance, so that many do not come again together.
    fn pause(&self, attempt: u32) -> Duration {
        let most = (FIRST_PAUSE * 2_u32.saturating_pow(attempt.saturating_sub(1).min(16))).min(MAX_PAUSE);
        let chance = self.context.ids.next_u64() % 1000;
        let half = most / 2;
        half + half * u32::try_from(chance).unwrap_or(0) / 1000
    }

    fn note(&self, id: &str, events: usize, attempt: u32, started: Duration, answer: &Answer) {
        let now = self.context.clock.monotonic();
        let (status, error) = match answer {
            Answer::Taken(status) => (Some(*status), None),
            Answer::Refused(status) => (Some(*status), Some(format!("it answered {status}"))),
            Answer::Failed { status, reason, .. } => (*status, Some(reason.clone())),
        };
        let delivery = Delivery {
            id: id.to_owned(),
            events,
            attempt,
            at_ms: self.context.clock.now_ms(),
            latency_ms: u64::try_from(now.saturating_sub(started).as_millis()).unwrap_or(u64::MAX),
            status,
            error,
        };
        self.context.status.delivery(delivery);
    }

    /// Keeps what is given up; false when that cannot be done, and it must not be.
    async fn bury(&self, (id, events): (&str, &[Event]), (reason, attempts): (&str, u32), body: &Bytes) -> bool {
        let ids = events.iter().map(|event| event.id.as_str());
        let letter = DeadLetter::new(id, ids, (reason, attempts), self.context.clock.now_ms());
        let why = match self.context.registry.bury((&self.context.app, &self.context.name), letter, body).await {
            Ok(true) => {
                self.context.status.dead_letter();
                tracing::warn!(app = %self.context.app, feed = %self.context.name, reason, "an event was given up");
                return true;
            }
            Ok(false) => format!("there are {MAX_DEAD_LETTERS} dead letters; deliver or discard them"),
            Err(error) => error.to_string(),
        };
        self.context.status.failed(&why);
        tokio::time::sleep(FULL_PAUSE).await;
        false
    }
}

/// What a receiver tells a repetition by.
fn request_id(events: &[Event]) -> String {
    match events {
        [event] => event.id.clone(),
        [first, .., last] => format!("{}..{}", first.id, last.id),
        [] => String::new(),
    }
}

fn body(events: &[Event], as_array: bool) -> Bytes {
    match events {
        [event] if !as_array => event.json.clone(),
        events => {
            let mut out = BytesMut::with_capacity(events.iter().map(|event| event.json.len() + 1).sum::<usize>() + 2);
            out.put_u8(b'[');
            for (number, event) in events.iter().enumerate() {
                if number > 0 {
                    out.put_u8(b',');
                }
                out.extend_from_slice(&event.json);
            }
            out.put_u8(b']');
            out.freeze()
        }
    }
}
