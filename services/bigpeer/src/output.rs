//! Writing to standard output. A reader that went away (`| head`) is the end of a command, not a failure.

use std::io::{self, Write};

use crate::failure::Failure;

/// Writes `bytes` as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes JSON values, one a line.
pub(crate) fn json_lines<'a>(values: impl IntoIterator<Item = &'a bigpeer_crdt::Value>) -> Result<(), Failure> {
    let mut text = String::new();
    for value in values {
        text.push_str(&value.to_json().to_string());
        text.push('\n');
    }
    raw(text.as_bytes())
}

/// Writes a note for people to standard error; nothing depends on it.
pub(crate) fn note(text: &str) {
    let _gone = writeln!(io::stderr(), "{text}");
}
