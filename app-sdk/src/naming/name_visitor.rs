//! Visitor adaptor for names of fields and variants.

use std::fmt;

use serde::de::{Error, Visitor};

use super::letter_case::canonical;

/// Visitor that gives the name's own visitor the known name that is meant.
pub(super) struct NameVisitor<V> {
    pub(super) inner: V,
    pub(super) names: &'static [&'static str],
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

    // Keys of maps that some clients write as numbers.
    fn visit_u64<E: Error>(self, number: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(number)
    }
}
