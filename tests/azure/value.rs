//! MessagePack values, as far as the service protocol uses them: maps keep their order and repeated keys.

use anyhow::{Context, Result, bail, ensure};
use rmp::Marker;
use rmp::encode::{
    write_array_len, write_bin, write_bool, write_ext_meta, write_i32, write_map_len, write_nil, write_sint, write_str,
};

const TIMESTAMP: i8 = -1;

/// Maximum nesting that is read.
const DEPTH_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    /// Integer written with a fixed 32 bits, like enums of flow control; reads as `Int`.
    Fixed(i32),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// Timestamp in whole seconds since 1970.
    Time(u32),
}

impl Value {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("a vector takes all");
        bytes
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Nil => write_nil(out)?,
            Self::Bool(value) => write_bool(out, *value)?,
            Self::Int(value) => drop(write_sint(out, *value)?),
            Self::Fixed(value) => write_i32(out, *value)?,
            Self::Text(text) => write_str(out, text)?,
            Self::Bytes(bytes) => write_bin(out, bytes)?,
            Self::List(list) => {
                write_array_len(out, u32::try_from(list.len())?)?;
                list.iter().try_for_each(|value| value.write(out))?;
            }
            Self::Map(map) => {
                write_map_len(out, u32::try_from(map.len())?)?;
                for (key, value) in map {
                    key.write(out)?;
                    value.write(out)?;
                }
            }
            Self::Time(seconds) => {
                write_ext_meta(out, 4, TIMESTAMP)?;
                out.extend(seconds.to_be_bytes());
            }
        }
        Ok(())
    }

    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Self::read(bytes, DEPTH_MAX)
    }

    fn read(bytes: &mut &[u8], depth: usize) -> Result<Self> {
        let depth = depth.checked_sub(1).context("nested too deeply")?;
        let marker = Marker::from_u8(*bytes.first().context("a value is missing")?);
        Ok(match marker {
            Marker::Null => {
                take(bytes, 1)?;
                Self::Nil
            }
            Marker::True | Marker::False => {
                take(bytes, 1)?;
                Self::Bool(marker == Marker::True)
            }
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let length = rmp::decode::read_str_len(bytes)?;
                Self::Text(String::from_utf8(take(bytes, length as usize)?.to_vec())?)
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let length = rmp::decode::read_bin_len(bytes)?;
                Self::Bytes(take(bytes, length as usize)?.to_vec())
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                let length = rmp::decode::read_array_len(bytes)?;
                Self::List((0..length).map(|_| Self::read(bytes, depth)).collect::<Result<_>>()?)
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                let length = rmp::decode::read_map_len(bytes)?;
                let pairs = (0..length).map(|_| Ok((Self::read(bytes, depth)?, Self::read(bytes, depth)?)));
                Self::Map(pairs.collect::<Result<_>>()?)
            }
            Marker::FixExt4 => {
                let extension = rmp::decode::read_ext_meta(bytes)?;
                ensure!(extension.typeid == TIMESTAMP, "an extension of type {}", extension.typeid);
                Self::Time(u32::from_be_bytes(take(bytes, 4)?.try_into()?))
            }
            Marker::Reserved | Marker::F32 | Marker::F64 => bail!("{marker:?} is no part of the service protocol"),
            _ => Self::Int(rmp::decode::read_int(bytes).map_err(|error| anyhow::anyhow!("{error}"))?),
        })
    }

    pub(crate) fn at(&self, place: usize) -> &Value {
        match self {
            Self::List(list) => list.get(place).unwrap_or(&Self::Nil),
            _ => &Self::Nil,
        }
    }

    /// First value for this key of a map; nil if absent.
    pub(crate) fn get(&self, wanted: &Value) -> &Value {
        match self {
            Self::Map(map) => map.iter().find(|(key, _)| key == wanted).map_or(&Self::Nil, |(_, value)| value),
            _ => &Self::Nil,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Fixed(value) => Some((*value).into()),
            _ => None,
        }
    }

    /// All text values for this key of a map, in order.
    pub(crate) fn texts(&self, wanted: &str) -> Vec<&str> {
        let Self::Map(map) = self else { return Vec::new() };
        let of_key = map.iter().filter(|(key, _)| key.as_text() == Some(wanted));
        of_key.filter_map(|(_, value)| value.as_text()).collect()
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Fixed(value) => write!(f, "{value}i32"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            Self::List(list) => f.debug_list().entries(list).finish(),
            Self::Map(map) => f.debug_map().entries(map.iter().map(|(key, value)| (key, value))).finish(),
            Self::Time(seconds) => write!(f, "{seconds}s"),
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    ensure!(bytes.len() >= length, "{length} bytes are announced, {} are there", bytes.len());
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(taken)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Self::List(list)
    }
}

macro_rules! list {
    ($($value:expr),* $(,)?) => { $crate::value::Value::List(vec![$($crate::value::Value::from($value)),*]) };
}

macro_rules! map {
    ($($key:expr => $value:expr),* $(,)?) => {
        $crate::value::Value::Map(vec![$(($crate::value::Value::from($key), $crate::value::Value::from($value))),*])
    };
}

pub(crate) use {list, map};
