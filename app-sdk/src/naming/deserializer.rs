//! Deserializer adapter that matches fields and variants case-insensitively.
//!
//! A derived `Deserialize` announces the names that it accepts. Each input name is replaced by the matching one before
//! serde compares it. Nested values are wrapped, too.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use super::letter_case::canonical;

pub(super) struct CaseBlind<T>(pub(super) T);

struct CaseBlindSeed<T> {
    seed: T,
    /// Accepted names, if the seed is for a name.
    names: &'static [&'static str],
}

struct CaseBlindDeserializer<D> {
    inner: D,
    /// Accepted names of the next identifier.
    names: &'static [&'static str],
}

impl<D> CaseBlindDeserializer<D> {
    fn new(inner: D) -> Self {
        Self { inner, names: &[] }
    }
}

impl<T> CaseBlindSeed<T> {
    fn of_value(seed: T) -> Self {
        Self { seed, names: &[] }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for CaseBlind<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(CaseBlindDeserializer::new(deserializer)).map(Self)
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for CaseBlindSeed<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.seed.deserialize(CaseBlindDeserializer { inner: deserializer, names: self.names })
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* CaseBlindVisitor { inner: visitor, names: &[] })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for CaseBlindDeserializer<D> {
    type Error = D::Error;

    forward! {
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
        deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, CaseBlindVisitor { inner: visitor, names: fields })
    }

    /// Decodes an enum from any value, because the formats themselves reject numbers.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(EnumVisitor { inner: visitor, variants })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(NameVisitor { inner: visitor, names: self.names })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

struct CaseBlindVisitor<V> {
    inner: V,
    /// Fields of a struct; empty for any other value.
    names: &'static [&'static str],
}

/// Elements of a sequence or entries of a map during a visit.
struct CaseBlindAccess<A> {
    inner: A,
    names: &'static [&'static str],
}

macro_rules! forward_visits {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for CaseBlindVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visits! {
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
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(CaseBlindDeserializer::new(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(CaseBlindDeserializer::new(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(CaseBlindAccess { inner: seq, names: &[] })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(CaseBlindAccess { inner: map, names: self.names })
    }

    // Enums have their own visitor.
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(access)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for CaseBlindAccess<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.inner.next_element_seed(CaseBlindSeed::of_value(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for CaseBlindAccess<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(CaseBlindSeed { seed, names: self.names })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.next_value_seed(CaseBlindSeed::of_value(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct EnumVisitor<V> {
    inner: V,
    variants: &'static [&'static str],
}

/// Map with one entry: a variant and its data.
struct VariantWithData<A> {
    map: A,
    variants: &'static [&'static str],
}

struct TupleSeed<V> {
    length: usize,
    visitor: V,
}

struct StructSeed<V> {
    fields: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for EnumVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        let meant = canonical(name, self.variants);
        // In formats with text keys, a number is a text too.
        if !self.variants.contains(&meant)
            && let Ok(number) = name.parse()
        {
            return self.visit_u64(number);
        }
        let variant: StrDeserializer<'_, E> = meant.into_deserializer();
        self.inner.visit_enum(variant)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<V::Value, E> {
        let unknown = |_| E::invalid_value(Unexpected::Unsigned(number), &"the number of a variant");
        // By number, because the list of names includes aliases.
        self.inner.visit_enum(u32::try_from(number).map_err(unknown)?.into_deserializer())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V::Value, E> {
        let unknown = |_| E::invalid_value(Unexpected::Signed(number), &"the number of a variant");
        self.visit_u64(u64::try_from(number).map_err(unknown)?)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(VariantWithData { map, variants: self.variants })
    }
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for VariantWithData<A> {
    type Error = A::Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<(T::Value, Self), A::Error> {
        let variant = self.map.next_key_seed(CaseBlindSeed { seed, names: self.variants })?;
        Ok((variant.ok_or_else(|| A::Error::invalid_length(0, &"a variant and its data"))?, self))
    }
}

impl<A> VariantWithData<A> {
    fn data<'de, T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, A::Error>
    where
        A: MapAccess<'de>,
    {
        let data = self.map.next_value_seed(CaseBlindSeed::of_value(seed))?;
        match self.map.next_key::<IgnoredAny>()? {
            None => Ok(data),
            Some(IgnoredAny) => Err(A::Error::invalid_length(2, &"one variant and its data")),
        }
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for VariantWithData<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.data(std::marker::PhantomData)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.data(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.data(TupleSeed { length, visitor })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.data(StructSeed { fields, visitor })
    }
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for TupleSeed<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_tuple(self.length, self.visitor)
    }
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for StructSeed<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_struct("", self.fields, self.visitor)
    }
}

/// Visitor that passes the matching accepted name to the name's own visitor.
struct NameVisitor<V> {
    inner: V,
    names: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for NameVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        self.inner.visit_str(canonical(name, self.names))
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<V::Value, E> {
        self.inner.visit_borrowed_str(canonical(name, self.names))
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<V::Value, E> {
        match std::str::from_utf8(name) {
            Ok(name) => self.visit_str(name),
            Err(_) => self.inner.visit_bytes(name),
        }
    }

    // Some clients write map keys as numbers.
    fn visit_u64<E: Error>(self, number: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(number)
    }
}
