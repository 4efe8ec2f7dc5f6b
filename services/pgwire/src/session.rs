//! A session: from its first message to its last. Who it is, what it asks in the simple protocol, its settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_chassis::{ErrorCode, Shutdown};
use bigpeer_sql::{Door, Language, Params, Question, SqlContext, SqlUser};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::backend::{self, ColumnDescription, TransactionState};
use crate::column::describe;
use crate::errors::PgError;
use crate::extended::{Portal, Statement};
use crate::frontend::{First, MAX_MESSAGE_BYTES, MAX_PASSWORD_BYTES, Message};
use crate::io::{Ended, Io};
use crate::listener::{PgSettings, Sessions};
use crate::run::{Running, Stop, unless_stopped};
use crate::words::{AS_OF, TRANSACTION, Word, is_accepted, word};
use crate::{metrics, split};

/// What the server says about itself when a session begins, and when it is asked.
const PARAMETERS: [(&str, &str); 11] = [
    ("server_version", "16.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "on"),
    ("in_hot_standby", "off"),
];

pub(crate) struct Session {
    pub(crate) io: Io,
    pub(crate) context: SqlContext,
    pub(crate) settings: PgSettings,
    app: String,
    /// Proven again for each statement: a key that is revoked opens nothing more.
    password: String,
    /// Changes when the client cancels.
    pub(crate) cancelled: watch::Receiver<u64>,
    pub(crate) transaction: TransactionState,
    as_of: Option<u64>,
    /// The transaction that the last answer was true at: no later one is of an older state.
    last: Option<u64>,
    pub(crate) statements: BTreeMap<String, Statement>,
    pub(crate) portals: BTreeMap<String, Portal>,
}

/// Talks with the client of `io` until one of them leaves.
pub(crate) async fn run(mut io: Io, context: SqlContext, sessions: Arc<Sessions>, shutdown: Shutdown) {
    let settings = sessions.settings().clone();
    let begun = timeout(settings.startup_timeout, begin(&mut io, &context, &sessions)).await;
    let (app, password, place) = match begun {
        Ok(Ok(Some(begun))) => begun,
        Ok(Ok(None)) => return,
        Ok(Err(Ended::Malformed(malformed))) => {
            metrics::refused("malformed");
            return last_words(&mut io, &PgError::fatal("08P01", malformed.0)).await;
        }
        Ok(Err(Ended::Gone | Ended::Silent)) | Err(_) => return metrics::refused("left"),
    };
    metrics::sessions(1.0);
    let mut session = Session {
        io,
        context,
        settings,
        app,
        password,
        cancelled: place.cancelled(),
        transaction: TransactionState::Idle,
        as_of: None,
        last: None,
        statements: BTreeMap::new(),
        portals: BTreeMap::new(),
    };
    let ended = session.talk(&shutdown).await;
    // Queries end before their session.
    session.portals.clear();
    let word = match ended {
        Ok(()) | Err(Ended::Gone) => None,
        Err(Ended::Silent) => Some(PgError::fatal("57P05", "the session was idle for too long")),
        Err(Ended::Malformed(malformed)) => Some(PgError::fatal("08P01", malformed.0)),
    };
    if let Some(word) = word {
        last_words(&mut session.io, &word).await;
    }
    metrics::sessions(-1.0);
}

async fn last_words(io: &mut Io, error: &PgError) {
    backend::error(&mut io.out, error);
    let _client_may_be_gone = io.send().await;
}

/// Who the client is: its app, its key, its place among the sessions. None when there is no session to be.
async fn begin(
    io: &mut Io,
    context: &SqlContext,
    sessions: &Arc<Sessions>,
) -> Result<Option<(String, String, crate::listener::Place)>, Ended> {
    let (minor, parameters) = loop {
        match io.first().await? {
            First::Tls => match &sessions.settings().tls {
                Some(tls) if !io.is_encrypted() => io.encrypt(tls).await?,
                Some(_) | None => io.refuse_encryption().await?,
            },
            First::Gss => io.refuse_encryption().await?,
            First::Cancel { process, secret } => {
                sessions.cancel(process, secret);
                return Ok(None);
            }
            First::Startup { minor, parameters } => break (minor, parameters),
        }
    };
    if sessions.settings().tls.is_some() && !io.is_encrypted() {
        metrics::refused("unencrypted");
        let error = PgError {
            hint: Some("connect with sslmode=require or better".to_owned()),
            ..PgError::fatal("28000", "this server takes encrypted connections only")
        };
        last_words(io, &error).await;
        return Ok(None);
    }
    let unknown: Vec<&str> = parameters.keys().map(String::as_str).filter(|name| name.starts_with("_pq_.")).collect();
    if minor > 0 || !unknown.is_empty() {
        backend::negotiate(&mut io.out, &unknown);
    }
    backend::ask_for_password(&mut io.out);
    io.send().await?;
    let Message::Password(password) = io.next(MAX_PASSWORD_BYTES, sessions.settings().startup_timeout).await? else {
        return Err(Ended::Gone);
    };
    let app = parameters.get("database").or_else(|| parameters.get("user")).cloned().unwrap_or_default();
    if let Err(error) = context.user(&app, &password) {
        metrics::refused("unauthorized");
        let error = match error.code {
            ErrorCode::Unauthorized => PgError {
                hint: Some("the database is the app's id, the password an API key of it".to_owned()),
                ..PgError::fatal("28P01", "no valid API key for this app")
            },
            _ => PgError { fatal: true, ..PgError::of(&error, "") },
        };
        last_words(io, &error).await;
        return Ok(None);
    }
    let place = sessions.enter();
    backend::authenticated(&mut io.out);
    for (name, value) in PARAMETERS {
        backend::parameter(&mut io.out, name, value);
    }
    let name = parameters.get("application_name").map_or("", String::as_str);
    backend::parameter(&mut io.out, "application_name", name);
    backend::key(&mut io.out, place.process(), place.secret());
    backend::ready(&mut io.out, TransactionState::Idle);
    io.send().await?;
    Ok(Some((app, password, place)))
}

impl Session {
    async fn talk(&mut self, shutdown: &Shutdown) -> Result<(), Ended> {
        // After an error everything up to the next sync is skipped.
        let mut skipping = false;
        loop {
            let message = tokio::select! {
                message = self.io.next(MAX_MESSAGE_BYTES, self.settings.idle_timeout) => message?,
                () = shutdown.cancelled() => {
                    last_words(&mut self.io, &PgError::fatal("57P01", "the server is shutting down")).await;
                    return Ok(());
                }
            };
            // A cancel that came too late is for nothing.
            self.cancelled.mark_unchanged();
            match message {
                Message::Terminate => return Ok(()),
                Message::Sync => {
                    skipping = false;
                    if self.transaction != TransactionState::Begun {
                        self.portals.clear();
                    }
                    self.ready().await?;
                }
                Message::Query(text) if !skipping => {
                    self.portals.clear();
                    self.simple(&text).await?;
                }
                Message::Flush if !skipping => self.io.send().await?,
                Message::Password(_) => {
                    return Err(Ended::Malformed(crate::frontend::Malformed("a password that nobody asked for")));
                }
                _ if skipping => {}
                message => match self.extended(message).await {
                    Ok(()) => self.io.send_if_full().await?,
                    Err(Stop::Ended(ended)) => return Err(ended),
                    Err(Stop::Error(error)) => {
                        skipping = true;
                        self.failed(&error);
                        self.io.send().await?;
                    }
                },
            }
        }
    }

    async fn ready(&mut self) -> Result<(), Ended> {
        backend::ready(&mut self.io.out, self.transaction);
        self.io.send().await
    }

    fn failed(&mut self, error: &PgError) {
        metrics::statement(error.sqlstate);
        backend::error(&mut self.io.out, error);
        if self.transaction == TransactionState::Begun {
            self.transaction = TransactionState::Failed;
        }
    }

    /// The statements of `text`, one after the other, up to the first that fails.
    async fn simple(&mut self, text: &str) -> Result<(), Ended> {
        let statements = split::statements(text);
        if statements.is_empty() {
            backend::empty_query(&mut self.io.out);
        }
        if statements.len() > split::MAX_STATEMENTS {
            let message = format!("more than {} statements at once", split::MAX_STATEMENTS);
            self.failed(&PgError::new("54000", message));
            return self.ready().await;
        }
        for statement in statements {
            match self.one(statement).await {
                Ok(()) => metrics::statement("00000"),
                Err(Stop::Ended(ended)) => return Err(ended),
                Err(Stop::Error(error)) => {
                    self.failed(&error);
                    break;
                }
            }
        }
        self.ready().await
    }

    async fn one(&mut self, statement: &str) -> Result<(), Stop> {
        let word = word(statement);
        self.check_transaction(&word)?;
        if word != Word::Query {
            let row = self.command(&word)?;
            if let Some((name, value)) = row {
                backend::columns(&mut self.io.out, &[shown_column(&name)]);
                self.show(&value);
            }
            return Ok(());
        }
        let mut running = self.ask(statement.to_owned(), Params::default(), Vec::new()).await?;
        backend::columns(&mut self.io.out, &describe(running.schema(), &[]));
        running.send(&mut self.io, &mut self.cancelled, 0).await?;
        backend::complete(&mut self.io.out, &format!("SELECT {}", running.sent));
        Ok(())
    }

    /// After a failure only the end of the transaction is accepted.
    pub(crate) fn check_transaction(&self, word: &Word) -> Result<(), PgError> {
        if self.transaction == TransactionState::Failed && !matches!(word, Word::Commit | Word::Rollback) {
            let message = "the transaction has failed; statements are ignored until it ends";
            return Err(PgError::new("25P02", message));
        }
        Ok(())
    }

    /// Starts a query.
    pub(crate) async fn ask(&mut self, text: String, params: Params, formats: Vec<bool>) -> Result<Running, Stop> {
        let user = self.user()?;
        let question = self.question(text.clone(), params);
        let context = self.context.clone();
        let asked = unless_stopped(&mut self.io, &mut self.cancelled, context.ask(&user, question)).await?;
        let answer = asked.map_err(|error| PgError::of(&error, &text))?;
        let running = Running::new(answer, formats, text);
        if self.as_of.is_none() {
            self.last = self.last.max(Some(running.transaction()));
        }
        Ok(running)
    }

    pub(crate) fn user(&self) -> Result<SqlUser, PgError> {
        self.context.user(&self.app, &self.password).map_err(|error| PgError::of(&error, ""))
    }

    pub(crate) fn question(&self, text: String, params: Params) -> Question {
        let (language, door) = (Language::Postgres, Door::Postgres);
        Question { text, params, language, as_of: self.as_of, after: self.last, door }
    }

    /// A statement about the session. Writes its completion; answers a name and a value when it is to show one, whose
    /// completion is then still to be written.
    pub(crate) fn command(&mut self, word: &Word) -> Result<Option<(String, String)>, PgError> {
        let tag = match word {
            Word::Query => return Ok(None),
            Word::Begin => {
                self.transaction = TransactionState::Begun;
                "BEGIN"
            }
            Word::Commit => {
                let failed = self.transaction == TransactionState::Failed;
                self.transaction = TransactionState::Idle;
                if failed { "ROLLBACK" } else { "COMMIT" }
            }
            Word::Rollback => {
                self.transaction = TransactionState::Idle;
                "ROLLBACK"
            }
            Word::Ignored(tag) => tag,
            Word::Set(name, value) => {
                self.set(name, value.as_deref())?;
                "SET"
            }
            Word::Show(name) => return Ok(Some((name.clone(), self.value(name)?))),
        };
        backend::complete(&mut self.io.out, tag);
        Ok(None)
    }

    /// Writes the only row of `SHOW`.
    pub(crate) fn show(&mut self, value: &str) {
        backend::row(&mut self.io.out, 1, |_, out| {
            out.extend_from_slice(value.as_bytes());
            true
        });
        backend::complete(&mut self.io.out, "SHOW");
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), PgError> {
        if name == AS_OF {
            self.as_of = match value {
                None => None,
                Some(value) => Some(value.parse().map_err(|_| {
                    PgError::new("22023", format!("{AS_OF} is the id of a transaction, a whole number, or DEFAULT"))
                })?),
            };
            return Ok(());
        }
        if is_accepted(name) || (name == "all" && value.is_none()) {
            return Ok(());
        }
        Err(PgError::new("42704", format!("there is no setting '{name}'")))
    }

    fn value(&self, name: &str) -> Result<String, PgError> {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        if let Some((_, value)) = PARAMETERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Ok((*value).to_owned());
        }
        Ok(match name {
            AS_OF => number(self.as_of),
            TRANSACTION => number(self.last),
            "transaction isolation level" | "transaction_isolation" | "default_transaction_isolation" => {
                "read committed".to_owned()
            }
            "transaction_read_only" => "on".to_owned(),
            "time zone" => "UTC".to_owned(),
            "search_path" => "public".to_owned(),
            "server_version_num" => "160000".to_owned(),
            "max_identifier_length" => "63".to_owned(),
            "statement_timeout" | "lock_timeout" => "0".to_owned(),
            _ => return Err(PgError::new("42704", format!("there is no setting '{name}'"))),
        })
    }
}

/// The column of `SHOW`.
pub(crate) fn shown_column(name: &str) -> ColumnDescription {
    ColumnDescription { name: name.replace(' ', "_"), oid: 25, len: -1, binary: false }
}
