//! Serializer adapter that writes names and enums as .NET does.
//!
//! The adapter sits between a derived `Serialize` and the format, and wraps nested values.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::letter_case::LetterCase;

/// Name that marks an extension in `rmp_serde`. Its content must not be wrapped.
const EXTENSION_STRUCT: &str = "_ExtStruct";
/// Prefix of the names that mark `serde_json`'s own structs.
const JSON_PRIVATE: &str = "$serde_json::private::";

pub(super) struct Renamed<'a, T: ?Sized>(pub(super) &'a T);

/// Key of a map. Texts stay unchanged, and enums are texts here even in JSON.
struct RenamedKey<'a, T: ?Sized>(&'a T);

struct RenamingSerializer<S>(S);

struct RenamingCompound<C>(C);

enum RenamingStruct<S: Serializer> {
    /// As a map, because struct fields cannot have names created at run time.
    Map { map: S::SerializeMap, case: LetterCase, name: String },
    /// Passed to the format unchanged.
    Verbatim(S::SerializeStruct),
}

impl<T: Serialize + ?Sized> Serialize for Renamed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(RenamingSerializer(serializer))
    }
}

impl<T: Serialize + ?Sized> Serialize for RenamedKey<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            Renamed(self.0).serialize(serializer)
        }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method(self, $($argument: $type),*) -> Result<S::Ok, S::Error> {
            self.0.$method($($argument),*)
        })*
    };
}

macro_rules! compound {
    ($($method:ident($($argument:ident: $type:ty),*) -> $compound:ident;)*) => {
        $(fn $method(self, $($argument: $type),*) -> Result<Self::$compound, S::Error> {
            self.0.$method($($argument),*).map(RenamingCompound)
        })*
    };
}

impl<S: Serializer> Serializer for RenamingSerializer<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = RenamingCompound<S::SerializeSeq>;
    type SerializeTuple = RenamingCompound<S::SerializeTuple>;
    type SerializeTupleStruct = RenamingCompound<S::SerializeTupleStruct>;
    type SerializeTupleVariant = RenamingCompound<S::SerializeTupleVariant>;
    type SerializeMap = RenamingCompound<S::SerializeMap>;
    type SerializeStruct = RenamingStruct<S>;
    type SerializeStructVariant = RenamingCompound<S::SerializeStructVariant>;

    forward! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
    }

    compound! {
        serialize_seq(length: Option<usize>) -> SerializeSeq;
        serialize_tuple(length: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, length: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, length: usize) -> SerializeTupleVariant;
        serialize_map(length: Option<usize>) -> SerializeMap;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, length: usize) -> SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Renamed(value))
    }

    /// Encodes an enum as System.Text.Json does, or as the MessagePack options of SignalR for .NET do.
    fn serialize_unit_variant(self, _: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        if self.0.is_human_readable() {
            return self.0.serialize_u32(index);
        }
        self.0.serialize_str(LetterCase::Pascal.convert(variant, &mut String::new()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        if name == EXTENSION_STRUCT {
            return self.0.serialize_newtype_struct(name, value);
        }
        self.0.serialize_newtype_struct(name, &Renamed(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Renamed(value))
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, S::Error> {
        if name.starts_with(JSON_PRIVATE) {
            return self.0.serialize_struct(name, length).map(RenamingStruct::Verbatim);
        }
        let case = if self.0.is_human_readable() { LetterCase::Camel } else { LetterCase::Pascal };
        let map = self.0.serialize_map(Some(length))?;
        Ok(RenamingStruct::Map { map, case, name: String::new() })
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<S: Serializer> SerializeStruct for RenamingStruct<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), S::Error> {
        match self {
            Self::Map { map, case, name } => map.serialize_entry(case.convert(key, name), &Renamed(value)),
            Self::Verbatim(inner) => inner.serialize_field(key, value),
        }
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        match self {
            Self::Map { map, .. } => map.end(),
            Self::Verbatim(inner) => inner.end(),
        }
    }
}

macro_rules! elements {
    ($($kind:ident::$method:ident($($key:ident)?);)*) => {
        $(impl<C: $kind> $kind for RenamingCompound<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $($key: &'static str,)? value: &T) -> Result<(), C::Error> {
                self.0.$method($($key,)? &Renamed(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element();
    SerializeTuple::serialize_element();
    SerializeTupleStruct::serialize_field();
    SerializeTupleVariant::serialize_field();
    SerializeStructVariant::serialize_field(key);
}

impl<C: SerializeMap> SerializeMap for RenamingCompound<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(&RenamedKey(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Renamed(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}
