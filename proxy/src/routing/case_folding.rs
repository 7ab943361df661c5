//! Case folding of names that are compared without regard to case: methods and paths.

use std::borrow::Cow;

/// Folds a name so that names that differ in case alone become one.
///
/// App servers find a method without regard to case: the SDK by the lower-case forms, ASP.NET Core by the upper-case
/// forms of characters. What either of them takes for one name has to be one here, or a method that is denied could be
/// called by another spelling, such as the Kelvin sign for a `k`. So this goes to lower, upper and lower case again.
#[must_use]
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
