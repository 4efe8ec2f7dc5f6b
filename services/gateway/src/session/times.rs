//! What a session does when: deadlines, the end of its turn, and a look, now and then, at what nobody tells.

use bigpeer_protocol::pb::CloseCode;
use tokio::time::{Duration, Instant};

use super::{Session, going_away};
use crate::websocket::WebSocket;

/// What a session does when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The next look at what nobody tells.
    pub(super) tick: Instant,
    /// When something came last.
    pub(super) heard: Instant,
    /// When something left last, or nothing was to leave; and the bytes that had left, which are counted.
    pub(super) sent: (Instant, u64),
    /// The process shuts down: the last outcomes are waited for until then.
    pub(super) drain_until: Option<Instant>,
}

impl Session {
    /// When the session has to look at the clock again.
    pub(super) fn wake_at(&mut self) -> Instant {
        let goes_on = self.may_scan();
        let others = [self.turn.note(goes_on), self.pace.not_before(), self.times.drain_until];
        others.into_iter().flatten().fold(self.times.tick, Instant::min)
    }

    /// The time that was waited for has come.
    pub(super) fn time_has_come(&mut self, socket: &WebSocket) {
        let now = Instant::now();
        let is_over = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_over(self.times.drain_until) {
            self.ended.get_or_insert_with(|| going_away(self.queue.number()));
        }
        if is_over(self.pace.not_before()) {
            self.pace.go_on();
        }
        let goes_on = self.may_scan();
        if is_over(self.turn.note(goes_on)) {
            self.turn_ends();
        }
        if self.times.tick <= now {
            let settings = &self.gateway.context.settings;
            self.times.tick = now + tick_period(settings.cursor_interval, settings.idle_timeout);
            self.tick(socket, now);
        }
    }

    fn tick(&mut self, socket: &WebSocket, now: Instant) {
        let idle = self.gateway.context.settings.idle_timeout;
        let silence = now.saturating_duration_since(self.times.heard);
        if silence >= idle {
            return self.end(CloseCode::CloseTimeout, "nothing was heard for too long");
        }
        let (waits, sent) = socket.progress();
        if !waits || sent != self.times.sent.1 {
            self.count_sent(socket);
            self.times.sent.0 = now;
        }
        if now.saturating_duration_since(self.times.sent.0) >= idle {
            return self.end(CloseCode::CloseTimeout, "nothing of what was sent was taken for too long");
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

    /// The catch-up cannot go on now. If others wait for their turn they get this one's.
    fn turn_ends(&mut self) {
        if self.gateway.turns.waiting() == 0 {
            self.turn.note(true);
            return;
        }
        if let Some(catching_up) = &mut self.catching_up {
            catching_up.park();
        }
        self.turn.leave();
    }

    /// What has left since it was counted last.
    pub(super) fn count_sent(&mut self, socket: &WebSocket) {
        let (_, sent) = socket.progress();
        self.meter.bytes_out(sent.saturating_sub(self.times.sent.1));
        self.times.sent.1 = sent;
    }
}

/// How often a session looks at what nobody tells.
pub(super) fn tick_period(cursor_interval: Duration, idle_timeout: Duration) -> Duration {
    cursor_interval.min(idle_timeout / 4).max(Duration::from_millis(10))
}
