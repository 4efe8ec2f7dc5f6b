//! Values as PostgreSQL writes them in text.

use std::fmt::Write as _;

use bytes::BytesMut;

/// Days from 1970-01-01 as year, month and day of the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u32, u32) {
    // Eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or_default(), u32::try_from(day).unwrap_or_default())
}

pub(crate) fn date(out: &mut BytesMut, days: i64) {
    let (year, month, day) = civil(days);
    // There is no year 0: 1 BC comes before 1.
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}{era}");
}

pub(crate) fn time(out: &mut BytesMut, micros: i64) {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros > 0 {
        let fraction = format!("{micros:06}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
}

/// Microseconds since 1970; `zoned` times are shown in UTC.
pub(crate) fn timestamp(out: &mut BytesMut, micros: i64, zoned: bool) {
    const DAY: i64 = 86_400_000_000;
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02} ");
    time(out, micros.rem_euclid(DAY));
    out.extend_from_slice(if zoned { b"+00" } else { b"" });
    out.extend_from_slice(era.as_bytes());
}

pub(crate) fn float(out: &mut BytesMut, value: f64, shortest: impl std::fmt::Display) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        let _ = write!(out, "{shortest}");
    }
}

pub(crate) fn bytea(out: &mut BytesMut, bytes: &[u8]) {
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// An element of an array: in quotes when it would be read as something else without.
pub(crate) fn element(out: &mut BytesMut, text: &[u8]) {
    let special = |byte: &u8| byte.is_ascii_whitespace() || b"{},\"\\".contains(byte);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.extend_from_slice(b"\"");
    for byte in text {
        if b"\"\\".contains(byte) {
            out.extend_from_slice(b"\\");
        }
        out.extend_from_slice(&[*byte]);
    }
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn days_and_times_are_of_our_calendar() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (20_782, "2026-11-25"),
            (-719_162, "0001-01-01"),
            (-719_163, "0001-12-31 BC"),
        ] {
            assert_eq!(shown(|out| date(out, days)), text);
        }
        assert_eq!(shown(|out| timestamp(out, 1_500_000, true)), "1970-01-01 00:00:01.5+00");
        assert_eq!(shown(|out| timestamp(out, -1, false)), "1969-12-31 23:59:59.999999");
        assert_eq!(shown(|out| time(out, 86_399_000_000)), "23:59:59");
    }

    #[test]
    fn numbers_bytes_and_elements_are_postgresqls() {
        assert_eq!(shown(|out| float(out, f64::NEG_INFINITY, f64::NEG_INFINITY)), "-Infinity");
        assert_eq!(shown(|out| float(out, 1.0, 1.0)), "1");
        assert_eq!(shown(|out| bytea(out, &[0, 255])), "\\x00ff");
        for (text, expected) in [("a", "a"), ("", "\"\""), ("NULL", "\"NULL\""), ("a b", "\"a b\""), ("\"", "\"\\\"\"")]
        {
            assert_eq!(shown(|out| element(out, text.as_bytes())), expected);
        }
    }
}
