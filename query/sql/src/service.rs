//! `SqlContext`: SQL as every door has it. Who asks, for what; admission; then an [`Answer`] to read. HTTP is in this crate;
//! other doors (Flight SQL, the PostgreSQL wire protocol) are services over this.

use std::sync::Arc;

use bigpeer_chassis::{Access, Account, ApiError, Catalogue, ErrorCode, KeyLimits, SystemCollections, app_of};
use bigpeer_tables::{DocumentStore, Stores};
use bigpeer_types::AppId;
use datafusion::error::DataFusionError;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::SqlSettings;
use crate::answer::Answer;
use crate::catalog::Scope;
use crate::dql::DqlColumns;
use crate::engine::{Described, Engine, Text};
use crate::language::Language;
use crate::metrics::{self, Door, Outcome};
use crate::params::Params;
use crate::settings::Share;
use crate::turns::Turns;

/// Who asks, after it was proven: good for one request, so that a key that is revoked opens nothing more.
#[derive(Clone, Debug)]
pub struct SqlUser {
    app: AppId,
    /// The key or user: what turns are counted by.
    account: Account,
    access: Access,
    share: Share,
}

impl SqlUser {
    /// Whose collections it reads.
    #[must_use]
    pub const fn app(&self) -> &AppId {
        &self.app
    }

    /// The key or user.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }
}

/// A query, and how it is to be answered.
#[derive(Clone, Debug)]
pub struct Question {
    /// One SQL query.
    pub text: String,
    /// The values of its parameters.
    pub params: Params,
    /// In which SQL it is written.
    pub language: Language,
    /// Answer from the state after this transaction, and nothing later.
    pub as_of: Option<u64>,
    /// Wait until this transaction is visible.
    pub after: Option<u64>,
    /// Where it came in.
    pub door: Door,
}

impl Question {
    /// `text` through `door`, about the present, without parameters.
    #[must_use]
    pub fn new(text: impl Into<String>, door: Door) -> Self {
        let language = Language::Own;
        Self { text: text.into(), params: Params::default(), language, as_of: None, after: None, door }
    }
}

/// What SQL is given by the process that serves it.
#[derive(Clone)]
pub struct SqlContext {
    stores: Arc<dyn Stores>,
    catalogue: Arc<Catalogue>,
    settings: SqlSettings,
    engine: Arc<Engine>,
    turns: Arc<Turns>,
    system: SystemCollections,
}

impl SqlContext {
    /// SQL over the apps of `stores`, for the keys and tokens of `catalogue`. Queries run on `threads`, which are not those that
    /// answer whoever asks for little.
    ///
    /// # Errors
    /// When DataFusion cannot be set up, or the directory for what does not fit into memory.
    pub fn new(
        stores: Arc<dyn Stores>,
        catalogue: Arc<Catalogue>,
        settings: SqlSettings,
        threads: Handle,
    ) -> Result<Self, DataFusionError> {
        let engine = Arc::new(Engine::new(&settings, threads)?);
        let turns = Arc::new(Turns::new(&settings, Arc::clone(catalogue.clock())));
        Ok(Self { stores, catalogue, settings, engine, turns, system: SystemCollections::default() })
    }

    /// With the collections of `system` as tables for keys that may read everything.
    #[must_use]
    pub fn with_system(self, system: SystemCollections) -> Self {
        Self { system, ..self }
    }

    /// The same tables and engine for scans of DQL.
    #[must_use]
    pub fn dql(&self) -> DqlColumns {
        DqlColumns::new(Arc::clone(&self.engine), &self.settings)
    }

    /// Queries that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.turns.running()
    }

    /// Memory that the operators of all queries hold now, in bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.engine.reserved()
    }

    /// Whose `credential` it is, an API key or an access token of `app`, when it may read anything.
    ///
    /// # Errors
    /// `unauthorized`, whatever the reason; `forbidden` for who may not read; `quota_exceeded` for one request too many.
    pub fn user(&self, app: &str, credential: &str) -> Result<SqlUser, ApiError> {
        let app = app_of(app)?;
        let principal = self.catalogue.authenticate_credential(&app, bigpeer_chassis::Door::Sql, credential)?;
        self.catalogue.admit(&app, &principal)?;
        let access = principal.permissions().read.clone();
        let account = principal.account();
        if access == Access::default() {
            return Err(ApiError::new(ErrorCode::Forbidden, "this key may not read anything"));
        }
        let limits = match &account {
            Account::Key(name) => self.catalogue.api_key(&app, name).map(|key| key.limits).unwrap_or_default(),
            Account::User { .. } => KeyLimits::default(),
        };
        let share = Share::new(&self.settings, self.catalogue.quota(&app).within(limits));
        Ok(SqlUser { app, account, access, share })
    }

    /// Runs a query. Dropping the answer stops it.
    ///
    /// # Errors
    /// When it cannot be understood, admitted or started.
    pub async fn ask(&self, user: &SqlUser, question: Question) -> Result<Answer, ApiError> {
        let store = self.store(user)?;
        self.wait_for_transaction(&store, question.after).await?;
        let meter = self.catalogue.meter(&user.app);
        let mut turn = self.turns.take(&user.app, &user.account, user.share, &meter, question.door).await?;
        let scope = self.scope(user, store, question.language);
        let text = Text { text: question.text, params: question.params, as_of: question.as_of };
        let planned = turn.within(Arc::clone(&self.engine).plan(scope, text)).await;
        metrics::planned(turn.elapsed().as_secs_f64());
        match planned {
            Ok(planned) => Answer::start(planned, turn),
            Err(error) => {
                turn.ends(Outcome::Failed(error.code));
                Err(error)
            }
        }
    }

    /// What a query would answer, and what parameters it needs; runs nothing.
    ///
    /// # Errors
    /// When it cannot be understood or admitted.
    pub async fn describe(&self, user: &SqlUser, question: Question) -> Result<Described, ApiError> {
        let store = self.store(user)?;
        let meter = self.catalogue.meter(&user.app);
        let mut turn = self.turns.take(&user.app, &user.account, user.share, &meter, question.door).await?;
        let scope = self.scope(user, store, question.language);
        let text = Text { text: question.text, params: question.params, as_of: question.as_of };
        let described = turn.within(Arc::clone(&self.engine).describe(scope, text)).await;
        turn.ends(described.as_ref().map_or_else(|error| Outcome::Failed(error.code), |_| Outcome::Finished));
        described
    }

    fn store(&self, user: &SqlUser) -> Result<Arc<DocumentStore>, ApiError> {
        let unserved = || ApiError::new(ErrorCode::Unavailable, "this app is not served here now; try again");
        self.stores.store(&user.app).ok_or_else(unserved)
    }

    fn scope(&self, user: &SqlUser, store: Arc<DocumentStore>, language: Language) -> Scope {
        let (access, share) = (user.access.clone(), user.share);
        Scope { store, access, system: self.system.clone(), language, share }
    }

    async fn wait_for_transaction(&self, store: &DocumentStore, version: Option<u64>) -> Result<(), ApiError> {
        let Some(version) = version else { return Ok(()) };
        match timeout(self.settings.transaction_wait, store.wait_for_version(version)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the tables of an app do not follow its log");
                Err(ApiError::new(
                    ErrorCode::Unavailable,
                    "this app's data cannot be brought up to date now; try again",
                ))
            }
            Err(_) => {
                let message = format!("transaction {version} is not visible here yet; see whether the id is right");
                Err(ApiError::new(ErrorCode::NotFound, message))
            }
        }
    }
}

impl std::fmt::Debug for SqlContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}
