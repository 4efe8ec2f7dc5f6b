//! One session: a task that carries out what `GatewaySession` says, and moves documents from the hub and from snapshots to
//! the socket.
//!
//! # Cancellation
//! The task is the only owner of its state. Every branch of its loop waits for something that loses nothing when another
//! branch is faster.

mod admit;
mod catch_up;
mod held;
mod outbox;
mod pace;
mod push;
mod subscribe;
mod turn;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bigpeer_chassis::Shutdown;
use bigpeer_log::{AppendError, AppendOutcome};
use bigpeer_protocol::pb::{self, CloseCode};
use bigpeer_protocol::{GatewayEffect, GatewaySession, decode_peer_frame, encode_frame};
use bigpeer_tables::TablesError;
use bigpeer_types::{AppId, Lsn};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at};

use crate::apps::App;
use crate::devices::Device;
use crate::hub::{Matcher, SessionQueue};
use crate::metrics;
use crate::rules::Rules;
use crate::socket::Gateway;
use catch_up::{CatchUp, Member};
use outbox::Outbox;
use pace::Pace;
use push::Pushes;
use turn::Turn;

/// How long the last message may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// Answers that may wait for the socket before nothing more is read from it.
const MAX_WAITING_ANSWERS: usize = 256;

/// A session whose Hello was accepted.
struct Session {
    gateway: Arc<Gateway>,
    app: Arc<App>,
    number: u64,
    name: String,
    machine: GatewaySession,
    rules: Arc<Rules>,
    token: String,
    expires_at_ms: u64,
    queue: Arc<SessionQueue>,
    /// What others are shown of the session.
    device: Arc<Device>,
    outbox: Outbox,
    pushes: Pushes,
    subscriptions: BTreeMap<u32, Arc<Matcher>>,
    /// Subscriptions that began anew: what was queued for them up to here was matched under permissions of before.
    fenced: BTreeMap<u32, Lsn>,
    pace: Pace,
    waiting: Vec<Member>,
    catching_up: Option<CatchUp>,
    /// Only with it the catch-up goes on.
    turn: Turn,
    /// When the peer was asked what it holds, while it has not answered.
    asked_at: Option<Instant>,
    /// The queue was full; everything up to here was taken out of it.
    lagged_at: Option<Lsn>,
    /// Why the session ends; set once.
    ended: Option<pb::Close>,
}

/// Runs a session from the first frame to the last.
pub(crate) async fn run(gateway: Arc<Gateway>, app: AppId, number: u64, socket: WebSocket) {
    metrics::session_opened();
    let (mut sink, mut stream) = socket.split();
    let mut machine = GatewaySession::new(gateway.context.settings.limits());
    let deadline = Instant::now() + gateway.context.settings.handshake_timeout;
    // What is large and seldom is boxed: a session is idle most of its life, and there are many.
    let handshake = Box::pin(admit::handshake(&gateway, &app, number, &mut machine, &mut stream));
    let greeted = timeout_at(deadline, handshake).await;
    let close = match greeted {
        Ok(Ok(admitted)) => {
            let entered = admitted.app.enter(machine.site(), number);
            let mut session = Session::new(gateway, admitted, number, machine);
            let close = session.serve(&mut sink, &mut stream, &entered).await;
            session.leave();
            close
        }
        Ok(Err(close)) => close,
        Err(_) => {
            let close = pb::Close::new(CloseCode::CloseTimeout, "no Hello came, or it could not be answered in time");
            // Not all at once again.
            pb::Close { retry_after_ms: 1000 + spread(number), ..close }
        }
    };
    metrics::session_ended(close.code());
    tracing::debug!(session = number, code = close.code().as_str_name(), message = close.message, "session ended");
    // A peer that does not take its Close has gone.
    let _ = timeout(FAREWELL, Box::pin(farewell(&mut sink, &mut stream, close))).await;
}

/// Says why, and reads what is still under way until the peer has closed, too: a connection that is dropped with unread
/// frames is reset, and the reset can overtake the Close.
async fn farewell(
    sink: &mut SplitSink<WebSocket, Message>,
    stream: &mut SplitStream<WebSocket>,
    close: pb::Close,
) -> Result<(), axum::Error> {
    let reason = close.code().as_str_name();
    let frame = encode_frame(&pb::GatewayMessage::from(close), pb::Compression::None);
    sink.feed(Message::Binary(frame.message)).await?;
    sink.send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: reason.into() }))).await?;
    while let Some(Ok(_unread)) = stream.next().await {}
    sink.close().await
}

