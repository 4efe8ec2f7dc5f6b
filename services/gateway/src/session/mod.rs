//! One session: a task that carries out what `GatewaySession` says, and moves documents from the hub and from snapshots to
//! the socket.
//!
//! # Cancellation
//! The task is the only owner of its state. Every branch of its loop waits for something that loses nothing when another
//! branch is faster.

mod admit;
mod catch_up;
mod held;
mod messages;
mod outbox;
mod pace;
mod push;
mod since;
mod subscribe;
mod taken_back;
mod times;
mod turn;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bigpeer_chassis::{Held, Meter, PeerCertificate, as_client};
use bigpeer_protocol::pb::{self, CloseCode};
use bigpeer_protocol::{GatewaySession, encode_frame};
use bigpeer_tables::TablesError;
use bigpeer_types::{AppId, Lsn};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::apps::App;
use crate::devices::Device;
use crate::hub::{Matcher, SessionQueue};
use crate::metrics;
use crate::rules::Rules;
use crate::socket::Gateway;
use crate::websocket::{Incoming, Violation, WebSocket};
use catch_up::{CatchUp, Member};
use outbox::Outbox;
use pace::Pace;
use push::Pushes;
use taken_back::TakenBack;
use times::{Times, tick_period};
use turn::Turn;

/// How long the last message may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// Answers that may wait for the socket before nothing more is read from it.
const MAX_WAITING_ANSWERS: usize = 256;

/// A session whose Hello was accepted.
struct Session {
    gateway: Arc<Gateway>,
    app: Arc<App>,
    /// What the app uses, and may.
    meter: Arc<Meter>,
    _place: Held,
    machine: GatewaySession,
    rules: Arc<Rules>,
    token: String,
    /// What the peer showed in the TLS handshake, if it did.
    certificate: Option<PeerCertificate>,
    expires_at_ms: u64,
    /// The catalogue that `rules` were looked up in.
    catalogue: u64,
    queue: Arc<SessionQueue>,
    /// What others are shown of the session.
    device: Arc<Device>,
    outbox: Outbox,
    pushes: Pushes,
    subscriptions: BTreeMap<u32, Arc<Matcher>>,
    /// The place of each among those of the app.
    places: BTreeMap<u32, Held>,
    /// Subscriptions that began anew: what was queued for them up to here was matched under permissions of before.
    fenced: BTreeMap<u32, Lsn>,
    /// Documents that a rejection took from the peer, as of where it looked.
    taken_back: TakenBack,
    pace: Pace,
    waiting: Vec<Member>,
    /// Boxed, as it is seldom there.
    catching_up: Option<Box<CatchUp>>,
    /// Only with it the catch-up goes on.
    turn: Turn,
    times: Times,
    /// When the peer was asked what it holds, while it has not answered.
    asked_at: Option<Instant>,
    /// The queue was full; everything up to here was taken out of it.
    lagged_at: Option<Lsn>,
    /// Why the session ends; set once.
    ended: Option<pb::Close>,
}

/// Runs a session from the first frame to the last.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    app: AppId,
    number: u64,
    from: Option<IpAddr>,
    certificate: Option<Arc<PeerCertificate>>,
    mut socket: WebSocket,
) {
    metrics::session_opened();
    // What is large and seldom is boxed: a session is idle most of its life, and there are many.
    let close = match Box::pin(as_client(from, open(gateway, app, number, certificate, &mut socket))).await {
        Ok(mut session) => {
            let close = session.serve(&mut socket).await;
            session.count_sent(&socket);
            session.leave();
            close
        }
        Err(close) => close,
    };
    metrics::session_ended(close.code());
    tracing::debug!(session = number, code = close.code().as_str_name(), message = close.message, "session ended");
    let reason = close.code().as_str_name();
    let last = encode_frame(&pb::GatewayMessage::from(close), pb::Compression::None).message;
    // A peer that does not take its Close has gone.
    let _ = timeout(FAREWELL, Box::pin(socket.finish(last, reason))).await;
}

