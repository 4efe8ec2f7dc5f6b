//! Deletion vectors as Delta Lake stores them: several in one file, each a bitmap of row numbers.
//!
//! **Layout** of the file: one byte of version, then for each vector its length (4 bytes, big-endian), its bytes, and their
//! CRC-32 (4 bytes, big-endian). A vector's bytes: a magic number (4 bytes, little-endian), the number of 32-bit bitmaps
//! (8 bytes, little-endian; here always one), the upper half of their rows (4 bytes; 0), and the bitmap as every roaring
//! library writes it.

use roaring::RoaringBitmap;

use super::actions::Vector;
use crate::error::TablesError;

const FILE_VERSION: u8 = 1;
const MAGIC: u32 = 1_681_511_377;
/// Bytes of a vector before its bitmap.
const HEAD: usize = 16;

/// The digits of the UUIDs in descriptors: Z85.
const DIGITS: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// A file of deletion vectors that is being put together.
#[derive(Debug)]
pub(super) struct VectorFile {
    uuid: u128,
    bytes: Vec<u8>,
}

impl VectorFile {
    pub(super) fn new(uuid: u128) -> Self {
        Self { uuid, bytes: vec![FILE_VERSION] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == 1
    }

    /// Adds a vector; where it will be.
    pub(super) fn push(&mut self, rows: &RoaringBitmap) -> Result<Vector, TablesError> {
        let failed = |error: &dyn std::fmt::Display| TablesError::Encoding(format!("a deletion vector: {error}"));
        let mut vector = Vec::with_capacity(HEAD + rows.serialized_size());
        vector.extend_from_slice(&MAGIC.to_le_bytes());
        vector.extend_from_slice(&1_u64.to_le_bytes());
        vector.extend_from_slice(&0_u32.to_le_bytes());
        rows.serialize_into(&mut vector).map_err(|error| failed(&error))?;
        let offset = i32::try_from(self.bytes.len()).map_err(|error| failed(&error))?;
        let size = i32::try_from(vector.len()).map_err(|error| failed(&error))?;
        self.bytes.extend_from_slice(&size.to_be_bytes());
        self.bytes.extend_from_slice(&vector);
        self.bytes.extend_from_slice(&crc32(&vector).to_be_bytes());
        Ok(Vector {
            storage_type: "u".to_owned(),
            path_or_inline_dv: to_z85(self.uuid),
            offset,
            size_in_bytes: size,
            cardinality: i64::try_from(rows.len()).unwrap_or(i64::MAX),
        })
    }

    pub(super) fn finish(self) -> (u128, Vec<u8>) {
        (self.uuid, self.bytes)
    }
}

/// The file that a descriptor names; none when it is not one of ours.
pub(super) fn file_of(vector: &Vector) -> Option<u128> {
    if vector.storage_type == "u" { from_z85(&vector.path_or_inline_dv) } else { None }
}

/// Reads a vector out of its file.
pub(super) fn read(file: &[u8], vector: &Vector) -> Option<RoaringBitmap> {
    let start = usize::try_from(vector.offset).ok()?;
    let size = usize::try_from(vector.size_in_bytes).ok()?;
    let (length, rest) = file.get(start..)?.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_at_checked(size)?;
    let crc = rest.first_chunk::<4>()?;
    let whole = usize::try_from(i32::from_be_bytes(*length)).ok()? == size && crc32(bytes).to_be_bytes() == *crc;
    if !whole || bytes.get(..4)? != MAGIC.to_le_bytes() || bytes.get(4..HEAD)? != [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
        return None;
    }
    let rows = RoaringBitmap::deserialize_from(bytes.get(HEAD..)?).ok()?;
    (i64::try_from(rows.len()).ok()? == vector.cardinality).then_some(rows)
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            #[allow(clippy::cast_possible_truncation, reason = "below 256")]
            let mut crc = at as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

fn to_z85(uuid: u128) -> String {
    let mut out = String::with_capacity(20);
    for chunk in uuid.to_be_bytes().chunks_exact(4) {
        let mut number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = usize::try_from(number % 85).unwrap_or(0);
            number /= 85;
        }
        out.extend(digits.iter().map(|digit| char::from(DIGITS[*digit])));
    }
    out
}

fn from_z85(text: &str) -> Option<u128> {
    if text.len() != 20 {
        return None;
    }
    let mut uuid = 0_u128;
    for chunk in text.as_bytes().chunks_exact(5) {
        let mut number = 0_u64;
        for digit in chunk {
            let value = DIGITS.iter().position(|known| known == digit)?;
            number = number * 85 + u64::try_from(value).ok()?;
        }
        uuid = uuid << 32 | u128::from(u32::try_from(number).ok()?);
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vectors_and_uuids_round_trip(uuid: u128, a in prop::collection::btree_set(any::<u32>(), 0..50), b in prop::collection::btree_set(0..100_000_u32, 0..50)) {
            prop_assert_eq!(from_z85(&to_z85(uuid)), Some(uuid));
            let (a, b): (RoaringBitmap, RoaringBitmap) = (a.into_iter().collect(), b.into_iter().collect());
            let mut file = VectorFile::new(uuid);
            prop_assert!(file.is_empty());
            let (at_a, at_b) = (file.push(&a).unwrap(), file.push(&b).unwrap());
            prop_assert_eq!(file_of(&at_b), Some(uuid));
            let (_, bytes) = file.finish();
            prop_assert_eq!(read(&bytes, &at_a), Some(a));
            prop_assert_eq!(read(&bytes, &at_b), Some(b));
        }

        #[test]
        fn foreign_bytes_are_no_vector(bytes in prop::collection::vec(any::<u8>(), 0..80), offset: i32, size in -1..80_i32) {
            let vector = Vector { storage_type: "u".into(), offset, size_in_bytes: size, ..Vector::default() };
            let _ = read(&bytes, &vector);
        }
    }

    #[test]
    fn checksums_and_digits_are_those_of_others() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // The example of Z85's definition, twice.
        assert_eq!(to_z85(0x864f_d26f_b559_f75b_864f_d26f_b559_f75b), "HelloWorldHelloWorld");
    }
}
