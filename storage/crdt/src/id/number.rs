//! Numbers in keys: one form for each number, ordered by numeric value, integers and floats among each other.
//!
//! By its magnitude a number is huge (an integer that neither `i64` nor `u64` holds), whole-and-more (at least 1), less than
//! 1, or zero. The first byte says sign and, for whole-and-more, how many bytes the integer part takes:
//!
//! | first byte | number | then |
//! | --- | --- | --- |
//! | `20` | huge, negative | 8 bytes: the bits of the magnitude, inverted |
//! | `21` to `28` | negative, integer part of 8 to 1 bytes | as below, every byte inverted |
//! | `29` | between -1 and 0 | 8 bytes: the bits of the magnitude, inverted |
//! | `2a` | 0 | |
//! | `2b` | between 0 and 1 | 8 bytes: the bits, big-endian |
//! | `2c` to `33` | positive, integer part of 1 to 8 bytes | the integer part, big-endian; `00`, or `01` and 7 bytes: the fraction times 2⁵² |
//! | `34` | huge | 8 bytes: the bits, big-endian |

use crate::error::{DecodeError, DecodeErrorKind};
use crate::value::Value;
use crate::wire::Reader;

/// The least first byte of a number.
pub(super) const FIRST: u8 = ZERO - 10;
/// The greatest first byte of a number.
pub(super) const LAST: u8 = ZERO + 10;

const ZERO: u8 = 0x2a;
/// Distance from [`ZERO`] of what is less than 1, and of what is huge.
const PART: u8 = 1;
const HUGE: u8 = 10;
const NO_FRACTION: u8 = 0;
const FRACTION: u8 = 1;
/// A fraction in units of 2⁻⁵²: every fraction of a float of at least 1 is a multiple.
const FRACTION_UNITS: f64 = 4_503_599_627_370_496.0;
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

pub(super) fn put_int(key: &mut Vec<u8>, number: i64) {
    put_whole(key, number < 0, number.unsigned_abs(), 0);
}

pub(super) fn put_uint(key: &mut Vec<u8>, number: u64) {
    put_whole(key, false, number, 0);
}

/// Appends a finite float.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, and whole where it matters")]
pub(super) fn put_float(key: &mut Vec<u8>, number: f64) {
    let (negative, magnitude) = (number < 0.0, number.abs());
    let huge = if negative { magnitude > TWO_TO_63 } else { magnitude >= TWO_TO_64 };
    if huge || (magnitude > 0.0 && magnitude < 1.0) {
        let start = key.len();
        key.extend(magnitude.to_bits().to_be_bytes());
        finish(key, start, negative, if huge { HUGE } else { PART });
    } else {
        put_whole(key, negative, magnitude as u64, (magnitude.fract() * FRACTION_UNITS) as u64);
    }
}

fn put_whole(key: &mut Vec<u8>, negative: bool, whole: u64, fraction: u64) {
    if whole == 0 {
        key.push(ZERO);
        return;
    }
    let start = key.len();
    let bytes = whole.to_be_bytes();
    let zeros = (whole.leading_zeros() / 8) as usize;
    key.extend(bytes.iter().skip(zeros));
    if fraction == 0 {
        key.push(NO_FRACTION);
    } else {
        key.push(FRACTION);
        key.extend(fraction.to_be_bytes().iter().skip(1));
    }
    let len = u8::try_from(bytes.len() - zeros).unwrap_or_default();
    finish(key, start, negative, PART + len);
}

/// Puts the first byte before what was appended since `start`, which is inverted for a negative number.
fn finish(key: &mut Vec<u8>, start: usize, negative: bool, distance: u8) {
    if negative {
        key.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }
    key.insert(start, if negative { ZERO - distance } else { ZERO + distance });
}

/// Reads what follows the first byte `tag`, and checks that it is the number's one form.
pub(super) fn read(reader: &mut Reader<'_>, tag: u8) -> Result<Value, DecodeError> {
    let negative = tag < ZERO;
    match tag.abs_diff(ZERO) {
        0 => Ok(Value::Int(0)),
        PART => {
            let magnitude = magnitude(reader, negative)?;
            if magnitude > 0.0 && magnitude < 1.0 { Ok(float(negative, magnitude)) } else { bad(reader) }
        }
        HUGE => {
            let magnitude = magnitude(reader, negative)?;
            let huge = if negative { magnitude > TWO_TO_63 } else { magnitude >= TWO_TO_64 };
            if huge && magnitude.is_finite() { Ok(float(negative, magnitude)) } else { bad(reader) }
        }
        distance => whole(reader, negative, usize::from(distance - PART)),
    }
}

fn bad<T>(reader: &Reader<'_>) -> Result<T, DecodeError> {
    reader.not_canonical("a number is not in its one form")
}

fn float(negative: bool, magnitude: f64) -> Value {
    Value::Float(if negative { -magnitude } else { magnitude })
}

fn invert(negative: bool, byte: u8) -> u8 {
    if negative { !byte } else { byte }
}

fn magnitude(reader: &mut Reader<'_>, negative: bool) -> Result<f64, DecodeError> {
    let bytes: [u8; 8] = reader.array()?;
    Ok(f64::from_bits(u64::from_be_bytes(bytes.map(|byte| invert(negative, byte)))))
}

fn big_endian(reader: &mut Reader<'_>, negative: bool, len: usize) -> Result<u64, DecodeError> {
    Ok(reader.take(len)?.iter().fold(0, |number, byte| (number << 8) | u64::from(invert(negative, *byte))))
}

#[allow(clippy::cast_precision_loss, reason = "checked to be exact")]
fn whole(reader: &mut Reader<'_>, negative: bool, len: usize) -> Result<Value, DecodeError> {
    let whole = big_endian(reader, negative, len)?;
    if (whole.leading_zeros() / 8) as usize + len != 8 {
        return bad(reader);
    }
    match invert(negative, reader.byte()?) {
        NO_FRACTION => match (negative, i64::try_from(whole)) {
            (false, _) => Ok(Value::from(whole)),
            (true, Ok(number)) => Ok(Value::Int(-number)),
            (true, Err(_)) if whole == i64::MIN.unsigned_abs() => Ok(Value::Int(i64::MIN)),
            (true, Err(_)) => bad(reader),
        },
        FRACTION => {
            let fraction = big_endian(reader, negative, 7)?;
            let magnitude = whole as f64 + fraction as f64 / FRACTION_UNITS;
            let exact = fraction > 0
                && whole < 1 << 52
                && magnitude.trunc() == whole as f64
                && magnitude.fract() * FRACTION_UNITS == fraction as f64;
            if exact { Ok(float(negative, magnitude)) } else { bad(reader) }
        }
        other => Err(reader.error(DecodeErrorKind::BadTag(other))),
    }
}
