//! What clients send: messages, read from bytes that may be anything. Lengths are checked before anything is kept.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

/// Largest first message.
pub(crate) const MAX_STARTUP_BYTES: usize = 10_000;
/// Largest message before the client has proven who it is.
pub(crate) const MAX_PASSWORD_BYTES: usize = 8_192;
/// Largest message of a session: a statement or the values of its parameters.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Most parameters of one statement.
const MAX_PARAMETERS: usize = 10_000;

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Asks for TLS; another first message follows, below TLS if there is any.
    Tls,
    /// Asks for encryption by GSSAPI; another first message follows.
    Gss,
    /// Cancels what another session does.
    Cancel { process: i32, secret: i32 },
    /// Begins a session. The protocol's minor version, and names with values.
    Startup { minor: u16, parameters: BTreeMap<String, String> },
}

/// A message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Password(String),
    Query(String),
    Parse { name: String, text: String, types: Vec<u32> },
    Bind(Bind),
    Describe { portal: bool, name: String },
    Execute { portal: String, max_rows: u32 },
    Close { portal: bool, name: String },
    Flush,
    Sync,
    Terminate,
}

/// Values for a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    /// Whether each value is binary: none for text, one for all, or one for each.
    pub(crate) binary: Vec<bool>,
    pub(crate) values: Vec<Option<Bytes>>,
    /// Whether each column of the answer is to be binary, likewise.
    pub(crate) result_binary: Vec<bool>,
}

/// Bytes that are no message. Ends the session: what follows cannot be read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Takes the first message from `buffer`, when it is there as a whole.
pub(crate) fn first(buffer: &mut BytesMut) -> Result<Option<First>> {
    let Some(mut body) = frame(buffer, 0, MAX_STARTUP_BYTES)? else { return Ok(None) };
    let code = int(&mut body)?;
    let first = match code {
        80_877_103 => First::Tls,
        80_877_104 => First::Gss,
        80_877_102 => First::Cancel { process: int(&mut body)?, secret: int(&mut body)? },
        _ if code >> 16 == 3 => {
            let mut parameters = BTreeMap::new();
            loop {
                let name = text(&mut body)?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, text(&mut body)?);
            }
            First::Startup { minor: u16::try_from(code & 0xffff).unwrap_or_default(), parameters }
        }
        _ => return Err(Malformed("not version 3 of the protocol")),
    };
    end(&body)?;
    Ok(Some(first))
}

/// Takes the next message from `buffer`, when it is there as a whole; at most `limit` bytes of it.
pub(crate) fn next(buffer: &mut BytesMut, limit: usize) -> Result<Option<Message>> {
    let Some(kind) = buffer.first().copied() else { return Ok(None) };
    if !b"pQPBDECHSX".contains(&kind) {
        return Err(Malformed("a message of unknown kind"));
    }
    let Some(mut body) = frame(buffer, 1, limit)? else { return Ok(None) };
    let body = &mut body;
    let message = match kind {
        b'p' => Message::Password(text(body)?),
        b'Q' => Message::Query(text(body)?),
        b'P' => {
            let (name, query) = (text(body)?, text(body)?);
            let count = count(body)?;
            let types = (0..count).map(|_| Ok(int(body)?.cast_unsigned())).collect::<Result<_>>()?;
            Message::Parse { name, text: query, types }
        }
        b'B' => Message::Bind(bind(body)?),
        b'D' | b'C' => {
            let portal = match byte(body)? {
                b'P' => true,
                b'S' => false,
                _ => return Err(Malformed("neither a statement nor a portal")),
            };
            let name = text(body)?;
            if kind == b'D' { Message::Describe { portal, name } } else { Message::Close { portal, name } }
        }
        b'E' => {
            let portal = text(body)?;
            Message::Execute { portal, max_rows: u32::try_from(int(body)?).unwrap_or_default() }
        }
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        _ => Message::Terminate,
    };
    end(body)?;
    Ok(Some(message))
}

fn bind(body: &mut Bytes) -> Result<Bind> {
    let (portal, statement) = (text(body)?, text(body)?);
    let binary = formats(body)?;
    let count = count(body)?;
    let mut values = Vec::with_capacity(count.min(body.len() / 4));
    for _ in 0..count {
        let length = int(body)?;
        values.push(match usize::try_from(length) {
            Ok(length) if length <= body.len() => Some(body.split_to(length)),
            Ok(_) => return Err(Malformed("a value longer than its message")),
            Err(_) if length == -1 => None,
            Err(_) => return Err(Malformed("a value of negative length")),
        });
    }
    if binary.len() > 1 && binary.len() != values.len() {
        return Err(Malformed("as many formats as values"));
    }
    Ok(Bind { portal, statement, binary, values, result_binary: formats(body)? })
}

fn formats(body: &mut Bytes) -> Result<Vec<bool>> {
    let count = count(body)?;
    (0..count)
        .map(|_| match short(body)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither text nor binary")),
        })
        .collect()
}

