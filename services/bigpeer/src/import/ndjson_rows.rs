//! NDJSON: one JSON object a line; empty lines are passed over.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use bigpeer_crdt::{Object, Value};

use super::rows::{Place, Row, RowError, file_error};

/// Longest line that is read, in bytes: a document may not be larger anyway, as JSON text at most a few times its size.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

fn parse(line: &[u8]) -> Result<Object, String> {
    let json: serde_json::Value = serde_json::from_slice(line)
        .map_err(|error| format!("not valid JSON: {error} (each line must be one whole object)"))?;
    match Value::from_json(json).map_err(|error| error.to_string())? {
        Value::Object(fields) => Ok(fields),
        _ => Err("not a JSON object; each line must be one object, like {\"name\": \"value\"}".to_owned()),
    }
}

/// How many good rows, and the bad ones.
pub(super) fn examine(file: &Path) -> Result<(u64, Vec<RowError>), RowError> {
    let (mut good, mut bad) = (0, Vec::new());
    for row in rows(file)? {
        match row {
            Ok(_) => good += 1,
            Err(error @ RowError::Row { .. }) => bad.push(error),
            Err(error @ RowError::File { .. }) => return Err(error),
        }
    }
    Ok((good, bad))
}

/// The rows of the file.
pub(super) fn rows(file: &Path) -> Result<impl Iterator<Item = Result<Row, RowError>> + '_, RowError> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(file).map_err(|cause| file_error(file, cause))?);
    let (mut number, mut ended) = (0, false);
    let mut line = Vec::new();
    Ok(std::iter::from_fn(move || {
        while !ended {
            line.clear();
            number += 1;
            match std::io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => ended = true,
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => {
                    let place = Place { file: file.to_owned(), line: number };
                    return Some(match parse(&line) {
                        Ok(fields) => Ok(Row { place, fields }),
                        Err(problem) => {
                            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                            Err(RowError::Row { place, problem, text })
                        }
                    });
                }
                Err(cause) => {
                    ended = true;
                    return Some(Err(file_error(file, cause)));
                }
            }
        }
        None
    }))
}
