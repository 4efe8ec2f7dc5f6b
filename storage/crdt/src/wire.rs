//! The primitives of every encoding here: varints and a reader that knows where it stands.
//!
//! A varint is LEB128: seven bits a byte, least significant first, the high bit says that more follow; at most ten
//! bytes, and never one more than needed.

use crate::error::{DecodeError, DecodeErrorKind};

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends a length or an index as a varint.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, len as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads hostile bytes from front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// An error at the current offset.
    #[cold]
    pub(crate) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { offset: self.at, kind }
    }

    /// An error that the bytes are not canonical.
    #[cold]
    pub(crate) fn not_canonical<T>(&self, what: &'static str) -> Result<T, DecodeError> {
        Err(self.error(DecodeErrorKind::NotCanonical(what)))
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.error(DecodeErrorKind::Truncated))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(len).ok_or_else(|| self.error(DecodeErrorKind::Truncated))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.error(DecodeErrorKind::Truncated))?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.error(DecodeErrorKind::Truncated))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let first = self.byte()?;
        if first < 0x80 { Ok(u64::from(first)) } else { self.long_varint(first) }
    }

    fn long_varint(&mut self, first: u8) -> Result<u64, DecodeError> {
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error(DecodeErrorKind::OutOfRange));
            }
            number |= bits << shift;
            if byte < 0x80 {
                return if byte == 0 { self.not_canonical("a varint is longer than needed") } else { Ok(number) };
            }
        }
        Err(self.error(DecodeErrorKind::OutOfRange))
    }

    /// A varint that counts things of which each takes at least `least` bytes, so that no count can promise more than
    /// the bytes can hold.
    #[inline]
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count.checked_mul(least).is_some_and(|bytes| bytes <= self.remaining()) => Ok(count),
            Ok(_) | Err(_) => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    /// A length and that many bytes of text, as bytes.
    #[inline]
    pub(crate) fn len_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// A length and that many bytes of text.
    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.len_bytes()?;
        self.utf8(bytes)
    }

    /// `bytes` as text.
    #[inline]
    pub(crate) fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(bytes).map_err(|_| self.error(DecodeErrorKind::NotUtf8))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.error(DecodeErrorKind::TrailingBytes)) }
    }
}

/// A set of small numbers; up to 64 without allocation.
#[derive(Debug)]
pub(crate) struct BitSet {
    first: u64,
    more: Vec<u64>,
    missing: usize,
}

impl BitSet {
    /// None of the numbers below `len`.
    #[inline]
    pub(crate) fn new(len: usize) -> Self {
        let more = if len <= 64 { Vec::new() } else { vec![0; len.div_ceil(64) - 1] };
        Self { first: 0, more, missing: len }
    }

    /// Adds a number below the length.
    #[inline]
    pub(crate) fn insert(&mut self, number: usize) {
        let word = if number < 64 { Some(&mut self.first) } else { self.more.get_mut(number / 64 - 1) };
        if let Some(word) = word {
            let bit = 1 << (number % 64);
            self.missing -= usize::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Whether every number below the length is in.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.missing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip_and_have_one_form(number: u64, shift in 0..64_u32, tail: [u8; 3]) {
            let number = number >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, number);
            let len = out.len();
            out.extend(tail);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(number));
            prop_assert_eq!(reader.offset(), len);
        }

        #[test]
        fn what_reads_as_a_varint_is_its_one_form(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.varint() {
                let mut out = Vec::new();
                put_varint(&mut out, number);
                prop_assert_eq!(&out[..], &bytes[..reader.offset()]);
            }
        }
    }

    #[test]
    fn varints_longer_than_needed_or_too_large_are_refused() {
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0x80; 11], &[0x80], &[]] {
            assert!(Reader::new(bad).varint().is_err(), "{bad:?}");
        }
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader::new(&max).varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_count_cannot_promise_more_than_is_there() {
        assert!(Reader::new(&[2, 0, 0, 0]).count(2).is_err());
        assert_eq!(Reader::new(&[2, 0, 0, 0, 0]).count(2), Ok(2));
    }

    #[test]
    fn bit_sets_know_when_they_are_full() {
        let mut set = BitSet::new(300);
        for number in (0..300).rev() {
            assert!(!set.is_full());
            set.insert(number);
            set.insert(number);
        }
        assert!(set.is_full() && BitSet::new(0).is_full());
    }
}
