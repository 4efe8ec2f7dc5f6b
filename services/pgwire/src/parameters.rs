//! The values of a statement's parameters, as SQL takes them.

use bigpeer_sql::Param;
use bytes::{Buf, BytesMut};

use crate::column::format;
use crate::errors::PgError;
use crate::frontend::Bind;
use crate::{binary, text};

/// The values in `bind`, of types `oids` (0 where the client did not say).
pub(crate) fn values(bind: &Bind, oids: &[u32]) -> Result<Vec<Param>, PgError> {
    let values = bind.values.iter().enumerate().map(|(index, value)| {
        let oid = oids.get(index).copied().unwrap_or_default();
        let Some(value) = value else { return Ok(Param::Null) };
        let read = if format(&bind.binary, index) { binary_value(oid, value) } else { text_value(oid, value) };
        read.ok_or_else(|| {
            let form = if format(&bind.binary, index) { "binary" } else { "text" };
            let message = format!("parameter ${} of type {oid} cannot be read from {form}", index + 1);
            PgError { hint: Some("send it as text".to_owned()), ..PgError::new("22P03", message) }
        })
    });
    values.collect()
}

fn text_value(oid: u32, value: &[u8]) -> Option<Param> {
    let text = std::str::from_utf8(value).ok()?;
    Some(match oid {
        16 => match text.to_ascii_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "1" => Param::Bool(true),
            "f" | "false" | "off" | "no" | "0" => Param::Bool(false),
            _ => return None,
        },
        20 | 21 | 23 | 26 => Param::Int(text.trim().parse().ok()?),
        700 | 701 => Param::Float(text.trim().parse().ok()?),
        17 => Param::Bytes(from_hex(text.strip_prefix("\\x")?)?),
        // What looks like an array is one to PostgreSQL only.
        199 | 1000 | 1001 | 1005 | 1007 | 1009 | 1016 | 1021 | 1022 | 1231 if text.starts_with('{') => return None,
        _ => Param::Untyped(text.to_owned()),
    })
}

fn binary_value(oid: u32, value: &[u8]) -> Option<Param> {
    let mut rest = value;
    let whole = |rest: &[u8], param: Param| rest.is_empty().then_some(param);
    match oid {
        16 => {
            let value = rest.try_get_u8().ok()?;
            whole(rest, Param::Bool(value != 0))
        }
        21 => {
            let value = rest.try_get_i16().ok()?;
            whole(rest, Param::Int(value.into()))
        }
        23 | 26 => {
            let value = rest.try_get_i32().ok()?;
            whole(rest, Param::Int(value.into()))
        }
        20 => {
            let value = rest.try_get_i64().ok()?;
            whole(rest, Param::Int(value))
        }
        700 => {
            let value = rest.try_get_f32().ok()?;
            whole(rest, Param::Float(value.into()))
        }
        701 => {
            let value = rest.try_get_f64().ok()?;
            whole(rest, Param::Float(value))
        }
        17 => Some(Param::Bytes(value.to_vec())),
        1082 => {
            let days = binary::read_date(value)?;
            untyped(|out| text::date(out, days))
        }
        1114 => {
            let micros = binary::read_timestamp(value)?;
            untyped(|out| text::timestamp(out, micros, false))
        }
        1184 => {
            let micros = binary::read_timestamp(value)?;
            untyped(|out| text::timestamp(out, micros, true))
        }
        1700 => binary::read_numeric(value).map(Param::Untyped),
        0 | 18 | 19 | 25 | 114 | 705 | 1042 | 1043 => Some(Param::Untyped(String::from_utf8(value.to_vec()).ok()?)),
        _ => None,
    }
}

fn untyped(write: impl FnOnce(&mut BytesMut)) -> Option<Param> {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).ok().map(Param::Untyped)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn read(binary: bool, oid: u32, value: &'static [u8]) -> Option<Param> {
        let values = vec![Some(Bytes::from_static(value))];
        let bind = Bind { binary: vec![binary], values, ..Bind::default() };
        super::values(&bind, &[oid]).ok().map(|mut values| values.remove(0))
    }

    #[test]
    fn values_are_read_by_type_and_form() {
        let untyped = |text: &str| Some(Param::Untyped(text.to_owned()));
        assert_eq!(read(false, 20, b"-3"), Some(Param::Int(-3)));
        assert_eq!(read(true, 20, &[0, 0, 0, 0, 0, 0, 0, 9]), Some(Param::Int(9)));
        assert_eq!(read(true, 23, &[0, 0, 0, 9]), Some(Param::Int(9)));
        assert_eq!(read(false, 16, b"t"), Some(Param::Bool(true)));
        assert_eq!(read(false, 0, b"'; DROP"), untyped("'; DROP"));
        assert_eq!(read(true, 25, b"x"), untyped("x"));
        assert_eq!(read(true, 1082, &[0, 0, 0, 0]), untyped("2000-01-01"));
        assert_eq!(read(false, 17, b"\\x00ff"), Some(Param::Bytes(vec![0, 255])));
        for (binary, oid, value) in [
            (true, 20, &b"abc"[..]),
            (false, 20, b"x"),
            (true, 1016, b"x"),
            (false, 1016, b"{1}"),
            (false, 17, b"\\xzz"),
        ] {
            assert_eq!(read(binary, oid, value), None, "{oid} {value:?}");
        }
    }
}
