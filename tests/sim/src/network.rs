//! The simulated network: hosts, connections that deliver bytes in order after a while, and everything that can go wrong
//! with them: partitions in one direction or both, slow links, silent deaths, connections that are repeated.
//!
//! Bytes move when [`Network::deliver`] is called, between two steps of the hosts; nothing is told faster than it could travel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tap::Tap;
use crate::trace::Trace;

/// A host, by number.
pub type Host = u32;

/// Bytes that a connection holds in one direction before its writer waits.
const WINDOW_BYTES: usize = 64 << 10;
/// How much of a connection is remembered, to be repeated.
const RECORDED_BYTES: usize = 64 << 10;

/// How a host goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its connections are closed; what it had sent arrives.
    Closing,
    /// Nobody is told anything.
    Silent,
}

/// All hosts and connections; clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now: u64,
    chance: StdRng,
    /// Shortest and longest time that bytes take, in milliseconds.
    latency: (u64, u64),
    listening: BTreeMap<Host, Backlog>,
    /// Two for each connection: an even number from the client to the server, the next back.
    pipes: BTreeMap<u64, Pipe>,
    next: u64,
    blocked: BTreeSet<(Host, Host)>,
    /// What clients said in finished connections and in those that go on: where to, and what.
    recorded: VecDeque<(u64, Host, Host, BytesMut)>,
    trace: Trace,
    tap: Tap,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Stream>,
    acceptor: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: Host,
    to: Host,
    flight: VecDeque<(u64, Option<Bytes>)>,
    arrived: BytesMut,
    /// Bytes in flight and arrived.
    bytes: usize,
    ended: bool,
    /// The reader is known to be gone, to the writer.
    broken: bool,
    /// Nothing arrives any more.
    cut: bool,
    /// What arrives is thrown away.
    unread: bool,
    writer_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(from: Host, to: Host) -> Self {
        Self {
            from,
            to,
            flight: VecDeque::new(),
            arrived: BytesMut::new(),
            bytes: 0,
            ended: false,
            broken: false,
            cut: false,
            unread: false,
            writer_gone: false,
            reader: None,
            writer: None,
        }
    }
}

impl Network {
    /// No hosts yet.
    pub fn new(seed: u64, trace: Trace, tap: Tap) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: 0,
            chance: StdRng::seed_from_u64(seed),
            latency: (1, 20),
            listening: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next: 0,
            blocked: BTreeSet::new(),
            recorded: VecDeque::new(),
            trace,
            tap,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long bytes take from now on, in milliseconds.
    pub fn set_latency(&self, shortest: u64, longest: u64) {
        self.state().latency = (shortest.max(1), longest.max(shortest.max(1)));
    }

    /// What is sent from one to the other waits from now on.
    pub fn block(&self, from: Host, to: Host) {
        self.state().blocked.insert((from, to));
    }

    /// It arrives again, what waits first.
    pub fn unblock_all(&self) {
        self.state().blocked.clear();
    }

    /// Delivers what is due.
    pub fn deliver(&self, now: u64) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state();
            let state = &mut *state;
            state.now = now;
            let mut broken = Vec::new();
            for (number, pipe) in &mut state.pipes {
                if pipe.cut || state.blocked.contains(&(pipe.from, pipe.to)) {
                    continue;
                }
                while pipe.flight.front().is_some_and(|(at, _)| *at <= now) {
                    let Some((_, chunk)) = pipe.flight.pop_front() else { break };
                    let length = chunk.as_ref().map_or(0, Bytes::len);
                    state.trace.event(now, format_args!("pipe {number} {length}"));
                    match chunk {
                        Some(_) if pipe.unread => pipe.bytes -= length,
                        Some(bytes) => pipe.arrived.extend_from_slice(&bytes),
                        None => {
                            pipe.ended = true;
                            broken.push(number ^ 1);
                        }
                    }
                    wakers.extend(pipe.reader.take());
                }
            }
            for number in broken {
                if let Some(pipe) = state.pipes.get_mut(&number) {
                    pipe.broken = true;
                    wakers.extend(pipe.writer.take());
                }
            }
            state.pipes.retain(|_, pipe| !(pipe.writer_gone && pipe.unread && (pipe.flight.is_empty() || pipe.cut)));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Listens as `host`, from now until it goes down.
    pub fn listen(&self, host: Host) -> Listener {
        self.state().listening.insert(host, Backlog::default());
        Listener { network: self.clone(), host }
    }

