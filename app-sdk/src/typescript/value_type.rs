//! Types in TypeScript of the SDK's own values: each as both hub protocols give it to a page.

use ts_rs::{Config, TS};

use crate::value::{Binary, DateTimeOffset, Decimal, Guid, TimeSpan, Timestamp, Value};

macro_rules! typed_values {
    ($($value:ty: $name:literal)*) => {
        $(impl TS for $value {
            type WithoutGenerics = Self;
            type OptionInnerType = Self;

            fn name(_: &Config) -> String {
                $name.to_owned()
            }

            fn inline(config: &Config) -> String {
                <Self as TS>::name(config)
            }
        })*
    };
}

typed_values! {
    Binary: "string | Uint8Array"
    DateTimeOffset: "string | [Date, number]"
    Decimal: "number | string"
    Guid: "string"
    TimeSpan: "string | number"
    Timestamp: "string | Date"
    Value: "unknown"
}
