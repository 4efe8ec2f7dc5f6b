//! Values on the wire: a tag of six bits, then what the tag asks for.
//!
//! | tag | value | then |
//! | --- | --- | --- |
//! | `00` | null | |
//! | `01`, `02` | false, true | |
//! | `03` | integer outside 0 to 15 | varint of its zigzag form |
//! | `04` | integer above `i64::MAX` | varint of what it is above that, less one |
//! | `05` | float | 8 bytes, little-endian |
//! | `06` | text of 32 bytes and more | length, bytes |
//! | `07` | bytes | length, bytes |
//! | `08` | array | count, values |
//! | `09` | object with keys | count, then for each: key (length, bytes), value; keys ascending |
//! | `0a` | `{}` | |
//! | `0b` | float that `f32` holds exactly | 4 bytes, little-endian |
//! | `10` to `1f` | integer 0 to 15 | |
//! | `20` to `3f` | text of 0 to 31 bytes | bytes |

use std::cmp::Ordering;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::value::{NAN_BITS, Object, Value, float_bits};
use crate::wire::{Reader, put_bytes, put_len, put_varint};

const NULL: u8 = 0x00;
const FALSE: u8 = 0x01;
const TRUE: u8 = 0x02;
const INT: u8 = 0x03;
const UINT: u8 = 0x04;
const FLOAT: u8 = 0x05;
const TEXT: u8 = 0x06;
const BYTES: u8 = 0x07;
const ARRAY: u8 = 0x08;
const OBJECT: u8 = 0x09;
/// The tag of `{}`, the value that marks a map.
pub(super) const EMPTY_OBJECT: u8 = 0x0a;
const SMALL_FLOAT: u8 = 0x0b;
const SMALL_INT: u8 = 0x10;
const SHORT_TEXT: u8 = 0x20;
/// Tags are below this.
pub(super) const TAGS: u8 = 0x40;

const FIRST_UINT: u64 = i64::MAX as u64 + 1;

fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// The `f32` that is exactly `number`, if there is one.
#[allow(clippy::cast_possible_truncation, reason = "exactness is checked")]
fn small_float(number: f64) -> Option<f32> {
    let small = number as f32;
    (!number.is_nan() && f64::from(small).to_bits() == number.to_bits()).then_some(small)
}

/// The tag of `value`.
pub(super) fn tag(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(false) => FALSE,
        Value::Bool(true) => TRUE,
        Value::Int(number) => int_tag(*number),
        Value::UInt(number) => i64::try_from(*number).map_or(UINT, int_tag),
        Value::Float(number) => small_float(*number).map_or(FLOAT, |_| SMALL_FLOAT),
        Value::String(text) => match u8::try_from(text.len()) {
            Ok(len) if len < 0x20 => SHORT_TEXT | len,
            Ok(_) | Err(_) => TEXT,
        },
        Value::Bytes(_) => BYTES,
        Value::Array(_) => ARRAY,
        Value::Object(object) if object.is_empty() => EMPTY_OBJECT,
        Value::Object(_) => OBJECT,
    }
}

fn int_tag(number: i64) -> u8 {
    match u8::try_from(number) {
        Ok(small) if small < 0x10 => SMALL_INT | small,
        Ok(_) | Err(_) => INT,
    }
}

/// Appends what follows the tag.
pub(super) fn put_body(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Int(number) => put_int(out, *number),
        Value::UInt(number) => match i64::try_from(*number) {
            Ok(number) => put_int(out, number),
            Err(_) => put_varint(out, *number - FIRST_UINT),
        },
        Value::Float(number) => match small_float(*number) {
            Some(small) => out.extend_from_slice(&small.to_le_bytes()),
            None => out.extend_from_slice(&float_bits(*number).to_le_bytes()),
        },
        Value::String(text) if text.len() < 0x20 => out.extend_from_slice(text.as_bytes()),
        Value::String(text) => put_bytes(out, text.as_bytes()),
        Value::Bytes(bytes) => put_bytes(out, bytes),
        Value::Array(items) => {
            put_len(out, items.len());
            items.iter().for_each(|item| put_value(out, item));
        }
        Value::Object(object) if object.is_empty() => {}
        Value::Object(object) => put_object(out, object),
    }
}

fn put_int(out: &mut Vec<u8>, number: i64) {
    if !(0..0x10).contains(&number) {
        put_varint(out, zigzag(number));
    }
}

/// Appends the count and the entries of an object.
pub(super) fn put_object(out: &mut Vec<u8>, object: &Object) {
    put_len(out, object.len());
    for (key, value) in object.iter() {
        put_bytes(out, key.as_bytes());
        put_value(out, value);
    }
}

/// Appends tag and body.
pub(super) fn put_value(out: &mut Vec<u8>, value: &Value) {
    out.push(tag(value));
    put_body(out, value);
}

/// The order that decides between two values with the same stamp: that of their encodings.
pub(crate) fn tie_order(a: &Value, b: &Value) -> Ordering {
    let encoded = |value| {
        let mut out = Vec::new();
        put_value(&mut out, value);
        out
    };
    encoded(a).cmp(&encoded(b))
}

fn int(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let number = unzigzag(reader.varint()?);
    if (0..0x10).contains(&number) {
        return reader.not_canonical("a small integer is not in its tag");
    }
    Ok(number)
}

