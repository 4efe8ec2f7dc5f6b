//! The shell: reads statements, runs them, says how long it took. Ctrl-C gives up what runs, Ctrl-D ends.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Instant;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use super::complete::{Assistant, Names};
use super::format::SqlFormat;
use super::server::Server;
use super::split;
use crate::failure::Failure;
use crate::output;

/// Lines that are remembered.
const HISTORY: usize = 2000;

const HELP: &str = "\
A statement ends with ';' and may take several lines. Tab completes collections, fields and words.
  \\d              the collections
  \\d NAME         the fields of a collection
  \\format NAME    how rows are written: table, ndjson, json, csv
  \\timing         whether times are shown, on or off
  \\?              this
  \\q              end (as Ctrl-D does)
Ctrl-C gives up what is running.";

struct Shell {
    server: Server,
    names: Names,
    format: SqlFormat,
    timing: bool,
}

/// What a line came to.
enum Next {
    GoOn,
    End,
}

/// Reads and runs statements until the end.
pub(super) async fn run(server: Server, format: SqlFormat) -> Result<(), Failure> {
    let names = Names::default();
    if let Err(failure) = names.refresh(&server).await {
        output::note(&format!("names of collections cannot be completed: {failure}"));
    }
    let mut editor = editor(&server, names.clone())?;
    let mut history = History::open(&mut editor, server.language.name());
    output::note(&format!("{}, app {}. \\? for help, \\q to end.", server.client.url, server.client.app));
    let prompt = format!("{}> ", server.language.name());
    let mut shell = Shell { server, names, format, timing: true };
    loop {
        let line = tokio::task::block_in_place(|| editor.readline(&prompt));
        match line {
            Ok(text) => {
                let text = text.trim();
                if text.is_empty() {
                    continue;
                }
                history.add(&mut editor, text);
                if let Next::End = shell.take(text).await? {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::new(format!("cannot read from the terminal: {error}"))),
        }
    }
    Ok(())
}

fn editor(server: &Server, names: Names) -> Result<Editor<Assistant, FileHistory>, Failure> {
    let cannot = |error: ReadlineError| Failure::new(format!("this terminal cannot be used: {error}"));
    let config = Config::builder().completion_type(CompletionType::List).max_history_size(HISTORY).map_err(cannot)?;
    let config = config.history_ignore_space(true).build();
    let mut editor = Editor::with_config(config).map_err(cannot)?;
    editor.set_helper(Some(Assistant::new(server.language, names)));
    Ok(editor)
}

/// Lines of before, kept in the user's directory for state, if there is one. Statements hold data: nobody else may read them.
struct History {
    file: Option<PathBuf>,
}

impl History {
    fn open(editor: &mut Editor<Assistant, FileHistory>, language: &str) -> Self {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
        let Some(dir) = state.or_else(home).map(|dir| dir.join("bigpeer")) else { return Self { file: None } };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        let mut history = Self { file: Some(dir.join(format!("{language}_history"))) };
        history.hold(made.map_err(|error| error.to_string()));
        if let Some(file) = &history.file {
            // There is none before the first time.
            let _ = editor.load_history(file);
        }
        history
    }

    /// At once: the terminal may be closed at any moment. The file is made readable by its owner only.
    fn add(&mut self, editor: &mut Editor<Assistant, FileHistory>, line: &str) {
        let added = editor.add_history_entry(line);
        let Some(file) = &self.file else { return };
        let kept = added.and_then(|_| editor.append_history(file)).map_err(|error| error.to_string());
        self.hold(kept);
    }

    /// Says once what cannot be kept; all else goes on.
    fn hold(&mut self, done: Result<(), String>) {
        if let (Err(error), Some(file)) = (done, &self.file) {
            output::note(&format!("the history cannot be kept in {}: {error}", file.display()));
            self.file = None;
        }
    }
}

impl Shell {
    async fn take(&mut self, text: &str) -> Result<Next, Failure> {
        if let Some(command) = text.strip_prefix('\\') {
            return self.command(command.trim_end_matches(';').trim());
        }
        for statement in split::statements(text, self.server.language.escapes()) {
            if !self.statement(statement).await {
                break;
            }
        }
        Ok(Next::GoOn)
    }

    /// Runs a statement; whether it was done.
    #[allow(clippy::disallowed_methods, reason = "it shows people how long they waited")]
    async fn statement(&mut self, statement: &str) -> bool {
        let started = Instant::now();
        let done = tokio::select! {
            done = self.server.run(statement, self.format, None) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::new("given up; a mutation may have been carried out")),
        };
        let taken = started.elapsed();
        let done = match done {
            Ok(done) => done,
            Err(failure) => {
                output::note(&format!("error: {failure}"));
                return false;
            }
        };
        done.note();
        let rows = done.rows.map(|rows| format!("{rows} {}", if rows == 1 { "row" } else { "rows" }));
        let time = self.timing.then(|| format!("{:.1} ms", taken.as_secs_f64() * 1000.0));
        let said: Vec<String> = rows.into_iter().chain(time).collect();
        if !said.is_empty() {
            output::note(&said.join(", "));
        }
        if done.touched.is_some_and(|touched| touched > 0) {
            // Completion is a convenience: without news it knows what it knew.
            let _ = self.names.refresh(&self.server).await;
        }
        true
    }

    fn command(&mut self, command: &str) -> Result<Next, Failure> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("q" | "quit" | "exit", _) => return Ok(Next::End),
            ("?" | "help" | "h", _) => output::note(HELP),
            ("d", "") => self.names.collections().iter().try_for_each(|name| output::line(name))?,
            ("d", collection) => match self.names.fields(collection) {
                Some(fields) => fields.iter().try_for_each(|field| output::line(field))?,
                None => output::note(&format!("there is no collection '{collection}'")),
            },
            ("timing", _) => {
                self.timing = match rest {
                    "on" => true,
                    "off" => false,
                    _ => !self.timing,
                };
                output::note(if self.timing { "times are shown" } else { "times are not shown" });
            }
            ("format", _) => match <SqlFormat as clap::ValueEnum>::from_str(rest, true) {
                Ok(format) if format.is_text() => self.format = format,
                _ => output::note("\\format takes table, ndjson, json or csv"),
            },
            _ => output::note(&format!("there is no command \\{name}; \\? lists them")),
        }
        Ok(Next::GoOn)
    }
}
