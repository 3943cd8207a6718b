//! Reads JSON strictly: a struct is an object and nothing else.
//!
//! The code that serde derives for a struct also accepts an array of its fields in order, at every depth.
//! If the same content has a second form, two readers may disagree. So all JSON from bundles, registries and
//! media is read here.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Reads a value from the bytes of one JSON document.
///
/// # Errors
/// If the bytes are not one JSON document, are not of this form, or hold an array in place of a struct.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(Strict(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// Reads a list of at most `MAX` elements. It stops at the first one that is too many, before a long list
/// takes memory.
///
/// # Errors
/// If the value is not a list, an element is not of this form, or there are more than `MAX` elements.
pub fn at_most<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Few<const MAX: usize, T>(std::marker::PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Few<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::custom(format_args!("more than {MAX} elements in a list")));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Few::<MAX, T>(std::marker::PhantomData))
}

/// A wrapper around serde's deserializers and visitors. It asks for an object wherever a struct is expected, and wraps
/// the deserializers of the fields as well.
struct Strict<T>(T);

/// Asks for an object instead of a variant with fields.
struct Object<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Object<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_map(Strict(self.0))
    }
}

macro_rules! hand_on {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Strict(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    hand_on! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Strict(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! take {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    take! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(Strict(seed))?;
        Ok((value, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Strict(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.newtype_variant_seed(Object(visitor))
    }
}

/// Whether Go's `encoding/json` reads a key of an object as the field of this name, which is ASCII in lowercase. Go
/// ignores case, and also accepts the two other letters that Unicode folds to `k` and `s`.
pub(crate) fn is_go_key(key: &[u8], name: &str) -> bool {
    let folded = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        c => c.to_ascii_lowercase(),
    };
    std::str::from_utf8(key).is_ok_and(|key| key.chars().map(folded).eq(name.chars()))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        inner: Inner,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        map: BTreeMap<String, Inner>,
        #[serde(default)]
        maybe: Option<Inner>,
        #[serde(default)]
        wrapped: Option<Wrapped>,
        #[serde(default)]
        variant: Option<Variant>,
        #[serde(default)]
        pair: Option<(u8, Inner)>,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Inner {
        number: u64,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Wrapped(Inner);

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    enum Variant {
        Plain,
        Of(Inner),
        With { number: u64 },
    }

    #[test]
    fn a_struct_is_an_object_at_every_depth() {
        let read = |more: &str| {
            let text = format!(r#"{{"name":"x","inner":{{"number":1}}{more}}}"#);
            from_slice::<Outer<'_>>(text.as_bytes()).map(drop).map_err(|error| error.to_string())
        };
        for good in [
            "",
            r#","unknown":[[],{},null]"#,
            r#","list":[{"number":1},{"number":2}]"#,
            r#","map":{"a":{"number":1}}"#,
            r#","maybe":{"number":1}"#,
            r#","maybe":null"#,
            r#","wrapped":{"number":1}"#,
            r#","variant":"Plain""#,
            r#","variant":{"Of":{"number":1}}"#,
            r#","variant":{"With":{"number":1}}"#,
            r#","pair":[1,{"number":1}]"#,
        ] {
            assert_eq!(read(good), Ok(()), "{good}");
        }
        for bad in [
            r#","list":[[1]]"#,
            r#","map":{"a":[1]}"#,
            r#","maybe":[1]"#,
            r#","wrapped":[1]"#,
            r#","variant":{"Of":[1]}"#,
            r#","variant":{"With":[1]}"#,
            r#","pair":[1,[1]]"#,
        ] {
            let why = read(bad).unwrap_err();
            assert!(why.contains("invalid type: sequence"), "{bad}: {why}");
            // serde accepts this without the wrapper.
            let text = format!(r#"{{"name":"x","inner":{{"number":1}}{bad}}}"#);
            assert!(serde_json::from_str::<Outer<'_>>(&text).is_ok(), "{bad}");
        }
        assert!(from_slice::<Inner>(b"[1]").is_err() && serde_json::from_slice::<Inner>(b"[1]").is_ok());
        assert!(from_slice::<Inner>(br#"{"number":1} x"#).is_err(), "nothing may follow");
    }

    #[test]
    fn text_is_borrowed_and_depth_is_bounded() {
        let outer: Outer<'_> = from_slice(br#"{"name":"x","inner":{"number":1}}"#).unwrap();
        assert!(matches!(outer.name, Cow::Borrowed("x")));
        let deep = [b"[".repeat(1000), b"]".repeat(1000)].concat();
        assert!(from_slice::<serde_json::Value>(&deep).is_err());
    }

    #[test]
    fn a_list_ends_at_its_limit() {
        #[derive(Deserialize)]
        struct Few {
            #[serde(deserialize_with = "at_most::<2, _, _>")]
            list: Vec<u8>,
        }
        assert_eq!(from_slice::<Few>(br#"{"list":[1,2]}"#).unwrap().list, [1, 2]);
        // The text after the third element is not read.
        let error = from_slice::<Few>(br#"{"list":[1,2,3,"#).map(|few| few.list).unwrap_err();
        assert!(error.to_string().contains("more than 2 elements"), "{error}");
    }
}
