//! Strings. Positions count characters, from 0.

#![allow(clippy::wildcard_enum_match_arm, reason = "each of these modules names its own functions")]

use std::fmt::Write;

use bigpeer_crdt::Value;

use super::{Function, MAX_TEXT_BYTES};
use crate::eval::pattern::regex;
use crate::eval::{Cell, Env};

/// None when `function` is not one of these, or its arguments are of wrong types.
pub(super) fn call<'a>(function: Function, cells: &[Cell<'a>], env: Env<'_>) -> Option<Cell<'a>> {
    let text = |at: usize| cells.get(at).and_then(Cell::text);
    let whole = |at: usize| match cells.get(at).and_then(Cell::get) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    Some(match function {
        Function::Concat => concat(cells),
        Function::StartsWith => Cell::of(text(0)?.starts_with(text(1)?)),
        Function::EndsWith => Cell::of(text(0)?.ends_with(text(1)?)),
        Function::Contains => Cell::of(text(0)?.contains(text(1)?)),
        Function::RegexpLike => {
            let regex =
                env.spend(1000).then(|| regex(text(1)?, if cells.len() > 2 { text(2)? } else { "" }).ok())??;
            Cell::of(regex.is_match(text(0)?))
        }
        Function::CharLength => Cell::of(count(text(0)?.chars().count())),
        Function::ByteLength => Cell::of(match cells.first()?.get()? {
            Value::Bytes(bytes) => count(bytes.len()),
            value => count(value.as_str()?.len()),
        }),
        Function::Lower => Cell::of(text(0)?.to_lowercase()),
        Function::Upper => Cell::of(text(0)?.to_uppercase()),
        Function::Substr => Cell::of(substr(text(0)?, whole(1)?, if cells.len() > 2 { Some(whole(2)?) } else { None })),
        Function::Pos => {
            let (subject, sought) = (text(0)?, text(1)?);
            Cell::of(
                subject
                    .find(sought)
                    .and_then(|at| subject.get(..at))
                    .map_or(-1, |before| count(before.chars().count())),
            )
        }
        Function::Split => {
            let (subject, separator) = (text(0)?, text(1)?);
            let parts: Vec<Value> = if separator.is_empty() {
                subject.chars().map(|ch| Value::from(ch.to_string())).collect()
            } else {
                subject.split(separator).map(Value::from).collect()
            };
            Cell::of(parts)
        }
        Function::Joinstr => joinstr(text(0)?, cells.get(1..)?)?,
        Function::Trim | Function::Ltrim | Function::Rtrim => {
            Cell::of(trim(function, text(0)?, if cells.len() > 1 { Some(text(1)?) } else { None }))
        }
        Function::Lpad | Function::Rpad => {
            pad(function, text(0)?, whole(1)?, if cells.len() > 2 { text(2)? } else { " " })?
        }
        Function::Repeat => {
            let (subject, times) = (text(0)?, usize::try_from(whole(1)?).ok()?);
            let fits = subject.len().checked_mul(times).is_some_and(|bytes| bytes <= MAX_TEXT_BYTES);
            if fits { Cell::of(subject.repeat(times)) } else { Cell::Missing }
        }
        Function::SerializeJson => Cell::of(serde_json::to_string(&cells.first()?.get()?.to_json()).ok()?),
        Function::DeserializeJson => Cell::Own(Value::from_json(serde_json::from_str(text(0)?).ok()?).ok()?),
        _ => return None,
    })
}

/// A length as a number of the language.
fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// `a || b`, `concat(a, …)`: strings, or arrays; NULL and MISSING as everywhere.
pub(crate) fn concat<'a>(cells: &[Cell<'_>]) -> Cell<'a> {
    if cells.iter().any(Cell::is_missing) {
        return Cell::Missing;
    }
    if cells.iter().any(Cell::is_null) {
        return Cell::NULL;
    }
    let mut out = String::new();
    for cell in cells {
        match cell.get() {
            Some(Value::String(text)) => out.push_str(text),
            // Numbers and truth values are written out; arrays and objects have functions of their own.
            Some(Value::Int(number)) => _ = write!(out, "{number}"),
            Some(Value::UInt(number)) => _ = write!(out, "{number}"),
            Some(Value::Float(number)) => _ = write!(out, "{number:?}"),
            Some(Value::Bool(flag)) => _ = write!(out, "{flag}"),
            Some(Value::Null | Value::Bytes(_) | Value::Array(_) | Value::Object(_)) | None => return Cell::Missing,
        }
        if out.len() > MAX_TEXT_BYTES {
            return Cell::Missing;
        }
    }
    Cell::of(out)
}

/// From character `start`, from the end when negative.
fn substr(text: &str, start: i64, length: Option<i64>) -> String {
    let start = if start < 0 { count(text.chars().count()).saturating_add(start) } else { start };
    let Ok(skip) = usize::try_from(start) else { return String::new() };
    let take = length.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(0));
    text.chars().skip(skip).take(take).collect()
}

/// `joinstr(separator, a, …)`: strings and arrays of strings.
fn joinstr<'a>(separator: &str, cells: &[Cell<'_>]) -> Option<Cell<'a>> {
    let mut parts: Vec<&str> = Vec::new();
    for cell in cells {
        match cell.get()? {
            Value::Array(items) => {
                for item in items {
                    parts.push(item.as_str()?);
                }
            }
            value => parts.push(value.as_str()?),
        }
    }
    let bytes = parts.iter().map(|part| part.len() + separator.len()).sum::<usize>();
    (bytes <= MAX_TEXT_BYTES).then(|| Cell::of(parts.join(separator)))
}

fn trim(function: Function, text: &str, chars: Option<&str>) -> String {
    let cut = |ch: char| chars.map_or(ch.is_whitespace(), |chars| chars.contains(ch));
    let text = if function == Function::Rtrim { text } else { text.trim_start_matches(cut) };
    let text = if function == Function::Ltrim { text } else { text.trim_end_matches(cut) };
    text.to_owned()
}

/// To `length` characters, longer text is cut.
fn pad<'a>(function: Function, text: &str, length: i64, with: &str) -> Option<Cell<'a>> {
    let length = usize::try_from(length).ok()?;
    if length > MAX_TEXT_BYTES / 4 {
        return None;
    }
    let have = text.chars().count();
    if have >= length || with.is_empty() {
        return Some(Cell::of(text.chars().take(length).collect::<String>()));
    }
    let padding: String = with.chars().cycle().take(length - have).collect();
    Some(Cell::of(if function == Function::Lpad { padding + text } else { text.to_owned() + &padding }))
}
