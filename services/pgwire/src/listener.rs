//! The listener: how many sessions, how long each may be silent, and which is cancelled by whom.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bigpeer_chassis::{Acceptor, Shutdown, as_client};
use bigpeer_sql::SqlContext;
use bigpeer_types::IdGenerator;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::io::Io;
use crate::{metrics, session};

/// Limits of sessions.
#[derive(Clone, Debug)]
pub struct PgSettings {
    /// Encryption for clients that ask for it; who does not ask is turned away then. None: nobody gets it.
    pub tls: Option<Acceptor>,
    /// Most connections at once; further ones are closed.
    pub max_sessions: u32,
    /// How long a client has to say who it is.
    pub startup_timeout: Duration,
    /// How long a session may be silent.
    pub idle_timeout: Duration,
    /// How long a client has to take what it is sent.
    pub send_timeout: Duration,
    /// Most prepared statements of a session.
    pub max_statements: usize,
    /// Most portals of a session.
    pub max_portals: usize,
}

impl Default for PgSettings {
    fn default() -> Self {
        Self {
            tls: None,
            max_sessions: 256,
            startup_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(3600),
            send_timeout: Duration::from_secs(60),
            max_statements: 256,
            max_portals: 32,
        }
    }
}

/// Talks with PostgreSQL's clients on `listener` until `shutdown`, and then until every session has ended.
pub async fn serve(
    listener: TcpListener,
    context: SqlContext,
    settings: PgSettings,
    ids: Arc<dyn IdGenerator>,
    shutdown: Shutdown,
) {
    let most = settings.max_sessions;
    let room = Arc::new(Semaphore::new(most as usize));
    let sessions = Arc::new(Sessions { settings, ids, open: Mutex::default() });
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a client that left already: others are served all the same.
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            metrics::refused("full");
            continue;
        };
        let _best_effort = stream.set_nodelay(true);
        let io = Io::new(stream, sessions.settings.send_timeout);
        let (context, sessions, shutdown) = (context.clone(), Arc::clone(&sessions), shutdown.clone());
        tokio::spawn(async move {
            as_client(Some(from.ip()), session::run(io, context, sessions, shutdown)).await;
            drop(permit);
        });
    }
    // Only when every session has given its permit back can all be had.
    let _never_closed = room.acquire_many(most).await;
}

/// The sessions that are open.
pub(crate) struct Sessions {
    settings: PgSettings,
    ids: Arc<dyn IdGenerator>,
    open: Mutex<BTreeMap<i32, Open>>,
}

struct Open {
    secret: i32,
    cancels: watch::Sender<u64>,
}

impl Sessions {
    pub(crate) const fn settings(&self) -> &PgSettings {
        &self.settings
    }

    /// A place for a session, until it is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut process = self.number();
        while open.contains_key(&process) {
            process = self.number();
        }
        let secret = self.number();
        open.insert(process, Open { secret, cancels: watch::Sender::new(0) });
        Place { sessions: Arc::clone(self), process, secret }
    }

    /// A positive number.
    fn number(&self) -> i32 {
        i32::try_from(self.ids.next_u64() >> 33).unwrap_or(1).max(1)
    }

    /// Stops what the session does, if the secret is its.
    pub(crate) fn cancel(&self, process: i32, secret: i32) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get(&process).filter(|session| session.secret == secret) {
            session.cancels.send_modify(|count| *count += 1);
        }
    }
}

/// A session's place.
pub(crate) struct Place {
    sessions: Arc<Sessions>,
    process: i32,
    secret: i32,
}

impl Place {
    pub(crate) const fn process(&self) -> i32 {
        self.process
    }

    pub(crate) const fn secret(&self) -> i32 {
        self.secret
    }

    /// Changes when the session is to stop what it does.
    pub(crate) fn cancelled(&self) -> watch::Receiver<u64> {
        let open = self.sessions.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&self.process).map_or_else(|| watch::Sender::new(0).subscribe(), |open| open.cancels.subscribe())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::SeededIds;

    #[test]
    fn only_the_secret_cancels_and_places_are_given_back() {
        let ids = Arc::new(SeededIds::new(1));
        let sessions = Arc::new(Sessions { settings: PgSettings::default(), ids, open: Mutex::default() });
        let (place, other) = (sessions.enter(), sessions.enter());
        let (cancelled, untouched) = (place.cancelled(), other.cancelled());
        sessions.cancel(place.process(), place.secret() ^ 1);
        assert!(!cancelled.has_changed().unwrap_or(true));
        sessions.cancel(place.process(), place.secret());
        assert!(cancelled.has_changed().unwrap_or(false) && !untouched.has_changed().unwrap_or(true));
        drop((place, other));
        assert!(sessions.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
    }
}
