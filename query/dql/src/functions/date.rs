//! Dates: instants as milliseconds since the epoch, or as ISO 8601 text. The calendar and the time zones are jiff's, the
//! zones from the database that is compiled in, never from the machine.

#![allow(clippy::wildcard_enum_match_arm, reason = "each of these modules names its own functions")]

use bigpeer_crdt::Value;
use jiff::civil::{DateTime, Time};
use jiff::fmt::strtime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, Unit, Zoned};

use super::Function;
use crate::eval::number::Number;
use crate::eval::{Cell, Env};

/// Most dates that `date_range` makes.
const MAX_RANGE: i64 = 10_000;

/// Longest format, pattern or name of a zone, in bytes.
const MAX_FORMAT_BYTES: usize = 256;

/// None when `function` is not one of these, or its arguments are of wrong types.
pub(super) fn call<'a>(function: Function, cells: &[Cell<'a>], env: Env<'_>) -> Option<Cell<'a>> {
    let text = |at: usize| cells.get(at).and_then(Cell::text).filter(|text| text.len() <= MAX_FORMAT_BYTES);
    let date = |at: usize| instant(cells.get(at)?.get()?);
    // Named time zones are looked up, formats are parsed: dearer than a step of a loop.
    if !env.spend(20) {
        return None;
    }
    Some(match function {
        Function::DateAdd | Function::DateSub => {
            let (unit, amount) = unit_and_amount(cells.get(1)?, cells.get(2)?)?;
            let amount = if function == Function::DateSub { amount.checked_neg()? } else { amount };
            let zone = zone(cells.get(4))?;
            made(add(date(0)?, unit, amount, &zone)?, cells.get(3), zone)?
        }
        Function::DateDiff => Cell::of(difference(date(0)?, date(1)?, Part::named(text(2)?)?)?),
        Function::DatePart => part(date(0)?.to_zoned(zone_of(cells.first()?, cells.get(2))?), text(1)?)?,
        Function::DateTrunc => {
            let zone = zone(cells.get(3))?;
            made(truncated(date(0)?, Part::named(text(1)?)?, &zone)?, cells.get(2), zone)?
        }
        Function::DateFormat => Cell::of(strtime::format(text(1)?, &date(0)?.to_zoned(zone(cells.get(2))?)).ok()?),
        Function::DateCast => match cells.get(1) {
            None => millis(instant(cells.first()?.get()?)?),
            Some(_) => millis(parsed(text(0)?, text(1)?)?),
        },
        Function::DateRange => {
            let (unit, step) = unit_and_amount(cells.get(2)?, cells.get(3)?)?;
            range(date(0)?, date(1)?, unit, step, cells.get(4), zone(cells.get(5))?, env)?
        }
        Function::TzOffset => {
            // Of a date in a zone, or of the zone that a date was written with.
            let zoned = date(0)?.to_zoned(zone_of(cells.first()?, cells.get(1))?);
            Cell::of(strtime::format("%:z", &zoned).ok()?)
        }
        Function::DurationCast => {
            let span: Span = text(0)?.parse().ok()?;
            let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
            Cell::of(i64::try_from(duration.as_millis()).ok()?)
        }
        Function::DurationFormat => match cells.first()?.get()? {
            Value::Int(number) => Cell::of(format!("{:#}", SignedDuration::from_millis(*number))),
            _ => return None,
        },
        _ => return None,
    })
}

/// A part of a date, the smallest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "year" | "years" => Self::Year,
            "mon" | "month" | "months" => Self::Month,
            "week" | "weeks" => Self::Week,
            "day" | "days" => Self::Day,
            "hour" | "hours" => Self::Hour,
            "min" | "minute" | "minutes" => Self::Minute,
            "sec" | "second" | "seconds" => Self::Second,
            "ms" | "millis" | "millisecond" | "milliseconds" => Self::Millisecond,
            _ => return None,
        })
    }

    /// How long it is; none for what the calendar decides.
    const fn millis(self) -> Option<i64> {
        Some(match self {
            Self::Year | Self::Month => return None,
            Self::Week => 7 * 86_400_000,
            Self::Day => 86_400_000,
            Self::Hour => 3_600_000,
            Self::Minute => 60_000,
            Self::Second => 1000,
            Self::Millisecond => 1,
        })
    }
}

