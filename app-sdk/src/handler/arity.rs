//! Macro that implements a trait for functions with up to ten parameters.

/// Calls a macro once per number of parameters, with a marker, a type and a name for each parameter.
///
/// The compiler prints a marker that it cannot infer: that of a parameter which is both an extractor and
/// `Deserialize`.
macro_rules! for_each_arity {
    ($implement:ident) => {
        $crate::handler::arity::for_each_arity!($implement: [];
            (ExtractorXorDeserialize1, T1, p1) (ExtractorXorDeserialize2, T2, p2) (ExtractorXorDeserialize3, T3, p3)
            (ExtractorXorDeserialize4, T4, p4) (ExtractorXorDeserialize5, T5, p5) (ExtractorXorDeserialize6, T6, p6)
            (ExtractorXorDeserialize7, T7, p7) (ExtractorXorDeserialize8, T8, p8) (ExtractorXorDeserialize9, T9, p9)
            (ExtractorXorDeserialize10, T10, p10)
        );
    };
    ($implement:ident: [$($parameter:tt)*];) => {
        $implement!($($parameter),*);
    };
    ($implement:ident: [$($parameter:tt)*]; $next:tt $($rest:tt)*) => {
        $implement!($($parameter),*);
        $crate::handler::arity::for_each_arity!($implement: [$($parameter)* $next]; $($rest)*);
    };
}

pub(crate) use for_each_arity;
