//! Case folding of names compared without regard to case: methods and paths.

use std::borrow::Cow;

/// Folds a name so that names differing only in case become equal.
///
/// The SDK compares methods by lower case, ASP.NET Core by upper case. Names equal under either must be equal here, or
/// a denied method could be called by another spelling, such as with the Kelvin sign for `k`. So the name is converted
/// to lower, upper and again lower case.
pub(crate) fn fold(name: &str) -> Cow<'_, str> {
    if !name.is_ascii() {
        let upper = name.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase);
        return upper.flat_map(char::to_lowercase).collect::<String>().into();
    }
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_that_an_app_server_takes_for_one_name_are_one() {
        for (one, other) in [
            ("Kill", "kILL"),
            ("kill", "\u{212A}ill"),
            ("straße", "STRASSE"),
            ("straße", "STRA\u{1E9E}E"),
            ("ὈΔΟΣ", "ὀδος"),
            ("µ", "μ"),
            ("\u{17F}ay", "Say"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("Say"), fold("Says"));
    }

    #[test]
    fn a_name_in_lower_case_is_not_copied() {
        assert!(matches!(fold("say-it_1"), Cow::Borrowed("say-it_1")));
    }

    proptest! {
        #[test]
        fn names_with_one_lower_case_form_are_one(name in "\\PC{0,12}") {
            let lower = name.to_lowercase();
            prop_assert_eq!(fold(&name), fold(&lower));
        }
    }
}
