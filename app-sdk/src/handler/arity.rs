//! Macro that implements a trait for functions of up to ten parameters.

/// Calls a macro once for each number of parameters, with a marker, a type and a name for each parameter.
macro_rules! for_each_arity {
    ($implement:ident) => {
        $implement!();
        $implement!((M1, T1, p1));
        $implement!((M1, T1, p1), (M2, T2, p2));
        $implement!((M1, T1, p1), (M2, T2, p2), (M3, T3, p3));
        $implement!((M1, T1, p1), (M2, T2, p2), (M3, T3, p3), (M4, T4, p4));
        $implement!((M1, T1, p1), (M2, T2, p2), (M3, T3, p3), (M4, T4, p4), (M5, T5, p5));
        $implement!((M1, T1, p1), (M2, T2, p2), (M3, T3, p3), (M4, T4, p4), (M5, T5, p5), (M6, T6, p6));
        $implement!((M1, T1, p1), (M2, T2, p2), (M3, T3, p3), (M4, T4, p4), (M5, T5, p5), (M6, T6, p6), (M7, T7, p7));
        $implement!(
            (M1, T1, p1),
            (M2, T2, p2),
            (M3, T3, p3),
            (M4, T4, p4),
            (M5, T5, p5),
            (M6, T6, p6),
            (M7, T7, p7),
            (M8, T8, p8)
        );
        $implement!(
            (M1, T1, p1),
            (M2, T2, p2),
            (M3, T3, p3),
            (M4, T4, p4),
            (M5, T5, p5),
            (M6, T6, p6),
            (M7, T7, p7),
            (M8, T8, p8),
            (M9, T9, p9)
        );
        $implement!(
            (M1, T1, p1),
            (M2, T2, p2),
            (M3, T3, p3),
            (M4, T4, p4),
            (M5, T5, p5),
            (M6, T6, p6),
            (M7, T7, p7),
            (M8, T8, p8),
            (M9, T9, p9),
            (M10, T10, p10)
        );
    };
}

pub(crate) use for_each_arity;
