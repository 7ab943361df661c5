//! TOML tables and values with their positions, for the rule readers.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trunkline_protocol::pattern::PatternError;

use crate::ground::routing::rule_error::{Fault, RuleProblem, nearest};

/// Maximum length of a text. Longer ones (pages) are in files of their own.
const TEXT_MAX_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy)]
pub(super) struct TomlValue<'t> {
    pub key: &'static str,
    pub at: usize,
    value: &'t DeValue<'t>,
}

impl<'t> TomlValue<'t> {
    pub(super) fn new(key: &'static str, value: &'t Spanned<DeValue<'t>>) -> Self {
        Self { key, at: value.span().start, value: value.get_ref() }
    }

    fn kind(&self, wanted: &'static str) -> Fault {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(RuleProblem::Kind { key: self.key, found, wanted })
    }

    /// Attaches this value's position to a problem.
    pub(super) fn fault(&self, problem: RuleProblem) -> Fault {
        problem.at(self.at)
    }

    pub(super) fn text(&self) -> Result<&'t str, Fault> {
        let text = self.value.as_str().ok_or_else(|| self.kind("a string"))?;
        match text.len() {
            bytes if bytes > TEXT_MAX_BYTES => {
                Err(self.fault(RuleProblem::TooLong { key: self.key, bytes, most: TEXT_MAX_BYTES }))
            }
            _ => Ok(text),
        }
    }

    pub(super) fn truth(&self) -> Result<bool, Fault> {
        self.value.as_bool().ok_or_else(|| self.kind("true or false"))
    }

    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Result<u32, Fault> {
        let integer = self.value.as_integer().ok_or_else(|| self.kind("a whole number"))?;
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| self.out_of(&range, integer))
    }

    /// Reads a number within a range, with or without a decimal point.
    pub(super) fn fraction(&self, range: RangeInclusive<f64>) -> Result<f64, Fault> {
        let (number, text) = match self.value {
            DeValue::Float(float) => (float.as_str().parse().ok(), float.to_string()),
            DeValue::Integer(integer) => {
                let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
                (number.map(f64::from), integer.to_string())
            }
            _ => return Err(self.kind("a number")),
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| self.out_of(&range, text))
    }

    fn out_of<T: Display>(&self, range: &RangeInclusive<T>, found: impl Display) -> Fault {
        let (least, most) = (range.start().to_string(), range.end().to_string());
        self.fault(RuleProblem::Range { key: self.key, found: found.to_string(), least, most })
    }

    /// Reads a duration in milliseconds: a number of seconds, or a text such as `90s`.
    pub(super) fn milliseconds(&self, range: RangeInclusive<Duration>) -> Result<u64, Fault> {
        let (time, found) = match self.value {
            DeValue::Integer(seconds) => {
                (seconds.to_string().parse().ok().map(Duration::from_secs), seconds.to_string())
            }
            DeValue::String(text) => {
                let time = humantime::parse_duration(text).ok();
                (Some(time.ok_or_else(|| self.choice(text, "seconds, or a time such as \"90s\""))?), text.to_string())
            }
            _ => return Err(self.kind("seconds, or a time such as \"90s\"")),
        };
        let time = time.filter(|time| range.contains(time)).ok_or_else(|| {
            let [least, most] = [range.start(), range.end()].map(|time| format!("{}s", time.as_secs()));
            self.fault(RuleProblem::Range { key: self.key, found, least, most })
        })?;
        Ok(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn choice(&self, found: &str, wanted: &'static str) -> Fault {
        self.fault(RuleProblem::Choice { key: self.key, found: found.into(), wanted })
    }

    pub(super) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(|list| list.is_empty())
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Returns the items of a list, or a single value as one item.
    pub(super) fn items(&self, most: usize) -> Result<Vec<Self>, Fault> {
        let Some(list) = self.value.as_array() else { return Ok(vec![*self]) };
        let (key, count) = (self.key, list.iter().count());
        match count {
            0 => Err(self.fault(RuleProblem::EmptyList { key, advice: "leave the key out, or give a value" })),
            _ if count > most => Err(self.fault(RuleProblem::TooMany { key, count, most })),
            _ => Ok(list.iter().map(|item| Self::new(key, item)).collect()),
        }
    }

    /// Reads a pattern with the given constructor.
    pub(super) fn pattern<P>(&self, make: impl Fn(&str) -> Result<P, PatternError>) -> Result<P, Fault> {
        let (key, text) = (self.key, self.text()?);
        make(text).map_err(|source| self.fault(RuleProblem::Pattern { key, text: text.into(), source }))
    }

    /// Reads a pattern or a list of patterns.
    pub(super) fn patterns<P, C: FromIterator<P>>(
        &self,
        most: usize,
        make: impl Fn(&str) -> Result<P, PatternError>,
    ) -> Result<C, Fault> {
        self.items(most)?.iter().map(|item| item.pattern(&make)).collect()
    }

    /// Returns the entries of a table with arbitrary keys, in file order.
    pub(super) fn entries(&self, most: usize) -> Result<Vec<(&'t str, usize, Self)>, Fault> {
        let table = self.value.as_table().ok_or_else(|| self.kind("a table"))?;
        let count = table.len();
        if count > most {
            return Err(self.fault(RuleProblem::TooMany { key: self.key, count, most }));
        }
        let mut entries: Vec<_> =
            table.iter().map(|(key, value)| (&**key.get_ref(), key.span().start, Self::new(self.key, value))).collect();
        // The parser sorts them by key.
        entries.sort_by_key(|(_, at, _)| *at);
        Ok(entries)
    }
}

/// Table with fixed keys. Each is taken once; remaining keys are unknown.
#[derive(Debug)]
pub(super) struct TomlTable<'t> {
    /// Name of this type of table in error texts, such as `an issuer`.
    pub what: &'static str,
    pub at: usize,
    table: &'t DeTable<'t>,
    /// Keys taken so far.
    known: Vec<&'static str>,
}