/// What the loop waits for, one at a time.
enum Event {
    Frame(Option<Result<Message, axum::Error>>),
    Outcomes(Option<Result<Vec<AppendOutcome>, AppendError>>),
    Writable(Result<(), axum::Error>),
    Flushed(Result<(), axum::Error>),
    Page(Result<catch_up::Step, TablesError>),
    News,
    Catalogue,
    Tick,
    TurnEnds,
    GoOn,
    ShuttingDown,
    Replaced,
    DrainedTooLong,
}

impl Session {
    fn new(gateway: Arc<Gateway>, admitted: admit::Admitted, number: u64, machine: GatewaySession) -> Self {
        let context = &gateway.context;
        let settings = &context.settings;
        let queue = Arc::new(SessionQueue::new(number, machine.site(), settings.queue_bytes));
        let pace = Pace::new(settings.max_messages_per_second, settings.max_bytes_per_second, Instant::now());
        let name = admitted.admission.session.clone();
        let (now_ms, queued) = (context.clock.now_ms(), Arc::clone(&queue));
        let device = Device::new(name.clone(), admitted.user, admitted.device, now_ms, queued);
        admitted.app.show(number, &device);
        let mut session = Self {
            gateway,
            app: admitted.app,
            number,
            name,
            machine,
            rules: admitted.rules,
            token: admitted.token,
            expires_at_ms: admitted.admission.expires_at_ms,
            queue,
            device,
            outbox: Outbox::default(),
            pushes: Pushes::default(),
            subscriptions: BTreeMap::new(),
            fenced: BTreeMap::new(),
            pace,
            waiting: Vec::new(),
            catching_up: None,
            turn: Turn::default(),
            asked_at: None,
            lagged_at: None,
            ended: None,
        };
        for rejection in &admitted.rejections {
            session.pushes.remember(rejection);
        }
        let effects = session.machine.admitted(admitted.admission);
        session.answer(effects);
        session
    }

    /// Until the session ends; answers why.
    async fn serve(
        &mut self,
        sink: &mut SplitSink<WebSocket, Message>,
        stream: &mut SplitStream<WebSocket>,
        replaced: &Shutdown,
    ) -> pb::Close {
        let settings = self.gateway.context.settings;
        let shutdown = self.gateway.context.shutdown.clone();
        let mut catalogue = self.gateway.context.catalogue.changes();
        let (replies, mut outcomes) = mpsc::unbounded_channel();
        self.pushes.replies = Some(replies);
        let mut tick = ticks(settings.cursor_interval.min(settings.idle_timeout / 4));
        let mut heard = Instant::now();
        let mut drain_until: Option<Instant> = None;
        tracing::debug!(session = self.name, number = self.number, site = %self.machine.site(), "session opened");
        while self.ended.is_none() {
            if drain_until.is_some() && self.pushes.is_empty() && self.outbox.is_empty() {
                return going_away(self.number);
            }
            let event = self.next_event(
                sink,
                stream,
                &mut outcomes,
                &mut catalogue,
                &mut tick,
                (&shutdown, replaced),
                drain_until,
            );
            match event.await {
                Event::Frame(frame) => {
                    heard = Instant::now();
                    Box::pin(self.frame(frame)).await;
                }
                Event::Outcomes(outcomes) => Box::pin(self.outcomes(outcomes)).await,
                Event::Writable(ready) => self.write(sink, ready),
                Event::Flushed(flushed) => {
                    self.outbox.flushed();
                    self.gone(flushed);
                }
                Event::Page(step) => self.step(step),
                Event::News => {}
                Event::Catalogue => self.permissions_changed(),
                Event::Tick => self.tick(heard, settings.idle_timeout),
                Event::TurnEnds => self.turn_ends(),
                Event::GoOn => self.pace.go_on(),
                Event::ShuttingDown => drain_until = Some(Instant::now() + settings.drain_timeout),
                Event::Replaced => self.end(CloseCode::CloseReplaced, "the site has opened a newer session"),
                Event::DrainedTooLong => return going_away(self.number),
            }
            self.look_at_queue();
            self.device.stands(self.machine.through(), self.is_behind(), || self.gateway.context.clock.now_ms());
        }
        self.ended.take().unwrap_or_else(|| going_away(self.number))
    }

