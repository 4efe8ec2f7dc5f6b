//! What the server sends: messages, written into a buffer.

use bytes::{BufMut, BytesMut};

use crate::errors::PgError;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnDescription {
    pub(crate) name: String,
    pub(crate) oid: u32,
    pub(crate) len: i16,
    pub(crate) binary: bool,
}

/// Whether a transaction was begun, and whether it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionState {
    Idle,
    Begun,
    Failed,
}

/// Writes a message: its kind, its length, and what `body` writes.
fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Text up to a zero. Zeros in it would end it early and are left out.
fn text(out: &mut BytesMut, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.put_u8(0);
}

fn count(length: usize) -> i16 {
    i16::try_from(length).unwrap_or(i16::MAX)
}

pub(crate) fn ask_for_password(out: &mut BytesMut) {
    message(out, b'R', |out| out.put_i32(3));
}

pub(crate) fn authenticated(out: &mut BytesMut) {
    message(out, b'R', |out| out.put_i32(0));
}

/// The newest minor version of the protocol that is spoken here, and options that are not known.
pub(crate) fn negotiate(out: &mut BytesMut, unknown: &[&str]) {
    message(out, b'v', |out| {
        out.put_i32(0);
        out.put_i32(i32::try_from(unknown.len()).unwrap_or_default());
        unknown.iter().for_each(|name| text(out, name));
    });
}

pub(crate) fn parameter(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'S', |out| {
        text(out, name);
        text(out, value);
    });
}

pub(crate) fn key(out: &mut BytesMut, process: i32, secret: i32) {
    message(out, b'K', |out| {
        out.put_i32(process);
        out.put_i32(secret);
    });
}

pub(crate) fn ready(out: &mut BytesMut, state: TransactionState) {
    message(out, b'Z', |out| {
        out.put_u8(match state {
            TransactionState::Idle => b'I',
            TransactionState::Begun => b'T',
            TransactionState::Failed => b'E',
        });
    });
}

pub(crate) fn parse_complete(out: &mut BytesMut) {
    message(out, b'1', |_| {});
}

pub(crate) fn bind_complete(out: &mut BytesMut) {
    message(out, b'2', |_| {});
}

pub(crate) fn close_complete(out: &mut BytesMut) {
    message(out, b'3', |_| {});
}

pub(crate) fn no_data(out: &mut BytesMut) {
    message(out, b'n', |_| {});
}

pub(crate) fn empty_query(out: &mut BytesMut) {
    message(out, b'I', |_| {});
}

pub(crate) fn suspended(out: &mut BytesMut) {
    message(out, b's', |_| {});
}

pub(crate) fn complete(out: &mut BytesMut, tag: &str) {
    message(out, b'C', |out| text(out, tag));
}

pub(crate) fn parameter_types(out: &mut BytesMut, oids: &[u32]) {
    message(out, b't', |out| {
        out.put_i16(count(oids.len()));
        oids.iter().for_each(|oid| out.put_u32(*oid));
    });
}

pub(crate) fn columns(out: &mut BytesMut, columns: &[ColumnDescription]) {
    message(out, b'T', |out| {
        out.put_i16(count(columns.len()));
        for column in columns {
            text(out, &column.name);
            // No table, no place in it.
            out.put_i32(0);
            out.put_i16(0);
            out.put_u32(column.oid);
            out.put_i16(column.len);
            out.put_i32(-1);
            out.put_i16(column.binary.into());
        }
    });
}

/// A row of `width` columns; `value` writes each, or answers that it is null.
pub(crate) fn row(out: &mut BytesMut, width: usize, mut value: impl FnMut(usize, &mut BytesMut) -> bool) {
    message(out, b'D', |out| {
        out.put_i16(count(width));
        for index in 0..width {
            let start = out.len();
            out.put_i32(-1);
            if value(index, out) {
                let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
                if let Some(place) = out.get_mut(start..start + 4) {
                    place.copy_from_slice(&length.to_be_bytes());
                }
            } else {
                out.truncate(start + 4);
            }
        }
    });
}

pub(crate) fn error(out: &mut BytesMut, error: &PgError) {
    message(out, b'E', |out| {
        let severity = if error.fatal { "FATAL" } else { "ERROR" };
        for (kind, value) in
            [(b'S', severity), (b'V', severity), (b'C', error.sqlstate), (b'M', error.message.as_str())]
        {
            out.put_u8(kind);
            text(out, value);
        }
        if let Some(hint) = &error.hint {
            out.put_u8(b'H');
            text(out, hint);
        }
        if let Some(position) = error.position {
            out.put_u8(b'P');
            text(out, &position.to_string());
        }
        out.put_u8(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_carry_lengths_and_nulls() {
        let mut out = BytesMut::new();
        row(&mut out, 2, |index, out| {
            out.extend_from_slice(b"ab");
            index == 0
        });
        assert_eq!(&out[..], b"D\0\0\0\x10\0\x02\0\0\0\x02ab\xff\xff\xff\xff");
    }

    #[test]
    fn texts_cannot_end_early() {
        let mut out = BytesMut::new();
        complete(&mut out, "SELECT\0 1");
        assert_eq!(&out[..], b"C\0\0\0\x0dSELECT 1\0");
    }
}