impl<'t> TomlTable<'t> {
    pub(super) fn new(what: &'static str, value: &TomlValue<'t>) -> Result<Self, Fault> {
        let table = value.value.as_table().ok_or_else(|| value.kind("a table"))?;
        Ok(Self { what, at: value.at, table, known: Vec::new() })
    }

    /// Takes the value of a key. Underscores are accepted for hyphens.
    pub(super) fn take(&mut self, key: &'static str) -> Option<TomlValue<'t>> {
        self.known.push(key);
        let mut entries = self.table.iter();
        entries.find(|(name, _)| name.get_ref().replace('_', "-") == key).map(|(_, value)| TomlValue::new(key, value))
    }

    pub(super) fn require(&mut self, key: &'static str, advice: &'static str) -> Result<TomlValue<'t>, Fault> {
        let (table, at) = (self.what, self.at);
        self.take(key).ok_or_else(|| RuleProblem::Missing { table, key, advice }.at(at))
    }

    pub(super) fn fault(&self, problem: RuleProblem) -> Fault {
        problem.at(self.at)
    }

    /// Reports keys that were not taken.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let names = self.table.iter().map(|(name, _)| name);
        let mut unknown: Vec<_> =
            names.filter(|name| !self.known.contains(&&*name.get_ref().replace('_', "-"))).collect();
        unknown.sort_by_key(|name| name.span().start);
        let Some(name) = unknown.first() else { return Ok(()) };
        let nearest = nearest(&name.get_ref().replace('_', "-"), self.known.iter().copied());
        let (key, allowed) = (name.get_ref().to_string(), self.known.join(", "));
        Err(RuleProblem::UnknownKey { key, table: self.what, nearest, allowed }.at(name.span().start))
    }
}

/// Reads a text file up to one byte more than `most`, so that the caller can detect a larger file.
pub(super) fn read_beyond(path: &Path, most: usize) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}