    #[allow(clippy::too_many_arguments, reason = "everything that a session waits for, in one place")]
    async fn next_event(
        &mut self,
        sink: &mut SplitSink<WebSocket, Message>,
        stream: &mut SplitStream<WebSocket>,
        outcomes: &mut mpsc::UnboundedReceiver<Result<Vec<AppendOutcome>, AppendError>>,
        catalogue: &mut watch::Receiver<u64>,
        tick: &mut Interval,
        (shutdown, replaced): (&Shutdown, &Shutdown),
        drain_until: Option<Instant>,
    ) -> Event {
        let draining = drain_until.is_some();
        let paused = self.pace.not_before();
        let may_read = !draining && paused.is_none() && self.outbox.answers() < MAX_WAITING_ANSWERS;
        let (has_frame, needs_flush) = (self.has_frame(), self.outbox.needs_flush());
        let compression = self.machine.compression();
        let may_scan = self.may_scan();
        let turn_ends = self.turn.note(may_scan);
        let (hub, awaited) = (&self.app.hub, self.awaits_hub());
        let hub_moved = async {
            match awaited {
                Some(lsn) => hub.reached(lsn).await,
                None => std::future::pending().await,
            }
        };
        let (scanning, turn, turns) = (&mut self.catching_up, &mut self.turn, &self.gateway.turns);
        let page = async {
            match scanning {
                Some(catching_up) if may_scan => {
                    turn.come(turns).await;
                    Box::pin(catching_up.next(compression)).await
                }
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if !draining => Event::ShuttingDown,
            () = replaced.cancelled() => Event::Replaced,
            () = sleep_until(drain_until), if draining => Event::DrainedTooLong,
            outcome = outcomes.recv() => Event::Outcomes(outcome),
            _ = tick.tick() => Event::Tick,
            event = poll_fn(|cx| poll_sink(sink, cx, has_frame, needs_flush)), if has_frame || needs_flush => event,
            frame = stream.next(), if may_read => Event::Frame(frame),
            changed = catalogue.changed() => match changed {
                Ok(()) => Event::Catalogue,
                Err(_) => Event::ShuttingDown,
            },
            () = self.queue.news() => Event::News,
            () = sleep_until(turn_ends), if turn_ends.is_some() => Event::TurnEnds,
            () = sleep_until(paused), if paused.is_some() => Event::GoOn,
            () = hub_moved => Event::News,
            step = page => Event::Page(step),
        }
    }

    /// A WebSocket message, or the end of them.
    async fn frame(&mut self, frame: Option<Result<Message, axum::Error>>) {
        let effects = match frame {
            Some(Ok(Message::Binary(bytes))) => {
                metrics::received(bytes.len());
                self.device.received(bytes.len());
                match decode_peer_frame(bytes, self.machine.max_frame_bytes()) {
                    Ok(framed) => {
                        self.pace.spend(weight(&framed.message), framed.bytes, Instant::now());
                        self.machine.receive(framed.message)
                    }
                    Err(error) => {
                        metrics::malformed_frame();
                        self.machine.malformed(&error)
                    }
                }
            }
            // A Pong to it is queued already; it leaves with the next flush.
            Some(Ok(Message::Ping(_))) => return self.outbox.flush(),
            Some(Ok(Message::Pong(_))) => return,
            Some(Ok(Message::Text(_))) => {
                metrics::malformed_frame();
                self.machine.close(pb::Close::new(CloseCode::CloseProtocolError, "frames are binary messages"))
            }
            Some(Err(error)) => {
                metrics::malformed_frame();
                self.machine.close(pb::Close::new(CloseCode::CloseProtocolError, error.to_string()))
            }
            Some(Ok(Message::Close(_))) | None => {
                self.machine.close(pb::Close::new(CloseCode::CloseDone, "the connection ended"))
            }
        };
        self.perform(effects).await;
    }

    /// Carries out what a message of the peer asks for.
    async fn perform(&mut self, effects: Vec<GatewayEffect>) {
        for effect in effects {
            match effect {
                GatewayEffect::Append(transactions) => self.append(transactions).await,
                GatewayEffect::Subscribe(subscribe) => self.subscribe(subscribe).await,
                GatewayEffect::Unsubscribe(id) => self.unsubscribe(id),
                GatewayEffect::Renew(token) => self.renew(token),
                GatewayEffect::Held(held) => self.held(&held),
                effect @ (GatewayEffect::Send(_)
                | GatewayEffect::Close(_)
                | GatewayEffect::Resume
                | GatewayEffect::Admit(_)) => self.answer(vec![effect]),
            }
        }
    }

    /// Carries out effects that need nothing but the outbox.
    fn answer(&mut self, effects: Vec<GatewayEffect>) {
        for effect in effects {
            match effect {
                GatewayEffect::Send(message) => {
                    let frame = encode_frame(&message, self.machine.compression()).message;
                    match message.message {
                        Some(pb::FromGateway::CaughtUp(_)) => self.outbox.answer_after_documents(frame),
                        Some(_) | None => self.outbox.answer(frame),
                    }
                }
                GatewayEffect::Close(close) => {
                    self.ended.get_or_insert(close);
                }
                // Pages and live changes are made when there is credit; the Hello was taken before.
                GatewayEffect::Resume | GatewayEffect::Admit(_) => {}
                // Only answers to messages of the peer, which go through `perform`.
                GatewayEffect::Append(_)
                | GatewayEffect::Subscribe(_)
                | GatewayEffect::Unsubscribe(_)
                | GatewayEffect::Held(_)
                | GatewayEffect::Renew(_) => {}
            }
        }
    }

    fn end(&mut self, code: CloseCode, message: &str) {
        let effects = self.machine.close(pb::Close::new(code, message));
        self.answer(effects);
    }

    /// The store cannot be read: nothing that the peer did.
    fn unavailable(&mut self, error: &TablesError) {
        tracing::warn!(%error, session = self.name, "documents cannot be read; the session is closed");
        self.end(CloseCode::CloseUnavailable, "documents cannot be read now");
    }

    /// The catch-up cannot go on now. If others wait for their turn they get this one's.
    fn turn_ends(&mut self) {
        if self.gateway.turns.available_permits() > 0 {
            self.turn.note(true);
            return;
        }
        if let Some(catching_up) = &mut self.catching_up {
            catching_up.park();
        }
        self.turn.leave();
    }

    fn gone(&mut self, result: Result<(), axum::Error>) {
        if result.is_err() {
            self.end(CloseCode::CloseDone, "the connection broke");
        }
    }

    fn tick(&mut self, heard: Instant, idle: Duration) {
        let silence = heard.elapsed();
        if silence >= idle {
            return self.end(CloseCode::CloseTimeout, "nothing was heard for too long");
        }
        if self.expires_at_ms != 0 && self.gateway.context.clock.now_ms() >= self.expires_at_ms {
            return self.end(CloseCode::CloseTokenExpired, "the access token has expired");
        }
        if silence >= idle / 2 {
            self.outbox.ping();
        }
        self.give_up_asking();
        self.tell_cursor();
    }

    /// Whether there is something that the peer has not been sent.
    fn is_behind(&self) -> bool {
        self.catching_up.is_some() || !self.waiting.is_empty() || self.outbox.has_documents() || self.queue.has_news()
    }

    /// After the last message: nothing of the session stays anywhere.
    fn leave(&self) {
        self.app.hide(self.number);
        self.app.hub.detach_all(self.number);
        self.app.leave(self.machine.site(), self.number);
    }
}

fn going_away(number: u64) -> pb::Close {
    let close = pb::Close::new(CloseCode::CloseGoingAway, "the gateway is shutting down; connect again");
    pb::Close { retry_after_ms: spread(number), ..close }
}

/// Milliseconds that differ between sessions: those who are sent away together need not come back together.
const fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 2000
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether the socket takes a frame, or has sent all of them.
fn poll_sink(
    sink: &mut SplitSink<WebSocket, Message>,
    cx: &mut Context<'_>,
    has_frame: bool,
    needs_flush: bool,
) -> Poll<Event> {
    if has_frame && let Poll::Ready(ready) = sink.poll_ready_unpin(cx) {
        return Poll::Ready(Event::Writable(ready));
    }
    match needs_flush {
        true => sink.poll_flush_unpin(cx).map(Event::Flushed),
        false => Poll::Pending,
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// How many messages a message counts as: some cost more than others.
const fn weight(message: &pb::FromPeer) -> u32 {
    match message {
        pb::FromPeer::Subscribe(_) | pb::FromPeer::Renew(_) => 20,
        pb::FromPeer::Hello(_)
        | pb::FromPeer::Push(_)
        | pb::FromPeer::Unsubscribe(_)
        | pb::FromPeer::Credit(_)
        | pb::FromPeer::Held(_)
        | pb::FromPeer::Close(_) => 1,
    }
}

/// A frame for the socket.
fn binary(frame: Bytes) -> Message {
    Message::Binary(frame)
}