/// From the connection to the Welcome.
async fn open(
    gateway: Arc<Gateway>,
    app: AppId,
    number: u64,
    certificate: Option<Arc<PeerCertificate>>,
    socket: &mut WebSocket,
) -> Result<Box<Session>, pb::Close> {
    let mut limits = gateway.context.settings.limits();
    let quota = gateway.context.catalogue.quota(&app);
    limits.max_subscriptions = limits.max_subscriptions.min(quota.session_subscriptions.unwrap_or(u32::MAX));
    let mut machine = GatewaySession::new(limits);
    let deadline = Instant::now() + gateway.context.settings.handshake_timeout;
    let shown = certificate.as_deref();
    match timeout_at(deadline, admit::handshake(&gateway, &app, number, shown, &mut machine, socket)).await {
        Ok(admitted) => Ok(Box::new(Session::new(gateway, admitted?, number, machine))),
        Err(_) => {
            let close = pb::Close::new(CloseCode::CloseTimeout, "no Hello came, or it could not be answered in time");
            // Not all at once again.
            Err(pb::Close { retry_after_ms: 1000 + spread(number), ..close })
        }
    }
}

/// What the loop waits for, one at a time.
enum Event {
    Frame(Option<Result<Incoming, Violation>>),
    Writable(std::io::Result<()>),
    Flushed(std::io::Result<()>),
    Page(Result<catch_up::Step, TablesError>),
    /// Somebody left something in the queue, or something else has to be looked at.
    News,
    Time,
}

