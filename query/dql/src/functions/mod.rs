//! The functions: their names and how many arguments they take. What they do is in the modules below, by what they
//! work on. Wrong argument types give MISSING, never an error; NULL in gives NULL out unless a function is about NULL.

#![allow(clippy::wildcard_enum_match_arm, reason = "each of these modules names its own functions")]

mod conditional;
mod date;
mod kinds;
mod object;
mod text;

use smallvec::SmallVec;

use crate::ast::CastType;
use crate::eval::node::Node;
use crate::eval::number::Number;
use crate::eval::{Cell, Env};

macro_rules! functions {
    ($($variant:ident $name:literal $min:literal..=$max:literal;)*) => {
        /// A function of DQL.
        #[allow(missing_docs, reason = "the names are the documentation; docs/dql.md describes each")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Function { $($variant),* }

        impl Function {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The canonical name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The least and the greatest number of arguments.
            #[must_use]
            pub const fn arity(self) -> (usize, usize) {
                match self { $(Self::$variant => ($min, $max)),* }
            }
        }
    };
}

functions! {
    Abs "abs" 1..=1; Ceil "ceil" 1..=1; Floor "floor" 1..=1;
    Concat "concat" 1..=64; StartsWith "starts_with" 2..=2; EndsWith "ends_with" 2..=2; Contains "contains" 2..=2;
    RegexpLike "regexp_like" 2..=3; CharLength "char_length" 1..=1; ByteLength "byte_length" 1..=1;
    Lower "lower" 1..=1; Upper "upper" 1..=1; Substr "substr" 2..=3; Pos "pos" 2..=2; Split "split" 2..=2;
    Joinstr "joinstr" 1..=64; Trim "trim" 1..=2; Ltrim "ltrim" 1..=2; Rtrim "rtrim" 1..=2; Lpad "lpad" 2..=3;
    Rpad "rpad" 2..=3; Repeat "repeat" 2..=2;
    Coalesce "coalesce" 1..=64; Nvl "nvl" 2..=3; IfMissing "ifmissing" 2..=64; IfNull "ifnull" 2..=64;
    IfMissingOrNull "ifmissingornull" 2..=64; IsMissing "ismissing" 1..=1; IsNull "isnull" 1..=1;
    IsMissingOrNull "ismissingornull" 1..=1; NullIf "nullif" 2..=2; MissingIf "missingif" 2..=2;
    Decode "decode" 3..=64;
    Type "type" 1..=1; JsonType "json_type" 1..=1; IsNumber "is_number" 1..=1; IsString "is_string" 1..=1;
    IsBoolean "is_boolean" 1..=1;
    ObjectKeys "object_keys" 1..=1; ObjectValues "object_values" 1..=1; ObjectLength "object_length" 1..=1;
    ObjectSet "object_set" 3..=4; ObjectUnset "object_unset" 2..=3; ObjectConcat "object_concat" 1..=64;
    ObjectRename "object_rename" 3..=3; ObjectSize "object_size" 1..=1;
    ArrayContains "array_contains" 2..=2; ArrayContainsNull "array_contains_null" 1..=1;
    ArrayLength "array_length" 1..=1;
    SerializeJson "serialize_json" 1..=1; DeserializeJson "deserialize_json" 1..=1;
    Clock "clock" 0..=2; RequestInfo "request_info" 0..=0;
    DateAdd "date_add" 3..=5; DateSub "date_sub" 3..=5; DateDiff "date_diff" 3..=3; DatePart "date_part" 2..=3;
    DateTrunc "date_trunc" 2..=4; DateFormat "date_format" 2..=3; DateCast "date_cast" 1..=2;
    DateRange "date_range" 4..=6; TzOffset "tz_offset" 1..=2; DurationCast "duration_cast" 1..=1;
    DurationFormat "duration_format" 1..=1;
}

impl Function {
    /// The function of this name, in any case, or one of its other names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let canonical = match lower.as_str() {
            "character_length" | "length" => "char_length",
            "position" => "pos",
            "ceiling" => "ceil",
            other => other,
        };
        Self::ALL.iter().copied().find(|function| function.name() == canonical)
    }

    /// The name as it is printed: a keyword needs backticks.
    pub(crate) fn display_name(self) -> String {
        if crate::keyword::is_plain_identifier(self.name()) {
            self.name().to_owned()
        } else {
            format!("`{}`", self.name())
        }
    }
}

impl CastType {
    /// The type of this name, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "string" | "text" => Some(Self::String),
            "integer" | "int" | "bigint" => Some(Self::Integer),
            "float" | "double" | "real" => Some(Self::Float),
            "boolean" => Some(Self::Boolean),
            "binary" => Some(Self::Binary),
            _ => None,
        }
    }
}

/// Longest string or binary that a function makes, in bytes: nothing longer can be stored.
const MAX_TEXT_BYTES: usize = bigpeer_types::limits::MAX_DOCUMENT_BYTES;

/// Calls `function`. Arguments of functions about MISSING and NULL are evaluated as they are needed, all others before.
pub(crate) fn call<'a>(function: Function, args: &'a [Node], env: Env<'a>) -> Cell<'a> {
    if let Some(cell) = conditional::call(function, args, env) {
        return cell;
    }
    let cells: SmallVec<[Cell<'a>; 4]> = args.iter().map(|arg| arg.eval(env)).collect();
    if let Some(cell) = kinds::call(function, &cells) {
        return cell;
    }
    if cells.iter().any(Cell::is_missing) {
        return Cell::Missing;
    }
    if cells.iter().any(Cell::is_null) && !matches!(function, Function::ObjectSet | Function::ArrayContains) {
        return Cell::NULL;
    }
    text::call(function, &cells, env)
        .or_else(|| object::call(function, &cells))
        .or_else(|| number(function, &cells))
        .or_else(|| date::call(function, &cells, env))
        .unwrap_or(Cell::Missing)
}

fn number<'a>(function: Function, cells: &[Cell<'a>]) -> Option<Cell<'a>> {
    let number = Number::of(cells.first()?.get()?)?;
    let value = match (function, number) {
        (Function::Abs, Number::Int(number)) => Number::Int(number.abs()),
        (Function::Abs, Number::Float(number)) => Number::Float(number.abs()),
        (Function::Ceil | Function::Floor, Number::Int(_)) => number,
        (Function::Ceil, Number::Float(number)) => Number::Float(number.ceil()),
        (Function::Floor, Number::Float(number)) => Number::Float(number.floor()),
        _ => return None,
    };
    Some(Cell::Own(value.value()))
}

pub(crate) use kinds::cast;
pub(crate) use text::concat;
