//! Values as PostgreSQL writes them in binary.

use bytes::{Buf, BufMut, BytesMut};

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// Days since 1970.
pub(crate) fn date(out: &mut BytesMut, days: i64) {
    out.put_i32(i32::try_from(days - EPOCH_DAYS).unwrap_or(i32::MAX));
}

/// Microseconds since 1970.
pub(crate) fn timestamp(out: &mut BytesMut, micros: i64) {
    out.put_i64(micros.saturating_sub(EPOCH_MICROS));
}

pub(crate) fn read_date(mut bytes: &[u8]) -> Option<i64> {
    bytes.try_get_i32().ok().filter(|_| bytes.is_empty()).map(|days| i64::from(days) + EPOCH_DAYS)
}

pub(crate) fn read_timestamp(mut bytes: &[u8]) -> Option<i64> {
    bytes.try_get_i64().ok().filter(|_| bytes.is_empty()).and_then(|micros| micros.checked_add(EPOCH_MICROS))
}

/// A decimal number in text: four decimal digits at a time, each a number of its own.
pub(crate) fn numeric(out: &mut BytesMut, text: &str) {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (0x4000, digits),
        None => (0, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = fraction.len();
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let mut weight = i16::try_from(whole.len() / 4).unwrap_or(i16::MAX) - 1;
    let all = whole + &fraction;
    let groups: Vec<i16> = all.as_bytes().chunks(4).map(|group| group.iter().fold(0, digit)).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let end = groups.iter().rposition(|group| *group != 0).map_or(leading, |last| last + 1);
    let kept = groups.get(leading..end).unwrap_or_default();
    weight = if kept.is_empty() { 0 } else { weight - i16::try_from(leading).unwrap_or(0) };
    out.put_i16(i16::try_from(kept.len()).unwrap_or(i16::MAX));
    out.put_i16(weight);
    out.put_u16(if kept.is_empty() { 0 } else { sign });
    out.put_i16(i16::try_from(scale).unwrap_or(i16::MAX));
    kept.iter().for_each(|group| out.put_i16(*group));
}

fn digit(number: i16, byte: &u8) -> i16 {
    number * 10 + i16::from(byte.wrapping_sub(b'0') % 10)
}

/// A decimal number in text; none for bytes that are none, and for NaN and infinities.
pub(crate) fn read_numeric(mut bytes: &[u8]) -> Option<String> {
    let (count, weight) = (usize::try_from(bytes.try_get_i16().ok()?).ok()?, bytes.try_get_i16().ok()?);
    let (sign, scale) = (bytes.try_get_u16().ok()?, usize::try_from(bytes.try_get_i16().ok()?).ok()?);
    if bytes.len() != count * 2 || scale > 1_000 || !(-250..=250).contains(&weight) || !matches!(sign, 0 | 0x4000) {
        return None;
    }
    let groups: Vec<i16> = (0..count).map(|_| bytes.get_i16()).collect();
    if groups.iter().any(|group| !(0..10_000).contains(group)) {
        return None;
    }
    let group = |place: i16| -> i16 {
        usize::try_from(weight - place).ok().and_then(|index| groups.get(index)).copied().unwrap_or_default()
    };
    let whole: String = (0..=weight.max(0)).rev().map(|place| format!("{:04}", group(place))).collect();
    let whole = whole.trim_start_matches('0');
    let mut fraction: String = (1..=scale.div_ceil(4))
        .filter_map(|place| i16::try_from(place).ok())
        .map(|place| format!("{:04}", group(-place)))
        .collect();
    fraction.truncate(scale);
    let minus = if sign == 0 { "" } else { "-" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{minus}{whole}") } else { format!("{minus}{whole}.{fraction}") })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_and_times_count_from_2000() {
        let mut out = BytesMut::new();
        date(&mut out, 10_958);
        assert_eq!((&out[..], read_date(&out)), (&[0, 0, 0, 1][..], Some(10_958)));
        let mut out = BytesMut::new();
        timestamp(&mut out, EPOCH_MICROS - 1);
        assert_eq!((&out[..], read_timestamp(&out)), (&[0xff; 8][..], Some(EPOCH_MICROS - 1)));
    }

    #[test]
    fn decimals_are_groups_of_four_digits() {
        let mut out = BytesMut::new();
        numeric(&mut out, "12345.6");
        assert_eq!(&out[..], [0, 3, 0, 1, 0, 0, 0, 1, 0, 1, 0x09, 0x29, 0x17, 0x70]);
        assert_eq!(read_numeric(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 5]), Some("50000".to_owned()));
        assert_eq!(read_numeric(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), None, "NaN");
    }

    proptest! {
        #[test]
        fn decimals_read_back(whole in "0|[1-9][0-9]{0,25}", fraction in "[0-9]{0,12}", minus: bool) {
            let fraction = if fraction.is_empty() { fraction } else { format!(".{fraction}") };
            let zero = format!("{whole}{fraction}").bytes().all(|byte| b"0.".contains(&byte));
            let text = format!("{}{whole}{fraction}", if minus && !zero { "-" } else { "" });
            let mut out = BytesMut::new();
            numeric(&mut out, &text);
            prop_assert_eq!(read_numeric(&out), Some(text));
        }

        #[test]
        fn any_bytes_are_a_decimal_or_not(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_numeric(&bytes);
        }
    }
}
