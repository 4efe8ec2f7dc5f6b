//! JSON in which an object stands where an object is expected. Serde takes an array for it, with the fields in some order that
//! nobody promised.
//!
//! Behind what serde reads into memory first (enums with a tag inside, flattened fields) it takes them all the same.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Reads as the deserializer within it, and refuses arrays in the place of structs, however deep.
pub(crate) struct Strict<D>(pub(crate) D);

/// Sees what the visitor within it sees; no array, when `closed`.
struct Seen<V> {
    visitor: V,
    closed: bool,
}

const fn open<V>(visitor: V) -> Seen<V> {
    Seen { visitor, closed: false }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name($($arg,)* open(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward! {
        deserialize_any(); deserialize_bool(); deserialize_i8(); deserialize_i16(); deserialize_i32(); deserialize_i64();
        deserialize_i128(); deserialize_u8(); deserialize_u16(); deserialize_u32(); deserialize_u64(); deserialize_u128();
        deserialize_f32(); deserialize_f64(); deserialize_char(); deserialize_str(); deserialize_string();
        deserialize_bytes(); deserialize_byte_buf(); deserialize_option(); deserialize_unit();
        deserialize_unit_struct(name: &'static str); deserialize_newtype_struct(name: &'static str);
        deserialize_seq(); deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize); deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier(); deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Seen { visitor, closed: true })
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($name:ident($kind:ty);)*) => {
        $(fn $name<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.visitor.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Seen<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.closed { f.write_str("an object") } else { self.visitor.expecting(f) }
    }

    visit! {
        visit_bool(bool); visit_i8(i8); visit_i16(i16); visit_i32(i32); visit_i64(i64); visit_i128(i128);
        visit_u8(u8); visit_u16(u16); visit_u32(u32); visit_u64(u64); visit_u128(u128); visit_f32(f32); visit_f64(f64);
        visit_char(char); visit_str(&str); visit_borrowed_str(&'de str); visit_string(String);
        visit_bytes(&[u8]); visit_borrowed_bytes(&'de [u8]); visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<V::Value, A::Error> {
        if self.closed {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        self.visitor.visit_seq(Within(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Within(all))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, all: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Within(all))
    }
}

/// What is in an array, an object or an enum; and a seed of it.
struct Within<A>(A);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Within<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Within(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        // Keys are text, and read as the deserializer likes to read keys.
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Within(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Within<A> {
    type Error = A::Error;
    type Variant = Within<A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(value, variant)| (value, Within(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Within<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Within(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, open(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Seen { visitor, closed: true })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use crate::{ApiError, Json};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: u8,
        #[serde(default)]
        b: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Unit,
        Point(Inner),
        Fields { x: i64 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        one: Inner,
        #[serde(default)]
        some: Option<Inner>,
        many: Vec<Inner>,
        kind: Kind,
        #[serde(default)]
        pair: (u8, f64),
        #[serde(default)]
        raw: serde_json::Value,
    }

    fn parse(json: &serde_json::Value) -> Result<Outer, ApiError> {
        Json::<Outer>::parse(json.to_string().as_bytes()).map(|json| json.0)
    }

    #[test]
    fn arrays_stand_for_arrays_only() {
        let good = json!({"one": {"a": 1}, "some": {"a": 2, "b": "x"}, "many": [{"a": 3}], "kind": {"Fields": {"x": -1}},
            "pair": [1, 2.5], "raw": [[1], {"x": [null]}]});
        let read = parse(&good).unwrap();
        assert_eq!((read.one.a, read.some.unwrap().b.as_deref(), read.many.len()), (1, Some("x"), 1));
        assert_eq!((read.kind, read.pair, read.raw), (Kind::Fields { x: -1 }, (1, 2.5), json!([[1], {"x": [null]}])));
        for kind in [json!("Unit"), json!({"Point": {"a": 1}})] {
            let mut with = good.clone();
            with["kind"] = kind;
            assert!(parse(&with).is_ok());
        }
        for (at, bad) in [
            ("/one", json!([1, "x"])),
            ("/some", json!([1, "x"])),
            ("/many/0", json!([3, null])),
            ("/kind", json!({"Point": [1, null]})),
            ("/kind", json!({"Fields": [1]})),
            ("/one/a", json!(300)),
        ] {
            let mut with = good.clone();
            *with.pointer_mut(at).unwrap() = bad;
            let error = parse(&with).unwrap_err();
            assert!(error.position.is_some() && error.message.contains("not the JSON"), "{at}: {error}");
        }
        assert!(Json::<Inner>::parse(b"[1, \"x\"]").is_err());
        assert!(Json::<Inner>::parse(b"{\"a\": 1} trailing").is_err());
    }
}