/// A number of milliseconds, or text with a zone; text without one is in UTC.
fn instant(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) if text.len() <= MAX_FORMAT_BYTES => {
            let utc = |local: DateTime| local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
            let zoned = text.parse::<Timestamp>().ok().or_else(|| text.parse::<Zoned>().ok().map(|it| it.timestamp()));
            zoned.or_else(|| utc(text.parse().ok()?))
        }
        Value::Int(number) => Timestamp::from_millisecond(*number).ok(),
        other => match Number::of(other)? {
            #[allow(clippy::cast_possible_truncation, reason = "checked by the range of dates")]
            Number::Float(number) if number.is_finite() && number.abs() < 1e15 => {
                Timestamp::from_millisecond(number.trunc() as i64).ok()
            }
            _ => None,
        },
    }
}

fn parsed(text: &str, format: &str) -> Option<Timestamp> {
    let parsed = strtime::parse(format, text).ok()?;
    parsed.to_timestamp().ok().or_else(|| {
        let date = parsed.to_date().ok()?;
        let time = parsed.to_time().unwrap_or(Time::midnight());
        Some(date.to_datetime(time).to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

/// A zone by name or offset; UTC when none is given.
fn zone(cell: Option<&Cell<'_>>) -> Option<TimeZone> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    match cell {
        None => Some(TimeZone::UTC),
        Some(cell) => match cell.text().filter(|text| text.len() <= MAX_FORMAT_BYTES)? {
            "UTC" | "utc" | "Z" => Some(TimeZone::UTC),
            name => PARSER.parse_time_zone(name).ok(),
        },
    }
}

/// The zone that is given, else the one that the date was written with.
fn zone_of(date: &Cell<'_>, given: Option<&Cell<'_>>) -> Option<TimeZone> {
    match (given, date.text()) {
        (None, Some(text)) => {
            let zone = jiff::fmt::temporal::Pieces::parse(text).ok().and_then(|pieces| match pieces.to_time_zone() {
                Ok(Some(zone)) => Some(zone),
                Ok(None) | Err(_) => pieces.to_numeric_offset().map(TimeZone::fixed),
            });
            Some(zone.unwrap_or(TimeZone::UTC))
        }
        (given, _) => zone(given),
    }
}

/// `part, n` as the reference has it, or `n, part`.
fn unit_and_amount(first: &Cell<'_>, second: &Cell<'_>) -> Option<(Part, i64)> {
    match (first.get()?, second.get()?) {
        (Value::String(name), Value::Int(amount)) | (Value::Int(amount), Value::String(name)) => {
            Some((Part::named(name)?, *amount))
        }
        _ => None,
    }
}

fn millis<'a>(at: Timestamp) -> Cell<'a> {
    Cell::of(at.as_millisecond())
}

/// Milliseconds, or text in the format that is asked for.
fn made<'a>(at: Timestamp, format: Option<&Cell<'_>>, zone: TimeZone) -> Option<Cell<'a>> {
    match format {
        None => Some(millis(at)),
        Some(format) => {
            let format = format.text().filter(|text| text.len() <= MAX_FORMAT_BYTES)?;
            Some(Cell::of(strtime::format(format, &at.to_zoned(zone)).ok()?))
        }
    }
}

fn add(at: Timestamp, part: Part, amount: i64, zone: &TimeZone) -> Option<Timestamp> {
    let span = match part {
        Part::Year => Span::new().try_years(amount),
        Part::Month => Span::new().try_months(amount),
        Part::Week => Span::new().try_weeks(amount),
        Part::Day => Span::new().try_days(amount),
        Part::Hour | Part::Minute | Part::Second | Part::Millisecond => {
            let moved = at.as_millisecond().checked_add(part.millis()?.checked_mul(amount)?)?;
            return Timestamp::from_millisecond(moved).ok();
        }
    };
    Some(at.to_zoned(zone.clone()).checked_add(span.ok()?).ok()?.timestamp())
}

/// `a - b` in whole parts, without what is left over.
fn difference(a: Timestamp, b: Timestamp, part: Part) -> Option<i64> {
    let utc = |at: Timestamp| at.to_zoned(TimeZone::UTC).datetime();
    match part {
        Part::Year => Some(i64::from(utc(a).since((Unit::Year, utc(b))).ok()?.get_years())),
        Part::Month => Some(i64::from(utc(a).since((Unit::Month, utc(b))).ok()?.get_months())),
        other => a.as_millisecond().checked_sub(b.as_millisecond())?.checked_div(other.millis()?),
    }
}

fn truncated(at: Timestamp, part: Part, zone: &TimeZone) -> Option<Timestamp> {
    let local = at.to_zoned(zone.clone()).datetime();
    let (date, time) = (local.date(), local.time());
    let (hour, minute, second, milli) = (time.hour(), time.minute(), time.second(), time.millisecond());
    let start = match part {
        Part::Year => date.first_of_year().at(0, 0, 0, 0),
        Part::Month => date.first_of_month().at(0, 0, 0, 0),
        Part::Week => {
            let days = i64::from(date.weekday().to_monday_zero_offset());
            date.checked_sub(Span::new().try_days(days).ok()?).ok()?.at(0, 0, 0, 0)
        }
        Part::Day => date.at(0, 0, 0, 0),
        Part::Hour => date.at(hour, 0, 0, 0),
        Part::Minute => date.at(hour, minute, 0, 0),
        Part::Second => date.at(hour, minute, second, 0),
        Part::Millisecond => date.at(hour, minute, second, i32::from(milli) * 1_000_000),
    };
    Some(start.to_zoned(zone.clone()).ok()?.timestamp())
}

fn part<'a>(at: Zoned, name: &str) -> Option<Cell<'a>> {
    let number = match name.to_ascii_lowercase().as_str() {
        "weekday" | "dow" => i64::from(at.weekday().to_monday_one_offset()),
        "doy" => i64::from(at.day_of_year()),
        "quarter" => i64::from((at.month() - 1) / 3 + 1),
        "week" => i64::from(at.date().iso_week_date().week()),
        "monthname" => return Some(Cell::of(strtime::format("%B", &at).ok()?)),
        "tz" | "timezone" => return Some(Cell::of(strtime::format("%:z", &at).ok()?)),
        other => match Part::named(other)? {
            Part::Year => i64::from(at.year()),
            Part::Month => i64::from(at.month()),
            Part::Week => return None,
            Part::Day => i64::from(at.day()),
            Part::Hour => i64::from(at.hour()),
            Part::Minute => i64::from(at.minute()),
            Part::Second => i64::from(at.second()),
            Part::Millisecond => i64::from(at.millisecond()),
        },
    };
    Some(Cell::of(number))
}

/// From `start`, in steps, as long as they are before `end` (or after it, when the step is negative).
fn range<'a>(
    start: Timestamp,
    end: Timestamp,
    part: Part,
    step: i64,
    format: Option<&Cell<'_>>,
    zone: TimeZone,
    env: Env<'_>,
) -> Option<Cell<'a>> {
    let mut dates = Vec::new();
    for count in 0..=MAX_RANGE {
        // Each from the start: the last of January and a month more and more stays at the ends of months.
        let at = add(start, part, step.checked_mul(count)?, &zone)?;
        let before = if step > 0 { at < end } else { at > end };
        if step == 0 || !before {
            return Some(Cell::Own(Value::Array(dates)));
        }
        if !env.spend(4) {
            return None;
        }
        dates.push(made(at, format, zone.clone())?.into_value()?);
    }
    None
}