/// The body of a message whose length stands after `kind` bytes; none when it has not come yet.
fn frame(buffer: &mut BytesMut, kind: usize, limit: usize) -> Result<Option<Bytes>> {
    let Some(length) = buffer.get(kind..kind + 4) else { return Ok(None) };
    let mut length = length;
    let length = usize::try_from(length.get_i32()).map_err(|_| Malformed("a message of negative length"))?;
    if length < 4 {
        return Err(Malformed("a message shorter than its length"));
    }
    if length > limit {
        return Err(Malformed("a message larger than it may be"));
    }
    if buffer.len() < kind + length {
        return Ok(None);
    }
    let mut message = buffer.split_to(kind + length).freeze();
    message.advance(kind + 4);
    Ok(Some(message))
}

fn end(body: &Bytes) -> Result<()> {
    if body.is_empty() { Ok(()) } else { Err(Malformed("a message longer than its content")) }
}

fn byte(body: &mut Bytes) -> Result<u8> {
    body.try_get_u8().map_err(|_| Malformed("a message that ends early"))
}

fn short(body: &mut Bytes) -> Result<i16> {
    body.try_get_i16().map_err(|_| Malformed("a message that ends early"))
}

fn int(body: &mut Bytes) -> Result<i32> {
    body.try_get_i32().map_err(|_| Malformed("a message that ends early"))
}

fn count(body: &mut Bytes) -> Result<usize> {
    let count = usize::from(short(body)?.cast_unsigned());
    if count > MAX_PARAMETERS { Err(Malformed("more parameters than a statement may have")) } else { Ok(count) }
}

/// Text up to a zero.
fn text(body: &mut Bytes) -> Result<String> {
    let end = body.iter().position(|byte| *byte == 0).ok_or(Malformed("text without an end"))?;
    let text = body.split_to(end);
    body.advance(1);
    String::from_utf8(text.to_vec()).map_err(|_| Malformed("text that is not UTF-8"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    fn message(kind: &[u8], body: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(kind);
        out.put_i32(i32::try_from(body.len()).unwrap() + 4);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn messages_are_read_when_they_are_whole() {
        let whole = message(b"Q", b"SELECT 1\0");
        let mut buffer = BytesMut::new();
        for byte in &whole {
            assert_eq!(next(&mut buffer, 100), Ok(None));
            buffer.put_u8(*byte);
        }
        assert_eq!(next(&mut buffer, 100), Ok(Some(Message::Query("SELECT 1".to_owned()))));
        assert!(buffer.is_empty());
        let mut body = BytesMut::from(&b"p\0s\0\0\x01\0\x01\0\x02"[..]);
        body.put_i32(-1);
        body.put_i32(2);
        body.extend_from_slice(b"hi\0\0");
        let bind = Bind {
            portal: "p".into(),
            statement: "s".into(),
            binary: vec![true],
            values: vec![None, Some(Bytes::from_static(b"hi"))],
            result_binary: vec![],
        };
        assert_eq!(next(&mut message(b"B", &body), 100), Ok(Some(Message::Bind(bind))));
    }

    #[test]
    fn the_first_message_has_a_kind_of_its_own() {
        let mut body = BytesMut::new();
        body.put_i32(3 << 16 | 2);
        body.extend_from_slice(b"user\0ada\0database\0app\0\0");
        let parameters = [("user", "ada"), ("database", "app")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let expected = First::Startup { minor: 2, parameters: parameters.into() };
        assert_eq!(first(&mut message(b"", &body)), Ok(Some(expected)));
        let mut tls = BytesMut::new();
        tls.put_i32(80_877_103);
        assert_eq!(first(&mut message(b"", &tls)), Ok(Some(First::Tls)));
        let mut gss = BytesMut::new();
        gss.put_i32(80_877_104);
        assert_eq!(first(&mut message(b"", &gss)), Ok(Some(First::Gss)));
        assert!(first(&mut BytesMut::from("GET / HTTP/1.1\r\n\r\n")).is_err());
    }

    #[test]
    fn what_is_too_large_or_odd_is_refused_before_it_is_kept() {
        let huge = BytesMut::from(&b"Q\x3f\xff\xff\xff"[..]);
        assert_eq!(next(&mut huge.clone(), MAX_MESSAGE_BYTES), Err(Malformed("a message larger than it may be")));
        for (kind, body) in [
            (&b"Q"[..], &b"no end"[..]),
            (b"Q", b"a\0b"),
            (b"Q", b"\xff\0"),
            (b"D", b"X\0"),
            (b"B", b"\0\0\0\0\0\x01\0\0\0\x09abc\0\0"),
            (b"Z", b""),
        ] {
            assert!(next(&mut message(kind, body), 1000).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..10) {
            let _ = first(&mut BytesMut::from(bytes.as_slice()));
            let _ = next(&mut BytesMut::from(bytes.as_slice()), 1000);
            let kind = &b"pQPBDECHSX"[kind..=kind];
            let _ = next(&mut message(kind, &bytes), 1000);
        }
    }
}
