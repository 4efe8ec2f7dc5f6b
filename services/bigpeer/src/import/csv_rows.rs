//! CSV: the type of a column is the narrowest that all its values fit, so that a column never mixes types.

use std::fs::File;
use std::path::Path;

use bigpeer_crdt::{Object, Value};
use csv::{ReaderBuilder, StringRecord};

use super::rows::{Place, Reading, Row, RowError, file_error};

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// No value seen yet.
    Unknown,
    Bool,
    Int,
    Float,
    Text,
}

/// The columns of a file: names, types, and what stands for an absent value.
#[derive(Debug)]
pub(super) struct Columns {
    names: Vec<Box<str>>,
    types: Vec<Type>,
    nulls: Vec<String>,
}

fn is_int(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // A leading zero is a code (a ZIP, a phone number), not a number.
    (digits == "0" || !digits.starts_with('0'))
        && digits.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<i64>().is_ok()
}

fn is_float(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let code = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    !code
        && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

impl Type {
    fn widened(self, text: &str) -> Self {
        match self {
            Self::Text => Self::Text,
            Self::Unknown if is_bool(text) => Self::Bool,
            Self::Bool if is_bool(text) => Self::Bool,
            Self::Unknown | Self::Int if is_int(text) => Self::Int,
            Self::Unknown | Self::Int | Self::Float if is_float(text) => Self::Float,
            Self::Unknown | Self::Bool | Self::Int | Self::Float => Self::Text,
        }
    }

    fn value(self, text: &str) -> Value {
        let parsed = match self {
            Self::Bool => Some(Value::Bool(text.eq_ignore_ascii_case("true"))),
            Self::Int => text.parse::<i64>().ok().map(Value::Int),
            Self::Float => text.parse::<f64>().ok().map(Value::Float),
            Self::Unknown | Self::Text => None,
        };
        parsed.unwrap_or_else(|| Value::from(text))
    }
}

impl Columns {
    fn is_null(&self, text: &str) -> bool {
        text.is_empty() || self.nulls.iter().any(|null| null == text)
    }

    /// The fields of a record; absent values are left out.
    fn fields(&self, record: &StringRecord) -> Object {
        let columns = self.names.iter().zip(&self.types).zip(record);
        columns
            .filter(|(_, text)| !self.is_null(text))
            .map(|((name, kind), text)| (name.clone(), kind.value(text)))
            .collect()
    }
}

fn reader(file: &Path) -> Result<csv::Reader<File>, RowError> {
    let opened = File::open(file).map_err(|cause| file_error(file, cause))?;
    // Flexible: a row with other fields than the header is this module's own error, with the row's text.
    Ok(ReaderBuilder::new().flexible(true).buffer_capacity(1 << 18).from_reader(opened))
}

fn check(file: &Path, columns: usize, record: &StringRecord) -> Result<Place, RowError> {
    let place = Place { file: file.to_owned(), line: record.position().map_or(0, csv::Position::line) };
    if record.len() == columns {
        return Ok(place);
    }
    let problem = format!(
        "{} fields where the header names {columns}; quote fields that hold commas, or pass --skip-bad-rows FILE to set such rows aside",
        record.len()
    );
    Err(RowError::Row { place, problem, text: record.iter().collect::<Vec<_>>().join(",") })
}

fn malformed(file: &Path, error: &csv::Error) -> RowError {
    let line = error.position().map_or(0, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => format!("field {} is not UTF-8; convert the file first", err.field() + 1),
        _ => error.to_string(),
    };
    RowError::Row { place: Place { file: file.to_owned(), line }, problem, text: String::new() }
}

/// Reads the file from end to end: its columns' types, how many good rows, and the bad ones.
pub(super) fn examine(file: &Path, reading: &Reading) -> Result<(Columns, u64, Vec<RowError>), RowError> {
    let mut reader = reader(file)?;
    let header = reader.headers().map_err(|cause| file_error(file, cause))?;
    let names: Vec<Box<str>> = header.iter().map(|name| Box::from(name.trim())).collect();
    if names.is_empty() {
        return Err(file_error(file, "it is empty; the first line must name the columns"));
    }
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(file_error(file, format!("column {} has no name in the header", at + 1)));
        }
        if names.iter().take(at).any(|earlier| earlier == name) {
            return Err(file_error(file, format!("the header names column '{name}' twice")));
        }
    }
    let mut columns = Columns { types: vec![Type::Unknown; names.len()], names, nulls: reading.nulls.clone() };
    let (mut rows, mut bad) = (0, Vec::new());
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => return Ok((columns, rows, bad)),
            Ok(true) => match check(file, columns.names.len(), &record) {
                Ok(_) => {
                    for (at, text) in record.iter().enumerate() {
                        if !columns.is_null(text)
                            && let Some(kind) = columns.types.get_mut(at)
                        {
                            *kind = kind.widened(text);
                        }
                    }
                    rows += 1;
                }
                Err(error) => bad.push(error),
            },
            Err(error) if error.is_io_error() => return Err(file_error(file, error)),
            Err(error) => bad.push(malformed(file, &error)),
        }
    }
}

/// The rows of an examined file.
pub(super) fn rows<'a>(
    file: &'a Path,
    columns: &'a Columns,
) -> Result<impl Iterator<Item = Result<Row, RowError>> + 'a, RowError> {
    let mut reader = reader(file)?;
    let mut record = StringRecord::new();
    Ok(std::iter::from_fn(move || match reader.read_record(&mut record) {
        Ok(false) => None,
        Ok(true) => {
            let place = check(file, columns.names.len(), &record);
            Some(place.map(|place| Row { place, fields: columns.fields(&record) }))
        }
        Err(error) => Some(Err(malformed(file, &error))),
    }))
}
