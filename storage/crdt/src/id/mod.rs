//! `DocId`: a document's `_id` as key bytes whose order is the order of ids.
//!
//! # Order
//! null < false < true < numbers < text < bytes < arrays < objects. Numbers by their numeric value, integers and floats
//! alike; a float that is an integer of `i64` or `u64` is that integer. Text and bytes by bytes. Arrays item by item, objects entry
//! by entry (key, then value) in key order; a prefix comes first.
//!
//! # Layout
//! | first byte | id | then |
//! | --- | --- | --- |
//! | `10` | null | |
//! | `18`, `19` | false, true | |
//! | `20` to `34` | number | see `number.rs` |
//! | `40` | text | bytes, escaped, `00` |
//! | `48` | bytes | bytes, escaped, `00` |
//! | `50` | array | items, `00` |
//! | `58` | object | for each entry, keys ascending: `40`, key, escaped, `00`, value; then `00` |
//!
//! Escaped: `00` is `01 01`, `01` is `01 02`.

mod number;

use std::fmt;
use std::sync::Arc;

use bigpeer_types::limits::{MAX_DEPTH, MAX_DOCUMENT_ID_BYTES};
use thiserror::Error;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::value::{Object, Value};
use crate::wire::Reader;

const NULL: u8 = 0x10;
const FALSE: u8 = 0x18;
const TRUE: u8 = 0x19;
/// The first byte of the key of text.
pub(crate) const TEXT: u8 = 0x40;
const BYTES: u8 = 0x48;
const ARRAY: u8 = 0x50;
const OBJECT: u8 = 0x58;
const END: u8 = 0x00;
const ESCAPE: u8 = 0x01;
const ESCAPED_END: u8 = 0x01;
const ESCAPED_ESCAPE: u8 = 0x02;

/// A document's `_id`: any scalar but NaN and the infinities, or an array or object of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId(Arc<[u8]>);

/// A value that cannot be an `_id`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DocIdError {
    /// NaN or an infinity.
    #[error("an _id cannot be NaN or infinite")]
    NotFinite,
    /// Longer than allowed.
    #[error("an _id of {0} bytes is longer than the allowed {MAX_DOCUMENT_ID_BYTES}")]
    TooLong(usize),
    /// Nested too deep.
    #[error("an _id cannot be nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Key bytes that are not the key of any id.
    #[error("not the key of an _id: {0}")]
    NotAKey(#[from] DecodeError),
}

impl DocId {
    /// The id that is `value`.
    ///
    /// # Errors
    /// When it is not finite, too long or too deep.
    pub fn from_value(value: &Value) -> Result<Self, DocIdError> {
        let mut key = Vec::new();
        put(&mut key, value, MAX_DEPTH)?;
        if key.len() > MAX_DOCUMENT_ID_BYTES {
            return Err(DocIdError::TooLong(key.len()));
        }
        Ok(Self(key.into()))
    }

    /// The value that the id is. A float that is an integer comes back as that integer.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // The key was checked when it was made.
        read(&mut Reader::new(&self.0)).unwrap_or(Value::Null)
    }

    /// The key bytes; their order is the order of ids. Never empty.
    #[must_use]
    pub fn as_key(&self) -> &[u8] {
        &self.0
    }

    /// Reads key bytes.
    ///
    /// # Errors
    /// When they are not the key of any id: a key is accepted only as [`Self::as_key`] writes it.
    pub fn from_key(key: &[u8]) -> Result<Self, DocIdError> {
        if key.len() > MAX_DOCUMENT_ID_BYTES {
            return Err(DocIdError::TooLong(key.len()));
        }
        let mut reader = Reader::new(key);
        check(&mut reader, MAX_DEPTH)?;
        reader.end()?;
        Ok(Self(key.into()))
    }
}

impl fmt::Debug for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

fn put(key: &mut Vec<u8>, value: &Value, levels: usize) -> Result<(), DocIdError> {
    let inner = || levels.checked_sub(1).ok_or(DocIdError::TooDeep);
    match value {
        Value::Null => key.push(NULL),
        Value::Bool(false) => key.push(FALSE),
        Value::Bool(true) => key.push(TRUE),
        Value::Int(number) => number::put_int(key, *number),
        Value::UInt(number) => number::put_uint(key, *number),
        Value::Float(number) if !number.is_finite() => return Err(DocIdError::NotFinite),
        Value::Float(number) => number::put_float(key, *number),
        Value::String(text) => put_escaped(key, TEXT, text.as_bytes()),
        Value::Bytes(bytes) => put_escaped(key, BYTES, bytes),
        Value::Array(items) => {
            let levels = inner()?;
            key.push(ARRAY);
            items.iter().try_for_each(|item| put(key, item, levels))?;
            key.push(END);
        }
        Value::Object(object) => {
            let levels = inner()?;
            key.push(OBJECT);
            for (name, value) in object.iter() {
                put_escaped(key, TEXT, name.as_bytes());
                put(key, value, levels)?;
            }
            key.push(END);
        }
    }
    Ok(())
}

