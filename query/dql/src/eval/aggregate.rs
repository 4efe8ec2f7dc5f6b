//! Aggregates over the rows of a group.

use std::collections::BTreeSet;

use bigpeer_crdt::Value;

use super::Cell;
use super::compare::{Key, total_values};
use super::number::{Number, compare};
use crate::ast::AggregateKind;

/// One aggregate of one group, under way.
#[derive(Clone, Debug)]
pub(crate) struct Accumulator {
    state: State,
    /// The values seen, of `DISTINCT`.
    seen: Option<BTreeSet<Key>>,
}

#[derive(Clone, Debug)]
enum State {
    Rows(u64),
    Count(u64),
    Sum(Sum),
    Avg(Sum),
    Min(Option<Value>),
    Max(Option<Value>),
    Median(Vec<Number>),
    Mid(Option<(Number, Number)>),
}

/// Integers exactly, floats with compensation (Neumaier), so that the order of rows hardly matters.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    ints: i128,
    float: f64,
    lost: f64,
    floats: bool,
}

impl Sum {
    fn add(&mut self, number: Number) {
        self.count += 1;
        match number {
            Number::Int(number) => self.ints = self.ints.saturating_add(number),
            Number::Float(number) => {
                let sum = self.float + number;
                if sum.is_finite() {
                    let (big, small) =
                        if self.float.abs() >= number.abs() { (self.float, number) } else { (number, self.float) };
                    self.lost += (big - sum) + small;
                }
                self.float = sum;
                self.floats = true;
            }
        }
    }

    fn total(self) -> Number {
        if self.floats {
            Number::Float(self.float + self.lost + Number::Int(self.ints).to_float())
        } else {
            Number::Int(self.ints)
        }
    }
}

impl Accumulator {
    /// Counts rows when there is no argument.
    pub(crate) fn new(kind: AggregateKind, distinct: bool, of_rows: bool) -> Self {
        let state = match kind {
            AggregateKind::Count if of_rows => State::Rows(0),
            AggregateKind::Count => State::Count(0),
            AggregateKind::Sum => State::Sum(Sum::default()),
            AggregateKind::Avg => State::Avg(Sum::default()),
            AggregateKind::Min => State::Min(None),
            AggregateKind::Max => State::Max(None),
            AggregateKind::Median => State::Median(Vec::new()),
            AggregateKind::Mid => State::Mid(None),
        };
        Self { state, seen: distinct.then(BTreeSet::new) }
    }

    /// Takes a row's value; answers how many bytes it now keeps more.
    pub(crate) fn add(&mut self, cell: &Cell<'_>) -> usize {
        if let State::Rows(rows) = &mut self.state {
            *rows += 1;
            return 0;
        }
        let Some(value) = cell.get().filter(|value| !value.is_null()) else { return 0 };
        let mut kept = 0;
        if let Some(seen) = &mut self.seen {
            let key = Key(Some(value.clone()));
            if seen.contains(&key) {
                return 0;
            }
            kept += size_of::<Key>() + value.heap_bytes();
            seen.insert(key);
        }
        let number = Number::of(value);
        match (&mut self.state, number) {
            (State::Rows(_), _) => {}
            (State::Count(count), _) => *count += u64::from(*value != Value::Bool(false)),
            (State::Sum(sum) | State::Avg(sum), Some(number)) => sum.add(number),
            (State::Min(least), _) => replace_if(least, value, |order| order.is_lt()),
            (State::Max(greatest), _) => replace_if(greatest, value, |order| order.is_gt()),
            (State::Median(numbers), Some(number)) if !number.is_nan() => {
                numbers.push(number);
                kept += size_of::<Number>();
            }
            (State::Mid(ends), Some(number)) if !number.is_nan() => {
                *ends = Some(match *ends {
                    None => (number, number),
                    Some((least, greatest)) => (
                        if compare(number, least).is_some_and(|order| order.is_lt()) { number } else { least },
                        if compare(number, greatest).is_some_and(|order| order.is_gt()) { number } else { greatest },
                    ),
                });
            }
            (State::Sum(_) | State::Avg(_) | State::Median(_) | State::Mid(_), _) => {}
        }
        kept
    }

    /// The result: over no rows 0 for COUNT, MISSING for the others.
    #[allow(clippy::cast_precision_loss, reason = "a mean is a float")]
    pub(crate) fn finish(self) -> Option<Value> {
        match self.state {
            State::Rows(count) | State::Count(count) => Some(Value::from(count)),
            State::Sum(sum) => (sum.count > 0).then(|| sum.total().value()),
            State::Avg(sum) => (sum.count > 0).then(|| Value::Float(sum.total().to_float() / sum.count as f64)),
            State::Min(value) | State::Max(value) => value,
            State::Median(numbers) => median(numbers),
            State::Mid(ends) => ends.map(|(least, greatest)| mean(least, greatest)),
        }
    }
}

fn replace_if(best: &mut Option<Value>, value: &Value, better: impl Fn(std::cmp::Ordering) -> bool) {
    if best.as_ref().is_none_or(|best| better(total_values(value, best))) {
        *best = Some(value.clone());
    }
}

fn mean(a: Number, b: Number) -> Value {
    Value::Float(a.to_float() / 2.0 + b.to_float() / 2.0)
}

fn median(mut numbers: Vec<Number>) -> Option<Value> {
    numbers.sort_by(|a, b| compare(*a, *b).unwrap_or(std::cmp::Ordering::Equal));
    let middle = *numbers.get(numbers.len() / 2)?;
    if numbers.len() % 2 == 1 {
        return Some(middle.value());
    }
    let below = numbers.len().checked_div(2)?.checked_sub(1).and_then(|at| numbers.get(at))?;
    Some(mean(*below, middle))
}
