//! The `Range` header, as far as it is served: one range of bytes.

use std::ops::Range;

/// What of a blob is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no range, or none that is understood. Several ranges are answered whole, too.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that are not there.
    Nowhere,
}

/// What `header` asks for of a blob of `length` bytes.
pub(super) fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let range = header.map(str::trim).and_then(|text| text.split_at_checked(6));
    let Some((unit, range)) = range else { return Wanted::Whole };
    if !unit.eq_ignore_ascii_case("bytes=") {
        return Wanted::Whole;
    }
    let Some((first, last)) = range.split_once('-') else { return Wanted::Whole };
    match (number(first), number(last)) {
        (Number::None, Number::Is(0)) => Wanted::Nowhere,
        (Number::None, Number::Is(last)) if length > 0 => Wanted::Part(length.saturating_sub(last)..length),
        (Number::None, Number::Is(_)) => Wanted::Nowhere,
        (Number::Is(first), Number::Is(last)) if first > last => Wanted::Whole,
        (Number::Is(first), Number::Is(_) | Number::None) if first >= length => Wanted::Nowhere,
        (Number::Is(first), Number::Is(last)) => Wanted::Part(first..last.saturating_add(1).min(length)),
        (Number::Is(first), Number::None) => Wanted::Part(first..length),
        (Number::None, Number::None) | (Number::Bad, _) | (_, Number::Bad) => Wanted::Whole,
    }
}

enum Number {
    None,
    /// One that is too large is as good as the largest.
    Is(u64),
    Bad,
}

fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Number::Is(digits.parse().unwrap_or(u64::MAX)),
        _ => Number::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let huge = "99999999999999999999999";
        for (header, length, expected) in [
            ("bytes=0-0", 10, Wanted::Part(0..1)),
            ("bytes=0-9", 10, Wanted::Part(0..10)),
            ("bytes=0-10", 10, Wanted::Part(0..10)),
            ("Bytes=2-", 10, Wanted::Part(2..10)),
            ("bytes=9-9", 10, Wanted::Part(9..10)),
            ("bytes=10-", 10, Wanted::Nowhere),
            ("bytes=10-11", 10, Wanted::Nowhere),
            ("bytes=-3", 10, Wanted::Part(7..10)),
            ("bytes=-30", 10, Wanted::Part(0..10)),
            ("bytes=-0", 10, Wanted::Nowhere),
            ("bytes=0-", 0, Wanted::Nowhere),
            ("bytes=-1", 0, Wanted::Nowhere),
            ("bytes=5-4", 10, Wanted::Whole),
            ("bytes=-", 10, Wanted::Whole),
            ("bytes=", 10, Wanted::Whole),
            ("bytes=a-b", 10, Wanted::Whole),
            ("bytes=1-2,4-5", 10, Wanted::Whole),
            ("bytes=+1-2", 10, Wanted::Whole),
            ("lines=1-2", 10, Wanted::Whole),
            ("", 10, Wanted::Whole),
            ("ä-bytes", 10, Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), length), expected, "{header} of {length}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some(&format!("bytes={huge}-")), 10), Wanted::Nowhere);
        assert_eq!(wanted(Some(&format!("bytes=3-{huge}")), 10), Wanted::Part(3..10));
        assert_eq!(wanted(Some("bytes=3-18446744073709551615"), 10), Wanted::Part(3..10));
    }
}
