//! Short `Debug` texts, for types with fields that can't be formatted or would fill a log.

/// Implements `Debug` for a type: as a struct with a few fields, or as a text with the arguments of `format!`.
macro_rules! brief_debug {
    ($name:ident $(<$($generic:tt),+>)?, |$it:ident| { $($field:ident: $value:expr),* }) => {
        impl $(<$($generic),+>)? ::std::fmt::Debug for $name $(<$($generic),+>)? {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let $it = self;
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &$value))*.finish_non_exhaustive()
            }
        }
    };
    ($name:ident, |$it:ident| $($text:tt)+) => {
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let $it = self;
                write!(f, $($text)+)
            }
        }
    };
}

pub(crate) use brief_debug;
