//! Conversion of names to .NET's letter case, and case-insensitive comparison.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LetterCase {
    /// As in .NET's `JsonNamingPolicy.CamelCase`: `dueDate`, `ipAddress`.
    Camel,
    /// As in names of .NET properties and enum members: `DueDate`.
    Pascal,
}

impl LetterCase {
    /// Converts a name. Uses `scratch` only if the name changes.
    pub(super) fn convert<'a>(self, name: &'a str, scratch: &'a mut String) -> &'a str {
        if self.fits(name) {
            return name;
        }
        pascal(name, scratch);
        if self == Self::Camel {
            lower_first_word(scratch);
        }
        scratch
    }

    fn fits(self, name: &str) -> bool {
        let Some(first) = name.bytes().next().filter(u8::is_ascii_alphabetic) else { return true };
        let has_this_case = match self {
            Self::Camel => first.is_ascii_lowercase(),
            Self::Pascal => first.is_ascii_uppercase(),
        };
        let mut has_underscore = false;
        for byte in name.bytes() {
            match byte {
                b'_' => has_underscore = true,
                _ if byte.is_ascii_alphanumeric() => {}
                _ => return true,
            }
        }
        has_this_case && !has_underscore
    }
}

/// Whether two names are equal, ignoring case and underscores.
pub(super) fn is_same_name(one: &str, other: &str) -> bool {
    letters(one).eq(letters(other))
}

fn letters(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase())
}

/// Finds the accepted name: an exact match, or the first match ignoring case and underscores, or else `name` itself.
pub(super) fn canonical<'a>(name: &'a str, known: &[&'static str]) -> &'a str {
    if known.contains(&name) {
        return name;
    }
    known.iter().copied().find(|known| is_same_name(known, name)).unwrap_or(name)
}

fn pascal(name: &str, out: &mut String) {
    out.clear();
    // In DUE_DATE, each upper-case part is a word; a single upper-case word may be an acronym.
    let is_shouted = name.contains('_') && !name.bytes().any(|byte| byte.is_ascii_lowercase());
    for word in name.split('_') {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.extend(letters.map(|letter| if is_shouted { letter.to_ascii_lowercase() } else { letter }));
    }
}

/// Converts the first word to lower case: a whole leading acronym, except the letter that begins the next word.
fn lower_first_word(name: &mut str) {
    let capitals = name.bytes().take_while(u8::is_ascii_uppercase).count();
    let lowered = if capitals > 1 && capitals < name.len() { capitals - 1 } else { capitals };
    if let Some(head) = name.get_mut(..lowered) {
        head.make_ascii_lowercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(case: LetterCase, name: &str) -> String {
        case.convert(name, &mut String::new()).to_owned()
    }

    #[test]
    fn names_are_converted_as_dotnet_does() {
        for (name, pascal, camel) in [
            ("due_date", "DueDate", "dueDate"),
            ("name", "Name", "name"),
            ("dueDate", "DueDate", "dueDate"),
            ("DueDate", "DueDate", "dueDate"),
            ("IPAddress", "IPAddress", "ipAddress"),
            ("ip_address", "IpAddress", "ipAddress"),
            ("URL", "URL", "url"),
            ("URLs", "URLs", "urLs"),
            ("IPV4Address", "IPV4Address", "ipV4Address"),
            ("line_2", "Line2", "line2"),
            ("x1", "X1", "x1"),
            ("a", "A", "a"),
            ("a__b_", "AB", "ab"),
            ("DUE_DATE", "DueDate", "dueDate"),
        ] {
            assert_eq!(converted(LetterCase::Pascal, name), pascal, "{name}");
            assert_eq!(converted(LetterCase::Camel, name), camel, "{name}");
        }
    }

    #[test]
    fn names_that_are_no_identifiers_stay() {
        for name in ["", "_id", "$type", "content-type", "2nd", "größe_x", "a.b", "@odata"] {
            assert_eq!(converted(LetterCase::Pascal, name), name);
            assert_eq!(converted(LetterCase::Camel, name), name);
        }
    }

    #[test]
    fn a_converted_name_stays_and_finds_its_origin() {
        for name in ["due_date", "IPAddress", "x", "DUE_DATE", "a_b_c", "größe"] {
            for case in [LetterCase::Pascal, LetterCase::Camel] {
                let once = converted(case, name);
                assert_eq!(converted(case, &once), once);
                assert!(is_same_name(&once, name), "{once}");
            }
        }
    }

    #[test]
    fn an_exact_name_goes_before_a_similar_one() {
        let known = &["ab", "a_b", "AB"];
        for (name, found) in [("ab", "ab"), ("a_b", "a_b"), ("AB", "AB"), ("Ab", "ab"), ("abc", "abc"), ("", "")] {
            assert_eq!(canonical(name, known), found);
        }
    }
}
