//! `Value` and `Object`: what registers hold and what readers see.

use std::cmp::Ordering;
use std::fmt;

/// A JSON-like value. Integers stay integers: 1 and 1.0 are different values that compare equal only in a query.
///
/// Equality is identity of the canonical encoding: floats are compared by their bits, every NaN is one NaN.
#[derive(Clone)]
pub enum Value {
    /// `null`, which is not the absence of a value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer that fits into `i64`.
    Int(i64),
    /// An integer above `i64::MAX`; smaller ones are [`Value::Int`].
    UInt(u64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    String(Box<str>),
    /// Binary data.
    Bytes(Box<[u8]>),
    /// A list; written and merged as a whole.
    Array(Vec<Value>),
    /// Keys and values; here written and merged as a whole.
    Object(Object),
}

/// The bits of the one NaN that encodings use.
pub(crate) const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// The bits of `number`, with every NaN made the same.
pub(crate) fn float_bits(number: f64) -> u64 {
    if number.is_nan() { NAN_BITS } else { number.to_bits() }
}

impl Value {
    /// Whether this is [`Value::Null`].
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if this is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The object, if this is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// How deep containers nest: 0 for a scalar, 1 for `[]` and `{}`.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(object) => 1 + object.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::UInt(_)
            | Self::Float(_)
            | Self::String(_)
            | Self::Bytes(_) => 0,
        }
    }

    /// The same value with the one representation that encodings use: unsigned integers only where signed ones do
    /// not fit, one NaN.
    #[must_use]
    pub fn normalized(self) -> Self {
        match self {
            Self::UInt(number) => Self::from(number),
            Self::Float(number) if number.is_nan() => Self::Float(f64::from_bits(NAN_BITS)),
            Self::Array(items) => Self::Array(items.into_iter().map(Self::normalized).collect()),
            Self::Object(object) => Self::Object(object.into_iter().map(|(k, v)| (k, v.normalized())).collect()),
            same @ (Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::String(_) | Self::Bytes(_)) => {
                same
            }
        }
    }

    /// Heap bytes behind this value, estimated from lengths.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::UInt(_) | Self::Float(_) => 0,
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(items) => {
                items.capacity() * size_of::<Self>() + items.iter().map(Self::heap_bytes).sum::<usize>()
            }
            Self::Object(object) => object.heap_bytes(),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::UInt(a), Self::UInt(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => float_bits(*a) == float_bits(*b),
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            (
                Self::Null
                | Self::Bool(_)
                | Self::Int(_)
                | Self::UInt(_)
                | Self::Float(_)
                | Self::String(_)
                | Self::Bytes(_)
                | Self::Array(_)
                | Self::Object(_),
                _,
            ) => false,
        }
    }
}

impl Eq for Value {}

/// JSON text, with bytes as their length.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::UInt(value) => write!(f, "{value}u"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::String(value) => value.fmt(f),
            Self::Bytes(value) => write!(f, "<{} bytes>", value.len()),
            Self::Array(value) => value.fmt(f),
            Self::Object(value) => value.fmt(f),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$value:ident| $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self { $to }
        }
    )*};
}

value_from! {
    bool => |value| Self::Bool(value);
    i32 => |value| Self::Int(value.into());
    i64 => |value| Self::Int(value);
    u32 => |value| Self::Int(value.into());
    u64 => |value| i64::try_from(value).map_or(Self::UInt(value), Self::Int);
    f64 => |value| Self::Float(value);
    &str => |value| Self::String(value.into());
    String => |value| Self::String(value.into());
    Box<str> => |value| Self::String(value);
    Vec<u8> => |value| Self::Bytes(value.into());
    Vec<Value> => |value| Self::Array(value);
    Object => |value| Self::Object(value);
}

/// Keys, unique and sorted by their bytes, with a value each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Object(Vec<(Box<str>, Value)>);

impl Object {
    /// An object without keys.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        // Objects are mostly built in order: look at the end first.
        match self.0.last() {
            None => Err(0),
            Some((last, _)) => match last.as_ref().cmp(key) {
                Ordering::Less => Err(self.0.len()),
                Ordering::Equal => Ok(self.0.len() - 1),
                Ordering::Greater => self.0.binary_search_by(|(probe, _)| probe.as_ref().cmp(key)),
            },
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The value at `path`, through objects only. An empty path has none.
    #[must_use]
    pub fn get_path(&self, path: &[impl AsRef<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.get(first.as_ref())?, |value, key| value.as_object()?.get(key.as_ref()))
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Sets `key`; answers what it held before.
    pub fn insert(&mut self, key: impl Into<Box<str>>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.find(&key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes `key`; answers what it held.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// Whether `key` is present.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Keys and values in key order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + DoubleEndedIterator + Clone {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_ref())
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Heap bytes behind this object, estimated from lengths.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<(Box<str>, Value)>()
            + self.0.iter().map(|(key, value)| key.len() + value.heap_bytes()).sum::<usize>()
    }

    /// From entries that are already sorted and unique.
    pub(crate) fn from_sorted(entries: Vec<(Box<str>, Value)>) -> Self {
        debug_assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b));
        Self(entries)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The last value of a key that comes more than once stays.
impl<K: Into<Box<str>>> FromIterator<(K, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(entries: I) -> Self {
        let mut entries: Vec<(Box<str>, Value)> = entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
        // Stable, so of equal keys the last one comes last; keeping that one means dropping each that a later equals.
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self(entries)
    }
}

impl IntoIterator for Object {
    type Item = (Box<str>, Value);
    type IntoIter = std::vec::IntoIter<(Box<str>, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
