//! What all parts of the engine share: the cluster, the keys, the apps' numbers, and how often something is tried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bigpeer_types::AppId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::{Again, Cluster, CommitFailure, Conflicts, ErrorCode, Transaction};
use super::keys::{Space, next};
use super::known::KnownSites;
use super::settings::{FdbOpenError, FdbSettings};
use super::tails::Tails;
use crate::watchers::Watchers;
use crate::{AppendError, MetaError, ReadError};

/// The format of the keyspace that this version reads and writes.
const FORMAT: u8 = 1;

/// Shared by a log and its tasks.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) space: Space,
    pub(crate) settings: FdbSettings,
    /// Numbers never change.
    numbers: Mutex<HashMap<AppId, u32>>,
    pub(crate) known: KnownSites,
    pub(crate) tails: Tails,
    pub(crate) watchers: Watchers,
    /// Becomes true when the log is closed.
    pub(crate) closed: watch::Sender<bool>,
}

/// Why something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The cluster says so.
    Code(ErrorCode),
    /// What is stored is not what was written.
    Damage(&'static str),
}

impl From<ErrorCode> for Trouble {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl Trouble {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Code(code) => code.to_string(),
            Self::Damage(what) => format!("{what} is not what was written"),
        }
    }
}

impl From<Trouble> for ReadError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Code(_) => Self::Unavailable { reason: trouble.reason() },
            Trouble::Damage(_) => {
                tracing::error!(reason = trouble.reason(), "the transaction log is damaged");
                Self::Corrupt { reason: trouble.reason() }
            }
        }
    }
}

impl From<Trouble> for AppendError {
    fn from(trouble: Trouble) -> Self {
        Self::Unavailable { reason: trouble.reason() }
    }
}

impl From<Trouble> for MetaError {
    fn from(trouble: Trouble) -> Self {
        Self::Unavailable { reason: trouble.reason() }
    }
}

/// Something that is tried until it is done or time is up.
#[derive(Debug)]
pub(crate) struct Tries {
    cluster: Arc<dyn Cluster>,
    until: Instant,
    again: Option<Box<dyn Transaction>>,
}

impl Tries {
    /// A transaction for the next try.
    pub(crate) fn begin(&mut self) -> Result<Box<dyn Transaction>, ErrorCode> {
        self.again.take().map_or_else(|| self.cluster.begin(), Ok)
    }

    /// After an error: waits as is proper. `Err` says that it is of no use to try again.
    pub(crate) async fn failed(&mut self, code: ErrorCode, again: Again) -> Result<(), ErrorCode> {
        if Instant::now() >= self.until {
            return Err(code);
        }
        match again.await {
            Ok(transaction) => self.again = Some(transaction),
            // This transaction cannot be used any more, another one may.
            Err(code) if code.may_have_committed() => {}
            Err(code) => return Err(code),
        }
        Ok(())
    }

    /// As [`Self::failed`], for trouble of any kind.
    pub(crate) async fn troubled(
        &mut self,
        transaction: Box<dyn Transaction>,
        trouble: Trouble,
    ) -> Result<(), Trouble> {
        match trouble {
            Trouble::Code(code) => Ok(self.failed(code, transaction.on_error(code)).await?),
            Trouble::Damage(_) => Err(trouble),
        }
    }
}

impl Core {
    pub(crate) fn new(cluster: Arc<dyn Cluster>, settings: FdbSettings) -> Self {
        Self {
            cluster,
            space: Space::new(&settings.prefix),
            settings,
            numbers: Mutex::default(),
            known: KnownSites::default(),
            tails: Tails::default(),
            watchers: Watchers::default(),
            closed: watch::channel(false).0,
        }
    }

    pub(crate) fn tries(&self) -> Tries {
        let until = Instant::now() + self.settings.patience;
        Tries { cluster: Arc::clone(&self.cluster), until, again: None }
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Checks the format of what is stored, or writes it into an empty space.
    pub(crate) async fn check_format(&self) -> Result<(), FdbOpenError> {
        let unavailable = |code: ErrorCode| FdbOpenError::Unavailable { reason: code.to_string() };
        let mut tries = self.tries();
        let key = self.space.format();
        loop {
            let transaction = tries.begin().map_err(unavailable)?;
            let code = match transaction.get(&key).await {
                Ok(Some(format)) if format[..] == [FORMAT] => return Ok(()),
                Ok(Some(format)) => {
                    let reason = format!("its format is {format:?}, not {FORMAT}");
                    return Err(FdbOpenError::Format { reason });
                }
                Err(code) => code,
                Ok(None) => {
                    transaction.depend_on(&key, &next(&key)).map_err(unavailable)?;
                    transaction.set(&key, &[FORMAT], Conflicts::Yes);
                    match transaction.commit().await {
                        Ok(_) => return Ok(()),
                        Err(CommitFailure { code, again }) => {
                            tries.failed(code, again).await.map_err(unavailable)?;
                            continue;
                        }
                    }
                }
            };
            tries.failed(code, transaction.on_error(code)).await.map_err(unavailable)?;
        }
    }

    /// The number of an app that was remembered.
    fn remembered(&self, app: &AppId) -> Option<u32> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).get(app).copied()
    }

    fn remember(&self, app: &AppId, number: u32) -> u32 {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(app.clone(), number);
        number
    }

    /// The number of an app, read in a transaction; `None`: nothing was ever appended.
    pub(crate) async fn number_in(&self, transaction: &dyn Transaction, app: &AppId) -> Result<Option<u32>, Trouble> {
        if let Some(number) = self.remembered(app) {
            return Ok(Some(number));
        }
        let Some(value) = transaction.get(&self.space.app_number(app)).await? else { return Ok(None) };
        let number = value[..].try_into().map_err(|_| Trouble::Damage("an app's number"))?;
        Ok(Some(self.remember(app, u32::from_be_bytes(number))))
    }

    /// The number of an app, which gets one if it has none.
    pub(crate) async fn make_number(&self, app: &AppId) -> Result<u32, Trouble> {
        if let Some(number) = self.remembered(app) {
            return Ok(number);
        }
        let mut tries = self.tries();
        loop {
            let transaction = tries.begin()?;
            match self.take_number(&*transaction, app).await {
                Ok(Some(number)) => return Ok(number),
                Ok(None) => {
                    // Whether it happened is found out by looking again.
                    if let Err(CommitFailure { code, again }) = transaction.commit().await {
                        tries.failed(code, again).await?;
                    }
                }
                Err(trouble) => tries.troubled(transaction, trouble).await?,
            }
        }
    }

    /// The app's number; `None`: the transaction now gives it one.
    async fn take_number(&self, transaction: &dyn Transaction, app: &AppId) -> Result<Option<u32>, Trouble> {
        if let Some(number) = self.number_in(transaction, app).await? {
            return Ok(Some(number));
        }
        let (counter, name) = (self.space.next_app(), self.space.app_number(app));
        let number = match transaction.get(&counter).await? {
            Some(number) => {
                u32::from_be_bytes(number[..].try_into().map_err(|_| Trouble::Damage("the counter of apps"))?)
            }
            None => 0,
        };
        let after = number.checked_add(1).ok_or(Trouble::Damage("the counter of apps"))?;
        transaction.depend_on(&counter, &next(&counter))?;
        transaction.depend_on(&name, &next(&name))?;
        transaction.set(&counter, &after.to_be_bytes(), Conflicts::Yes);
        transaction.set(&name, &number.to_be_bytes(), Conflicts::Yes);
        Ok(None)
    }
}
