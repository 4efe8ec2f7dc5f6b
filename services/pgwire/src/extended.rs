//! The extended protocol: statements that are prepared, portals with values, rows in pieces.

use arrow::datatypes::Field;
use bigpeer_sql::{Described, Params, pg_type};

use crate::backend;
use crate::column::describe;
use crate::errors::PgError;
use crate::frontend::{Bind, Message};
use crate::metrics;
use crate::parameters;
use crate::run::{Running, Stop, unless_stopped};
use crate::session::{Session, shown_column};
use crate::split;
use crate::words::{Word, word};

/// The type of a parameter that nobody has named.
const TEXT: u32 = 25;

/// A statement that was prepared.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Empty when there is none in the text.
    text: String,
    word: Word,
    /// The types of its parameters, as the client named them (0: not).
    types: Vec<u32>,
    described: Option<Described>,
}

impl Statement {
    /// The types of the parameters, as far as they are known.
    fn types(&self) -> Vec<u32> {
        let known = self.described.iter().flat_map(|described| &described.parameters);
        let known: Vec<u32> = known.map(|(_, kind)| oid(kind.as_ref())).collect();
        let count = known.len().max(self.types.len());
        (0..count)
            .map(|index| match self.types.get(index) {
                None | Some(0) => known.get(index).copied().unwrap_or_default(),
                Some(named) => *named,
            })
            .collect()
    }
}

fn oid(kind: Option<&arrow::datatypes::DataType>) -> u32 {
    kind.map_or(TEXT, |kind| pg_type(&Field::new("", kind.clone(), true)).oid)
}

/// A statement with values.
pub(crate) struct Portal {
    text: String,
    word: Word,
    params: Params,
    formats: Vec<bool>,
    /// The query, once it was described or executed.
    running: Option<Running>,
    ended: bool,
}

impl Session {
    /// Answers a message of the extended protocol.
    pub(crate) async fn extended(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Parse { name, text, types } => self.parse(name, &text, types)?,
            Message::Bind(bind) => self.bind(bind)?,
            Message::Describe { portal: false, name } => self.describe_statement(&name).await?,
            Message::Describe { portal: true, name } => self.describe_portal(&name).await?,
            Message::Execute { portal, max_rows } => self.execute(&portal, max_rows).await?,
            Message::Close { portal, name } => {
                if portal {
                    self.portals.remove(&name);
                } else {
                    self.statements.remove(&name);
                }
                backend::close_complete(&mut self.io.out);
            }
            Message::Flush | Message::Sync | Message::Terminate | Message::Query(_) | Message::Password(_) => {}
        }
        Ok(())
    }

    fn parse(&mut self, name: String, text: &str, types: Vec<u32>) -> Result<(), PgError> {
        if self.statements.len() >= self.settings.max_statements && !self.statements.contains_key(&name) {
            let message = format!("a session prepares at most {} statements", self.settings.max_statements);
            return Err(PgError::new("54000", message));
        }
        let mut statements = split::statements(text);
        if statements.len() > 1 {
            return Err(PgError::new("42601", "one statement at a time can be prepared"));
        }
        let text = statements.pop().unwrap_or_default().to_owned();
        let word = word(&text);
        self.statements.insert(name, Statement { text, word, types, described: None });
        backend::parse_complete(&mut self.io.out);
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), PgError> {
        let statement = self.statements.get(&bind.statement).ok_or_else(|| no_statement(&bind.statement))?;
        let values = parameters::values(&bind, &statement.types())?;
        if self.portals.len() >= self.settings.max_portals && !self.portals.contains_key(&bind.portal) {
            let message = format!("a session has at most {} portals", self.settings.max_portals);
            return Err(PgError::new("54000", message));
        }
        let portal = Portal {
            text: statement.text.clone(),
            word: statement.word.clone(),
            params: Params::positional(values),
            formats: bind.result_binary,
            running: None,
            ended: false,
        };
        self.portals.insert(bind.portal, portal);
        backend::bind_complete(&mut self.io.out);
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Stop> {
        let Some(mut statement) = self.statements.remove(name) else { return Err(no_statement(name).into()) };
        // A statement stays prepared when it cannot be described now.
        let described = self.describe_query(&mut statement).await;
        if described.is_ok() {
            backend::parameter_types(&mut self.io.out, &statement.types());
            match (&statement.described, &statement.word) {
                (Some(described), _) => backend::columns(&mut self.io.out, &describe(&described.schema, &[])),
                (None, Word::Show(name)) => backend::columns(&mut self.io.out, &[shown_column(name)]),
                (None, _) => backend::no_data(&mut self.io.out),
            }
        }
        self.statements.insert(name.to_owned(), statement);
        described
    }

    /// Finds out what the statement answers, if it is a query of which that is not known.
    async fn describe_query(&mut self, statement: &mut Statement) -> Result<(), Stop> {
        self.check_transaction(&statement.word)?;
        if statement.word == Word::Query && !statement.text.is_empty() && statement.described.is_none() {
            let user = self.user()?;
            let question = self.question(statement.text.clone(), Params::default());
            let context = self.context.clone();
            let described = context.describe(&user, question);
            let described = unless_stopped(&mut self.io, &mut self.cancelled, described).await?;
            statement.described = Some(described.map_err(|error| PgError::of(&error, &statement.text))?);
        }
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Stop> {
        let Some(mut portal) = self.portals.remove(name) else { return Err(no_portal(name).into()) };
        self.check_transaction(&portal.word)?;
        self.start(&mut portal).await?;
        match (&portal.running, &portal.word) {
            (Some(running), _) => {
                let columns = describe(running.schema(), &portal.formats);
                backend::columns(&mut self.io.out, &columns);
            }
            (None, Word::Show(name)) => backend::columns(&mut self.io.out, &[shown_column(name)]),
            (None, _) => backend::no_data(&mut self.io.out),
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// Starts the portal's query, if it has one that has not begun.
    async fn start(&mut self, portal: &mut Portal) -> Result<(), Stop> {
        if portal.word == Word::Query && !portal.text.is_empty() && portal.running.is_none() && !portal.ended {
            let asked = self.ask(portal.text.clone(), portal.params.clone(), portal.formats.clone());
            portal.running = Some(asked.await?);
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: u32) -> Result<(), Stop> {
        let Some(mut portal) = self.portals.remove(name) else { return Err(no_portal(name).into()) };
        if portal.text.is_empty() {
            backend::empty_query(&mut self.io.out);
            self.portals.insert(name.to_owned(), portal);
            return Ok(());
        }
        self.check_transaction(&portal.word)?;
        self.start(&mut portal).await?;
        if let Some(running) = &mut portal.running {
            let last = running.send(&mut self.io, &mut self.cancelled, max_rows).await?;
            if last {
                backend::complete(&mut self.io.out, &format!("SELECT {}", running.sent));
                metrics::statement("00000");
                portal.running = None;
                portal.ended = true;
            } else {
                backend::suspended(&mut self.io.out);
            }
        } else if portal.ended {
            backend::complete(&mut self.io.out, "SELECT 0");
        } else if let Some((_, value)) = self.command(&portal.word)? {
            self.show(&value);
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }
}

fn no_statement(name: &str) -> PgError {
    PgError::new("26000", format!("there is no prepared statement '{name}'"))
}

fn no_portal(name: &str) -> PgError {
    PgError::new("34000", format!("there is no portal '{name}'"))
}
