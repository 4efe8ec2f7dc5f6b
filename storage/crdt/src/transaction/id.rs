//! Ids in transactions. Most ids are text that says some bytes in hexadecimal; here they take as many bytes as they say.
//!
//! ```text
//! id := 00 uuid:16           text of a UUID in lower case
//!     | 01 length bytes      text of 16 and more lower-case hexadecimal digits, an even number: what they say
//!     | length+1 key         every other id: its key
//! ```

use bigpeer_types::limits::MAX_DOCUMENT_ID_BYTES;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::id::{DocId, TEXT};
use crate::wire::{Reader, put_bytes, put_len};

const UUID: usize = 0;
const HEX: usize = 1;
/// The least bytes that are said in hexadecimal: less is hardly shorter.
const LEAST_HEX: usize = 8;
/// Where the hyphens of a UUID's text stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

pub(super) fn put_id(out: &mut Vec<u8>, id: &DocId) {
    let text = text_of(id.as_key()).unwrap_or_default();
    if let Some(uuid) = uuid_of(text) {
        put_len(out, UUID);
        out.extend(uuid);
    } else if let Some(bytes) = hex_of(text) {
        put_len(out, HEX);
        put_bytes(out, &bytes);
    } else {
        put_len(out, id.as_key().len() + 1);
        out.extend_from_slice(id.as_key());
    }
}

pub(super) fn read_id(reader: &mut Reader<'_>) -> Result<DocId, DecodeError> {
    let start = reader.offset();
    let refused = || DecodeError { offset: start, kind: DecodeErrorKind::NotCanonical("an id is not in its one form") };
    match usize::try_from(reader.varint()?) {
        Ok(UUID) => {
            let mut text = hex(&reader.array::<16>()?);
            HYPHENS.iter().for_each(|at| text.insert(*at, b'-'));
            key_of(&text).ok_or_else(refused)
        }
        Ok(HEX) => {
            let bytes = reader.len_bytes()?;
            if !(LEAST_HEX..MAX_DOCUMENT_ID_BYTES).contains(&bytes.len()) {
                return Err(refused());
            }
            key_of(&hex(bytes)).ok_or_else(refused)
        }
        Ok(len) if len <= MAX_DOCUMENT_ID_BYTES + 1 => {
            let key = reader.take(len - 1)?;
            let text = text_of(key).unwrap_or_default();
            if uuid_of(text).is_some() || is_hex(text) {
                return Err(refused());
            }
            DocId::from_key(key).map_err(|_| refused())
        }
        Ok(_) | Err(_) => Err(reader.error(DecodeErrorKind::TooLarge(MAX_DOCUMENT_ID_BYTES))),
    }
}

/// The text whose key this is, if it needs no escapes, as hexadecimal does not.
fn text_of(key: &[u8]) -> Option<&[u8]> {
    match key {
        [TEXT, text @ .., 0] => Some(text),
        _ => None,
    }
}

/// The id that is this text, which needs no escapes.
fn key_of(text: &[u8]) -> Option<DocId> {
    let mut key = Vec::with_capacity(text.len() + 2);
    key.push(TEXT);
    key.extend_from_slice(text);
    key.push(0);
    DocId::from_key(&key).ok()
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Whether the text is long enough and says bytes in hexadecimal.
fn is_hex(text: &[u8]) -> bool {
    text.len() >= 2 * LEAST_HEX && text.len().is_multiple_of(2) && text.iter().all(|byte| digit(*byte).is_some())
}

fn hex_of(text: &[u8]) -> Option<Vec<u8>> {
    is_hex(text).then(|| unhex(text.iter().copied()).collect())
}

fn uuid_of(text: &[u8]) -> Option<impl Iterator<Item = u8>> {
    let fits = |(at, byte): (usize, &u8)| if HYPHENS.contains(&at) { *byte == b'-' } else { digit(*byte).is_some() };
    (text.len() == 36 && text.iter().enumerate().all(fits))
        .then(|| unhex(text.iter().copied().filter(|byte| *byte != b'-')))
}

fn unhex(digits: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    let mut digits = digits.filter_map(digit);
    std::iter::from_fn(move || Some((digits.next()? << 4) | digits.next()?))
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect()
}