fn uint(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let above = reader.varint()?;
    above.checked_add(FIRST_UINT).ok_or_else(|| reader.error(DecodeErrorKind::OutOfRange))
}

fn float(reader: &mut Reader<'_>) -> Result<f64, DecodeError> {
    let number = f64::from_bits(u64::from_le_bytes(reader.array()?));
    if small_float(number).is_some() {
        return reader.not_canonical("a float that fits four bytes has eight");
    }
    if number.is_nan() && number.to_bits() != NAN_BITS {
        return reader.not_canonical("a NaN is not the one NaN");
    }
    Ok(number)
}

fn small(reader: &mut Reader<'_>) -> Result<f64, DecodeError> {
    let number = f32::from_le_bytes(reader.array()?);
    if number.is_nan() {
        return reader.not_canonical("a NaN has four bytes");
    }
    Ok(f64::from(number))
}

fn long_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let text = reader.text()?;
    if text.len() < 0x20 {
        return reader.not_canonical("the length of short text is not in its tag");
    }
    Ok(text)
}

fn short_text<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<&'a str, DecodeError> {
    let bytes = reader.take(usize::from(tag & 0x1f))?;
    reader.utf8(bytes)
}

fn keys(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    match reader.count(2)? {
        0 => reader.not_canonical("an empty object has a count"),
        count => Ok(count),
    }
}

/// Checks what follows `tag`, of which containers may nest `levels` deep.
pub(super) fn check_body(reader: &mut Reader<'_>, tag: u8, levels: usize) -> Result<(), DecodeError> {
    match tag {
        NULL | FALSE | TRUE | SMALL_INT..SHORT_TEXT => Ok(()),
        INT => int(reader).map(drop),
        UINT => uint(reader).map(drop),
        FLOAT => float(reader).map(drop),
        SMALL_FLOAT => small(reader).map(drop),
        TEXT => long_text(reader).map(drop),
        SHORT_TEXT..TAGS => short_text(reader, tag).map(drop),
        BYTES => reader.len_bytes().map(drop),
        ARRAY => {
            let levels = inner(reader, levels)?;
            for _ in 0..reader.count(1)? {
                let tag = reader.byte()?;
                check_body(reader, tag, levels)?;
            }
            Ok(())
        }
        EMPTY_OBJECT => inner(reader, levels).map(drop),
        OBJECT => {
            let levels = inner(reader, levels)?;
            let count = keys(reader)?;
            check_entries(reader, count, levels)
        }
        other => Err(reader.error(DecodeErrorKind::BadTag(other))),
    }
}

fn inner(reader: &Reader<'_>, levels: usize) -> Result<usize, DecodeError> {
    levels.checked_sub(1).ok_or_else(|| reader.error(DecodeErrorKind::TooDeep))
}

fn check_entries(reader: &mut Reader<'_>, count: usize, levels: usize) -> Result<(), DecodeError> {
    let mut last: Option<&str> = None;
    for _ in 0..count {
        let key = reader.text()?;
        if last >= Some(key) {
            return reader.not_canonical("the keys of an object do not ascend");
        }
        last = Some(key);
        let tag = reader.byte()?;
        check_body(reader, tag, levels)?;
    }
    Ok(())
}

/// Checks a count and entries, which themselves stand `levels` from the deepest allowed.
pub(super) fn check_object(reader: &mut Reader<'_>, levels: usize) -> Result<(), DecodeError> {
    let levels = inner(reader, levels)?;
    let count = reader.count(2)?;
    check_entries(reader, count, levels)
}

/// Reads what follows `tag`. The bytes were checked before: counts can be trusted.
pub(super) fn body(reader: &mut Reader<'_>, tag: u8) -> Result<Value, DecodeError> {
    Ok(match tag {
        NULL => Value::Null,
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        SMALL_INT..SHORT_TEXT => Value::Int(i64::from(tag & 0x0f)),
        INT => Value::Int(int(reader)?),
        UINT => Value::UInt(uint(reader)?),
        FLOAT => Value::Float(float(reader)?),
        SMALL_FLOAT => Value::Float(small(reader)?),
        TEXT => Value::String(long_text(reader)?.into()),
        SHORT_TEXT..TAGS => Value::String(short_text(reader, tag)?.into()),
        BYTES => Value::Bytes(reader.len_bytes()?.into()),
        ARRAY => {
            let count = reader.count(1)?;
            let mut items = Vec::with_capacity(count);
            for _ in 0..count {
                let tag = reader.byte()?;
                items.push(body(reader, tag)?);
            }
            Value::Array(items)
        }
        EMPTY_OBJECT => Value::Object(Object::new()),
        OBJECT => Value::Object(object(reader)?),
        other => return Err(reader.error(DecodeErrorKind::BadTag(other))),
    })
}

/// Reads a count and entries that were checked before.
pub(super) fn object(reader: &mut Reader<'_>) -> Result<Object, DecodeError> {
    let count = reader.count(2)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let key = reader.text()?.into();
        let tag = reader.byte()?;
        entries.push((key, body(reader, tag)?));
    }
    Ok(Object::from_sorted(entries))
}

/// Skips what follows `tag`; the bytes were checked before.
pub(super) fn skip_body(reader: &mut Reader<'_>, tag: u8) -> Result<(), DecodeError> {
    check_body(reader, tag, bigpeer_types::limits::MAX_DEPTH + 1)
}
