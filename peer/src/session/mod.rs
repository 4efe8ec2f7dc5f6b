//! The background session: log in, connect, push, receive, and again after the connection was lost.

mod active;
mod backoff;
mod end;
mod link;
mod login;
mod run;

use std::sync::{Arc, Mutex, PoisonError};

use bigpeer_protocol::pb;
use bigpeer_types::{IdGenerator, SiteId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use backoff::Backoff;
pub(crate) use end::{After, after_close};
pub(crate) use link::{ConnectError, Link};
pub(crate) use login::{Endpoint, Login, log_in, log_in_without_refresh_token, refresh, request};
pub(crate) use run::told;

use crate::local::Evaluation;
use crate::signals::Signals;
use crate::store::{Durability, Store, Token};
use crate::{ConnectSettings, Connection, Credentials, PeerError, PeerSettings};

/// The one background task of a peer.
#[derive(Debug, Default)]
pub(crate) struct Background {
    task: Mutex<Option<Task>>,
}

#[derive(Debug)]
struct Task {
    /// Dropping it, or sending, ends the task.
    stop: watch::Sender<bool>,
    handle: JoinHandle<()>,
}

impl Background {
    /// Starts a session in the place of the last one, which must have been stopped.
    pub(crate) fn start(
        &self,
        store: Store,
        signals: Arc<Signals>,
        evaluation: Evaluation,
        settings: ConnectSettings,
        peer: &PeerSettings,
    ) {
        let (stop, stopped) = watch::channel(false);
        // Before this returns, so that a wait that begins right after it sees a session in the making.
        signals.set_connection(Connection::Connecting { failures: 0, last_error: None });
        let runner = run::Runner {
            store,
            signals,
            evaluation,
            settings,
            clock: Arc::clone(&peer.clock),
            ids: Arc::clone(&peer.ids),
            stopped,
        };
        let handle = tokio::spawn(runner.run());
        let task = Task { stop, handle };
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Ends the session and waits for its end.
    pub(crate) async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Task { stop, handle }) = task {
            let _gone = stop.send(true);
            if handle.await.is_err() {
                tracing::error!("the session's task panicked");
            }
        }
    }
}

/// Makes the store ready to connect: of this app, with a site. Only a store without a site asks the server.
pub(crate) async fn prepare(store: &Store, settings: &ConnectSettings, ids: &dyn IdGenerator) -> Result<(), PeerError> {
    let endpoint = Endpoint::new(&settings.url, &settings.app)?;
    let (app, site) = store.read(|tables| Ok((tables.app()?, tables.site()?))).await?;
    if let Some(store) = app
        && store != settings.app
    {
        return Err(PeerError::OtherApp { store, asked: settings.app.clone() });
    }
    match &settings.credentials {
        Credentials::Token { site, token } => {
            let token = Token { token: token.clone(), expires_ms: u64::MAX, refresh: None };
            adopt(store, settings, Login { site: *site, token, certificate: None }).await
        }
        Credentials::ApiKey(key) if site.is_none() => {
            let csr = request(&endpoint, store, ids).await?;
            let login = log_in(&endpoint, key, None, csr.as_deref(), settings).await?;
            adopt(store, settings, login).await
        }
        Credentials::ApiKey(_) => Ok(()),
    }
}

/// [`prepare`], and the site that came of it.
pub(crate) async fn login_into(
    store: &Store,
    settings: &ConnectSettings,
    ids: &dyn IdGenerator,
) -> Result<SiteId, PeerError> {
    prepare(store, settings, ids).await?;
    store.read(|tables| tables.site()).await?.ok_or(PeerError::NoSite)
}

async fn adopt(store: &Store, settings: &ConnectSettings, login: Login) -> Result<(), PeerError> {
    let app = settings.app.clone();
    let change = move |work: &mut crate::store::Work<'_>| {
        work.adopt(&app, login.site)?;
        work.set_login(&login.token, login.certificate.as_ref())
    };
    store.write(Durability::Power, change).await
}

/// What a list of connected devices says of this one.
pub(crate) fn device(settings: &ConnectSettings) -> pb::Device {
    pb::Device {
        name: settings.device.clone(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        software: concat!("bigpeer-peer ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..pb::Device::default()
    }
}