fn put_escaped(key: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    key.push(tag);
    for byte in bytes {
        match *byte {
            END => key.extend([ESCAPE, ESCAPED_END]),
            ESCAPE => key.extend([ESCAPE, ESCAPED_ESCAPE]),
            other => key.push(other),
        }
    }
    key.push(END);
}

/// Checks one value.
fn check(reader: &mut Reader<'_>, levels: usize) -> Result<(), DecodeError> {
    let inner = |reader: &Reader<'_>| levels.checked_sub(1).ok_or_else(|| reader.error(DecodeErrorKind::TooDeep));
    match reader.byte()? {
        NULL | FALSE | TRUE => Ok(()),
        tag @ number::FIRST..=number::LAST => number::read(reader, tag).map(drop),
        TEXT => check_text(reader).map(drop),
        BYTES => escaped(reader).map(drop),
        ARRAY => {
            let levels = inner(reader)?;
            while !at_end(reader)? {
                check(reader, levels)?;
            }
            Ok(())
        }
        OBJECT => {
            let levels = inner(reader)?;
            let mut last: Option<&[u8]> = None;
            while !at_end(reader)? {
                let name = name(reader)?;
                if last >= Some(name) {
                    return reader.not_canonical("the keys of an object do not ascend");
                }
                last = Some(name);
                check(reader, levels)?;
            }
            Ok(())
        }
        other => Err(reader.error(DecodeErrorKind::BadTag(other))),
    }
}

/// Whether the end of a container is next; if so, steps over it.
fn at_end(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    let mut ahead = *reader;
    let end = ahead.byte()? == END;
    if end {
        *reader = ahead;
    }
    Ok(end)
}

/// The escaped key of an object's entry.
fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    match reader.byte()? {
        TEXT => check_text(reader),
        other => Err(reader.error(DecodeErrorKind::BadTag(other))),
    }
}

fn check_text<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    // Escapes replace ASCII by ASCII, so escaped text is UTF-8 exactly if the text is.
    let bytes = escaped(reader)?;
    reader.utf8(bytes).map(|_| bytes)
}

/// Reads escaped bytes and their end; answers them still escaped.
fn escaped<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let mut ahead = *reader;
    let mut len = 0;
    loop {
        match ahead.byte()? {
            END => break,
            ESCAPE => match ahead.byte()? {
                ESCAPED_END | ESCAPED_ESCAPE => len += 2,
                other => return Err(ahead.error(DecodeErrorKind::BadTag(other))),
            },
            _ => len += 1,
        }
    }
    let bytes = reader.take(len)?;
    *reader = ahead;
    Ok(bytes)
}

fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match *byte {
            ESCAPE => out.push(bytes.next().map_or(0, |escaped| escaped - ESCAPED_END)),
            other => out.push(other),
        }
    }
    out
}

fn text(reader: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
    let bytes = unescaped(escaped(reader)?);
    String::from_utf8(bytes).map(Into::into).map_err(|_| reader.error(DecodeErrorKind::NotUtf8))
}

/// Reads one value that was checked before.
fn read(reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    Ok(match reader.byte()? {
        NULL => Value::Null,
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        tag @ number::FIRST..=number::LAST => number::read(reader, tag)?,
        TEXT => Value::String(text(reader)?),
        BYTES => Value::Bytes(unescaped(escaped(reader)?).into()),
        ARRAY => {
            let mut items = Vec::new();
            while !at_end(reader)? {
                items.push(read(reader)?);
            }
            Value::Array(items)
        }
        OBJECT => {
            let mut entries = Vec::new();
            while !at_end(reader)? {
                reader.byte()?;
                let name = text(reader)?;
                entries.push((name, read(reader)?));
            }
            // Escaping keeps order, so the entries are in key order.
            Value::Object(Object::from_sorted(entries))
        }
        other => return Err(reader.error(DecodeErrorKind::BadTag(other))),
    })
}

#[cfg(test)]
mod tests;
