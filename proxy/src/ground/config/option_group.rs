//! Options: settings that operators set by flag, environment variable or configuration file.
//!
//! Each option is declared once, in its struct: the doc comment is the help text, `#[flag]` sets name and accepted
//! values, and the default follows the type. From these, [`settings!`] generates the table behind arguments, file
//! format and the book's pages.

use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Group of settings with its option table.
pub trait OptionGroup: Default + 'static {
    /// Entries in field order; `None` for fields that are not options.
    const FIELDS: &'static [Option<OptionRow<Self>>];

    /// Returns the options in help order.
    fn options() -> impl Iterator<Item = &'static OptionRow<Self>> {
        Self::FIELDS.iter().flatten()
    }
}

/// Option in a group of settings.
#[derive(Debug)]
pub struct OptionRow<S> {
    /// Name of the flag without leading dashes.
    pub flag: &'static str,
    /// Lines of the help text.
    pub help: &'static [&'static str],
    /// Accepted values of the option.
    pub kind: OptionKind,
    /// Reads the number from the settings; `None` if the default depends on other settings.
    pub get: fn(&S) -> Option<u64>,
    /// Writes the number into the settings.
    pub set: fn(&mut S, u64),
}

/// Type of an option's value. Each value is a number: a count, milliseconds, seconds or bytes.
#[derive(Debug)]
pub enum OptionKind {
    /// Flag without a value that enables something.
    On,
    /// Flag without a value that disables something.
    Off,
    /// Number of things, such as connections.
    Count(RangeInclusive<u64>),
    /// Number of clients, shown as such in the help.
    Clients(RangeInclusive<u64>),
    /// Number of things. 0 means no limit and is stored as `u64::MAX`.
    CountLimit,
    /// Duration in milliseconds with a range in seconds. A number without a unit is in seconds.
    Seconds(RangeInclusive<u64>),
    /// Duration in whole seconds.
    WholeSeconds(RangeInclusive<u64>),
    /// Duration in milliseconds. A number without a unit is in milliseconds.
    Milliseconds(RangeInclusive<u64>),
    /// Size in bytes within this range.
    Bytes(RangeInclusive<u64>),
    /// Size in bytes, at least this many. 0 means no limit and is stored as `u64::MAX`.
    BytesLimit(u64),
}

pub(crate) const ANY_U32: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// Type of a field that an option can set.
pub(crate) trait OptionValue {
    fn of_number(number: u64) -> Self;

    /// Returns the number; `None` if it was not configured.
    fn number(&self) -> Option<u64>;
}

impl OptionValue for bool {
    fn of_number(number: u64) -> Self {
        number > 0
    }

    fn number(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

impl OptionValue for Duration {
    fn of_number(number: u64) -> Self {
        Self::from_millis(number)
    }

    fn number(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

/// Implements [`OptionValue`] for number types, saturating at their maximum.
macro_rules! option_number {
    ($($number:ty),*) => {
        $(impl OptionValue for $number {
            fn of_number(number: u64) -> Self {
                Self::try_from(number).unwrap_or(Self::MAX)
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        })*
    };
}

option_number!(u32, u64, usize);

impl OptionValue for NonZeroUsize {
    fn of_number(number: u64) -> Self {
        Self::new(usize::of_number(number)).unwrap_or(Self::MIN)
    }

    fn number(&self) -> Option<u64> {
        self.get().number()
    }
}

/// Limit that is disabled by 0.
impl OptionValue for Option<NonZeroU32> {
    fn of_number(number: u64) -> Self {
        NonZeroU32::new(u32::of_number(number))
    }

    fn number(&self) -> Option<u64> {
        Some(self.map_or(0, NonZeroU32::get).into())
    }
}

/// Number with a default that depends on other settings.
impl OptionValue for Option<u32> {
    fn of_number(number: u64) -> Self {
        Some(u32::of_number(number))
    }

    fn number(&self) -> Option<u64> {
        self.map(u64::from)
    }
}

/// Declares a group of settings: a struct with default values, where fields with `#[flag]` are options. The third
/// argument of `#[flag]` replaces the doc comment as help text.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $help:literal])*
                $(#[flag($flag:literal, $kind:ident $(($range:expr))? $(, $text:literal)?)])?
                pub $field:ident: $type:ty = $default:expr,
            )*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[doc = $help])* pub $field: $type,)*
        }

        impl $name {
            /// Default values of all settings.
            pub const DEFAULT: Self = Self { $($field: $default,)* };
        }

        impl Default for $name {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        impl $crate::ground::config::OptionGroup for $name {
            const FIELDS: &'static [Option<$crate::ground::config::OptionRow<Self>>] =
                &[$($crate::ground::config::settings!(@row $field, [$($help),*], $($flag, $kind $(($range))? $(, $text)?)?)),*];
        }
    };
    (@row $field:ident, $help:expr,) => { None };
    (@row $field:ident, $help:expr, $flag:literal, $kind:ident $(($range:expr))?, $text:literal) => {
        $crate::ground::config::settings!(@row $field, [$text], $flag, $kind $(($range))?)
    };
    (@row $field:ident, $help:expr, $flag:literal, $kind:ident $(($range:expr))?) => {
        Some($crate::ground::config::OptionRow {
            flag: $flag,
            help: &$help,
            kind: $crate::ground::config::OptionKind::$kind $(($range))?,
            get: |settings| $crate::ground::config::OptionValue::number(&settings.$field),
            set: |settings, number| settings.$field = $crate::ground::config::OptionValue::of_number(number),
        })
    };
}

pub(crate) use settings;
