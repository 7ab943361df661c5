//! Options: settings that operators give by flags, by environment variables, or in the configuration file.
//!
//! Each stands once, in its struct: the doc comment is the help text, `#[flag]` gives the name and the values that are
//! taken, and the default stands behind the type. [`settings!`] makes the struct of it, and the table from which the
//! command makes arguments, the file, and the pages of the book.

use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Group of settings with the table of its options.
pub trait OptionGroup: Default + 'static {
    /// A place for each field, in their order; `None` for those that are no options.
    const FIELDS: &'static [Option<OptionRow<Self>>];

    /// Returns the options in the order of the help.
    fn options() -> impl Iterator<Item = &'static OptionRow<Self>> {
        Self::FIELDS.iter().flatten()
    }
}

/// Option of a group of settings.
#[derive(Debug)]
pub struct OptionRow<S> {
    /// Name of its flag, without the dashes in front.
    pub flag: &'static str,
    /// Lines of its help text.
    pub help: &'static [&'static str],
    /// Values that are taken.
    pub kind: OptionKind,
    /// Reads the number from the settings; `None` if the default depends on other settings.
    pub get: fn(&S) -> Option<u64>,
    /// Writes the number into the settings.
    pub set: fn(&mut S, u64),
}

/// Values of an option. Each is a number: of things, milliseconds, seconds or bytes.
#[derive(Debug)]
pub enum OptionKind {
    /// Flag without a value, which turns something on.
    On,
    /// Flag without a value, which turns something off.
    Off,
    /// Number of something, such as connections.
    Count(RangeInclusive<u64>),
    /// Number of clients, which the help calls so.
    Clients(RangeInclusive<u64>),
    /// Number of things; 0 is no limit, and set as `u64::MAX`.
    CountLimit,
    /// Duration in milliseconds, with a range in seconds; a number without a unit is in seconds.
    Seconds(RangeInclusive<u64>),
    /// Duration in whole seconds.
    WholeSeconds(RangeInclusive<u64>),
    /// Duration in milliseconds; a number without a unit is one of these.
    Milliseconds(RangeInclusive<u64>),
    /// Size in bytes, in this range.
    Bytes(RangeInclusive<u64>),
    /// Size in bytes, at least so many; 0 is no limit, and set as `u64::MAX`.
    BytesLimit(u64),
}

/// Any number of a field of 32 bits.
pub(crate) const ANY_U32: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// Type of a setting that an option sets.
pub(crate) trait OptionValue {
    /// Makes it of the number of an option.
    fn of_number(number: u64) -> Self;

    /// Returns the number; `None` if it is not given.
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

/// Implements [`OptionValue`] for types of numbers, which take the nearest that they can hold.
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

/// Limit that 0 turns off.
impl OptionValue for Option<NonZeroU32> {
    fn of_number(number: u64) -> Self {
        NonZeroU32::new(u32::of_number(number))
    }

    fn number(&self) -> Option<u64> {
        Some(self.map_or(0, NonZeroU32::get).into())
    }
}

/// Number whose default depends on other settings.
impl OptionValue for Option<u32> {
    fn of_number(number: u64) -> Self {
        Some(u32::of_number(number))
    }

    fn number(&self) -> Option<u64> {
        self.map(u64::from)
    }
}

/// Declares a group of settings: a struct whose fields have defaults, and of which those with `#[flag]` are options. A
/// third part of it is the help text in place of the doc comment.
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
            /// Values where nothing is given.
            pub const DEFAULT: Self = Self { $($field: $default,)* };
        }

        impl Default for $name {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        impl $crate::config::OptionGroup for $name {
            const FIELDS: &'static [Option<$crate::config::OptionRow<Self>>] =
                &[$($crate::config::settings!(@row $field, [$($help),*], $($flag, $kind $(($range))? $(, $text)?)?)),*];
        }
    };
    (@row $field:ident, $help:expr,) => { None };
    (@row $field:ident, $help:expr, $flag:literal, $kind:ident $(($range:expr))?, $text:literal) => {
        $crate::config::settings!(@row $field, [$text], $flag, $kind $(($range))?)
    };
    (@row $field:ident, $help:expr, $flag:literal, $kind:ident $(($range:expr))?) => {
        Some($crate::config::OptionRow {
            flag: $flag,
            help: &$help,
            kind: $crate::config::OptionKind::$kind $(($range))?,
            get: |settings| $crate::config::OptionValue::number(&settings.$field),
            set: |settings, number| settings.$field = $crate::config::OptionValue::of_number(number),
        })
    };
}

pub(crate) use settings;