    /// The host is gone. Call it before its tasks are dropped.
    pub fn down(&self, host: Host, death: Death) {
        let backlog = {
            let mut state = self.state();
            let theirs = state.pipes.iter().filter(|(_, pipe)| pipe.from == host || pipe.to == host);
            let theirs: Vec<u64> = theirs.map(|(number, _)| *number).collect();
            for number in theirs {
                let Some(pipe) = state.pipes.get_mut(&number) else { continue };
                pipe.cut |= death == Death::Silent;
                // Here, in order: a runtime drops its tasks in no order that a seed decides.
                if pipe.from == host {
                    state.finish(number);
                }
            }
            state.listening.remove(&host)
        };
        // Its streams lock the network when they are dropped.
        drop(backlog);
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens. Waits for as long as the way is blocked.
    pub async fn connect(&self, from: Host, to: Host) -> io::Result<Stream> {
        loop {
            let latency = self.state().latency();
            tokio::time::sleep(Duration::from_millis(latency)).await;
            match self.try_connect(from, to) {
                Some(connected) => return connected,
                None => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }

    /// None when the way is blocked.
    fn try_connect(&self, from: Host, to: Host) -> Option<io::Result<Stream>> {
        let mut state = self.state();
        if state.blocked.contains(&(from, to)) || state.blocked.contains(&(to, from)) {
            return None;
        }
        if !state.listening.contains_key(&to) {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let client = state.open(self, from, to);
        state.recorded.push_back((client.outgoing, from, to, BytesMut::new()));
        if state.recorded.len() > 32 {
            state.recorded.pop_front();
        }
        Some(Ok(client))
    }

    /// Says to a server again what some client said to it before, over a new connection to `to`. Answers go nowhere.
    pub fn repeat_a_connection(&self, to: Host) -> bool {
        let mut state = self.state();
        if state.recorded.is_empty() || !state.listening.contains_key(&to) {
            return false;
        }
        let which = {
            let recorded = state.recorded.len();
            state.chance.random_range(0..recorded)
        };
        let (_, from, _, bytes) = state.recorded[which].clone();
        let mut ghost = state.open(self, from, to);
        let latency = state.latency();
        let at = state.now + latency;
        state.trace.event(at, format_args!("repeating {} bytes of {from}", bytes.len()));
        if let Some(pipe) = state.pipes.get_mut(&ghost.outgoing) {
            pipe.bytes += bytes.len();
            pipe.flight.push_back((at, Some(bytes.freeze())));
            pipe.flight.push_back((at + 500, None));
            pipe.writer_gone = true;
        }
        if let Some(pipe) = state.pipes.get_mut(&ghost.incoming) {
            pipe.unread = true;
        }
        ghost.is_ghost = true;
        drop(state);
        true
    }
}

impl State {
    fn latency(&mut self) -> u64 {
        let (shortest, longest) = self.latency;
        self.chance.random_range(shortest..=longest)
    }

    /// A connection; the server's end waits to be accepted.
    fn open(&mut self, network: &Network, from: Host, to: Host) -> Stream {
        let number = self.next;
        self.next += 2;
        self.trace.event(self.now, format_args!("connection {number} from {from} to {to}"));
        self.pipes.insert(number, Pipe::new(from, to));
        self.pipes.insert(number + 1, Pipe::new(to, from));
        let stream = |incoming, outgoing| Stream { network: network.clone(), incoming, outgoing, is_ghost: false };
        let server = stream(number, number + 1);
        if let Some(backlog) = self.listening.get_mut(&to) {
            backlog.waiting.push_back(server);
            if let Some(waker) = backlog.acceptor.take() {
                waker.wake();
            }
        }
        stream(number + 1, number)
    }

    fn send(&mut self, number: u64, bytes: &[u8]) {
        let latency = self.latency();
        let at = self.now + latency;
        let half = if bytes.len() > 1 && self.chance.random_ratio(1, 8) {
            self.chance.random_range(1..bytes.len())
        } else {
            bytes.len()
        };
        let later = self.latency();
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        let at = pipe.flight.back().map_or(at, |(last, _)| at.max(*last));
        pipe.bytes += bytes.len();
        pipe.flight.push_back((at, Some(Bytes::copy_from_slice(&bytes[..half]))));
        if half < bytes.len() {
            pipe.flight.push_back((at + later, Some(Bytes::copy_from_slice(&bytes[half..]))));
        }
        let (from, to) = (pipe.from, pipe.to);
        if number % 2 == 1 {
            self.tap.sent(number, to, bytes);
        } else if let Some((.., recorded)) = self.recorded.iter_mut().find(|(of, ..)| *of == number)
            && recorded.len() + bytes.len() <= RECORDED_BYTES
        {
            recorded.extend_from_slice(bytes);
        }
        let _ = from;
    }

    fn finish(&mut self, number: u64) {
        let latency = self.latency();
        let now = self.now;
        if let Some(pipe) = self.pipes.get_mut(&number)
            && !pipe.writer_gone
        {
            pipe.writer_gone = true;
            let at = pipe.flight.back().map_or(now + latency, |(last, _)| (now + latency).max(*last));
            pipe.flight.push_back((at, None));
        }
    }
}

/// One end of a connection.
pub struct Stream {
    network: Network,
    incoming: u64,
    outgoing: u64,
    /// Nobody holds it.
    is_ghost: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.outgoing)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_ghost {
            return;
        }
        let mut state = self.network.state();
        state.finish(self.outgoing);
        if let Some(pipe) = state.pipes.get_mut(&self.incoming) {
            pipe.unread = true;
            pipe.bytes = 0;
            pipe.arrived.clear();
            let in_flight: usize = pipe.flight.iter().filter_map(|(_, chunk)| chunk.as_ref()).map(Bytes::len).sum();
            pipe.bytes += in_flight;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.state();
        let Some(pipe) = state.pipes.get_mut(&self.incoming) else { return Poll::Ready(Ok(())) };
        if !pipe.arrived.is_empty() {
            let length = pipe.arrived.len().min(buf.remaining());
            buf.put_slice(&pipe.arrived[..length]);
            pipe.arrived.advance(length);
            pipe.bytes -= length;
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.ended {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.network.state();
        let Some(pipe) = state.pipes.get_mut(&self.outgoing) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.broken || pipe.writer_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.bytes >= WINDOW_BYTES {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = bytes.len().min(WINDOW_BYTES - pipe.bytes);
        state.send(self.outgoing, &bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.state().finish(self.outgoing);
        Poll::Ready(Ok(()))
    }
}

/// Accepts connections to a host.
pub struct Listener {
    network: Network,
    host: Host,
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Host;

    async fn accept(&mut self) -> (Stream, Host) {
        let stream = std::future::poll_fn(|cx| {
            let mut state = self.network.state();
            let Some(backlog) = state.listening.get_mut(&self.host) else { return Poll::Pending };
            match backlog.waiting.pop_front() {
                Some(stream) => Poll::Ready(stream),
                None => {
                    backlog.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        (stream.await, self.host)
    }

    fn local_addr(&self) -> io::Result<Host> {
        Ok(self.host)
    }
}