impl Session {
    fn new(gateway: Arc<Gateway>, admitted: admit::Admitted, number: u64, machine: GatewaySession) -> Self {
        let context = &gateway.context;
        let settings = &context.settings;
        let queue = Arc::new(SessionQueue::new(number, machine.site(), settings.queue_bytes));
        let now = Instant::now();
        let pace = Pace::new(settings.max_messages_per_second, settings.max_bytes_per_second, now);
        let (now_ms, queued) = (context.clock.now_ms(), Arc::clone(&queue));
        let device = Device::new(admitted.admission.session.clone(), admitted.user, admitted.device, now_ms, queued);
        admitted.app.show(number, &device);
        admitted.app.enter(&queue);
        gateway.budget.enter(&queue);
        let tick = now + tick_period(settings.cursor_interval, settings.idle_timeout);
        let mut session = Self {
            gateway,
            app: admitted.app,
            meter: admitted.meter,
            _place: admitted.place,
            machine,
            rules: admitted.rules,
            token: admitted.token,
            certificate: admitted.certificate,
            expires_at_ms: admitted.admission.expires_at_ms,
            catalogue: admitted.catalogue,
            queue,
            device,
            outbox: Outbox::default(),
            pushes: Pushes::default(),
            subscriptions: BTreeMap::new(),
            places: BTreeMap::new(),
            fenced: BTreeMap::new(),
            taken_back: TakenBack::default(),
            pace,
            waiting: Vec::new(),
            catching_up: None,
            turn: Turn::default(),
            times: Times { tick, heard: now, sent: (now, 0), drain_until: None },
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

    fn number(&self) -> u64 {
        self.queue.number()
    }

    /// Until the session ends; answers why.
    async fn serve(&mut self, socket: &mut WebSocket) -> pb::Close {
        let mut timer = pin!(tokio::time::sleep_until(self.times.tick));
        tracing::debug!(session = self.device.session(), number = self.number(), site = %self.machine.site(), "session opened");
        loop {
            Box::pin(self.look_around()).await;
            self.look_at_queue();
            self.device.stands(self.machine.through(), self.is_behind(), || self.gateway.context.clock.now_ms());
            let drained = self.times.drain_until.is_some() && self.pushes.is_empty() && self.outbox.is_empty();
            if self.ended.is_some() || drained {
                return self.ended.take().unwrap_or_else(|| going_away(self.number()));
            }
            let wake_at = self.wake_at();
            if timer.deadline() != wake_at {
                timer.as_mut().reset(wake_at);
            }
            match self.next_event(socket, timer.as_mut()).await {
                Event::Frame(frame) => {
                    self.times.heard = Instant::now();
                    Box::pin(self.frame(frame)).await;
                }
                Event::Writable(ready) => self.write(socket, ready),
                Event::Flushed(flushed) => {
                    self.outbox.flushed();
                    self.gone(flushed);
                }
                Event::Page(step) => self.step(step),
                Event::News => {}
                Event::Time => self.time_has_come(socket),
            }
        }
    }

    async fn next_event(&mut self, socket: &mut WebSocket, timer: std::pin::Pin<&mut tokio::time::Sleep>) -> Event {
        let draining = self.times.drain_until.is_some();
        let may_read = !draining && self.pace.not_before().is_none() && self.outbox.answers() < MAX_WAITING_ANSWERS;
        let may_read = may_read.then(|| self.machine.max_frame_bytes());
        let (has_frame, needs_flush) = (self.has_frame(), self.outbox.needs_flush());
        let compression = self.machine.compression();
        let may_scan = self.may_scan();
        let (hub, awaited) = (&self.app.hub, self.awaits_hub());
        let hub_moved = async {
            match awaited {
                Some(lsn) => Box::pin(hub.reached(lsn)).await,
                None => std::future::pending().await,
            }
        };
        let (scanning, turn) = (&mut self.catching_up, &mut self.turn);
        let (turns, app) = (&self.gateway.turns, &self.app.id);
        let page = async {
            match scanning {
                Some(catching_up) if may_scan => {
                    turn.come(turns, app).await;
                    Box::pin(catching_up.next(compression)).await
                }
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = poll_fn(|cx| poll_socket(socket, cx, has_frame, needs_flush, may_read)) => event,
            () = self.queue.news() => Event::News,
            () = timer => Event::Time,
            () = hub_moved => Event::News,
            step = page => Event::Page(step),
        }
    }

    /// What others have left for the session since it looked last.
    async fn look_around(&mut self) {
        if self.times.drain_until.is_none() && self.gateway.context.shutdown.is_cancelled() {
            self.times.drain_until = Some(Instant::now() + self.gateway.context.settings.drain_timeout);
        }
        if self.queue.is_replaced() {
            self.end(CloseCode::CloseReplaced, "the site has opened a newer session");
        }
        while self.ended.is_none()
            && let Some(outcomes) = self.queue.take_outcomes()
        {
            self.outcomes(outcomes).await;
        }
        let catalogue = self.gateway.catalogue();
        if self.ended.is_none() && self.catalogue != catalogue {
            self.catalogue = catalogue;
            self.permissions_changed();
        }
    }

    fn end(&mut self, code: CloseCode, message: &str) {
        let effects = self.machine.close(pb::Close::new(code, message));
        self.answer(effects);
    }

    /// The store cannot be read: nothing that the peer did.
    fn unavailable(&mut self, error: &TablesError) {
        tracing::warn!(%error, session = self.device.session(), "documents cannot be read; the session is closed");
        self.end(CloseCode::CloseUnavailable, "documents cannot be read now");
    }

    fn gone(&mut self, result: std::io::Result<()>) {
        if result.is_err() {
            self.end(CloseCode::CloseDone, "the connection broke");
        }
    }

    /// Whether there is something that the peer has not been sent.
    fn is_behind(&self) -> bool {
        self.catching_up.is_some() || !self.waiting.is_empty() || self.outbox.has_documents() || self.queue.has_news()
    }

    /// After the last message: nothing of the session stays anywhere.
    fn leave(&self) {
        let number = self.number();
        self.gateway.budget.leave(number);
        self.app.hide(number);
        self.app.hub.detach_all(number);
        self.app.leave(&self.queue);
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

/// Whether the socket takes a frame, or has sent all of them, or has something to say; if it may, with messages of so many
/// bytes at most.
fn poll_socket(
    socket: &mut WebSocket,
    cx: &mut Context<'_>,
    has_frame: bool,
    needs_flush: bool,
    may_read: Option<usize>,
) -> Poll<Event> {
    if has_frame && let Poll::Ready(ready) = socket.poll_ready(cx) {
        return Poll::Ready(Event::Writable(ready));
    }
    if needs_flush && let Poll::Ready(flushed) = socket.poll_flush(cx) {
        return Poll::Ready(Event::Flushed(flushed));
    }
    match may_read {
        Some(max) => socket.poll_receive(cx, max).map(Event::Frame),
        None => Poll::Pending,
    }
}
