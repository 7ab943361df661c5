//! Plain language: how often comments, strings and documents use vague forms instead of standard terms.
//!
//! ```text
//!  lines of comments ─┐
//!  strings of products ├─► words per kind and folder ─► vague forms per 1000 words, at most RATE_MAX
//!  prose of documents ─┘
//! ```
//!
//! The rule is a rate, so a form may stand where a sentence needs it, but not at the beginning of a doc comment. There
//! is no list of exceptions.

use std::collections::BTreeMap;
use std::path::Path;

use crate::source::Crate;
use crate::text::{TextKind, TextLine};
use crate::violation::Violation;

/// Maximum number of vague forms per 1000 words of a folder.
const RATE_MAX: usize = 2;

/// Forms that are allowed in any folder, so that a small one may have a form, too.
const FREE: usize = 1;

/// Vague forms: verbs of talk for programs, riddling pronouns, inverted negations, literary filler. Words are separated
/// by spaces, alternatives by bars.
const FORMS: [&str; 19] = [
    "tell|tells|told|telling",
    "hear|hears|heard",
    "what is|was|has|comes|came|others",
    "nobody|whoever|somebody|anybody|whomever|everybody",
    "is|are none",
    "no|any more",
    "so many|much",
    "anew",
    "at once",
    "those that|who|of|whose|which",
    "one that|who|whose|which",
    "whose",
    "of|by|in which",
    "forget|forgets|forgotten",
    "wish|wishes|knows|learns|learnt",
    "but for",
    "another than",
    "in vain",
    "on its|their way",
];

/// Forms with which no doc comment begins, in addition to [`FORMS`].
const OPENINGS: [&str; 3] = ["who|whom|what|whatever", "those", "the same"];

/// Numbers of words and vague forms.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    words: usize,
    /// Found forms, each with its place.
    found: Vec<String>,
}

/// Tallies by kind of text and folder.
#[derive(Debug, Default)]
pub(crate) struct Rates(BTreeMap<(TextKind, String), Tally>);

impl Rates {
    /// Counts all lines by kind and folder.
    pub(crate) fn of(lines: &[TextLine]) -> Self {
        let mut rates = Self::default();
        for line in lines {
            rates.add(line.kind, &line.path, line.line, &line.text);
        }
        rates
    }

    fn add(&mut self, kind: TextKind, path: &Path, line: usize, text: &str) {
        let folder = path.parent().unwrap_or(path).display().to_string();
        let tally = self.0.entry((kind, folder)).or_default();
        let (words, forms) = count(text);
        tally.words += words;
        tally.found.extend(forms.into_iter().map(|form| format!("{}:{line}: \"{form}\"", path.display())));
    }

    /// Folders above the rate, each with its vague forms.
    pub(crate) fn problems(&self) -> Vec<String> {
        let above = self.0.iter().filter(|(_, tally)| tally.found.len() > tally.words * RATE_MAX / 1000 + FREE);
        let describe = |((kind, folder), tally): (&(TextKind, String), &Tally)| {
            let (found, words) = (tally.found.len(), tally.words);
            format!("{kind:?} texts of {folder}: {found} vague forms in {words} words\n  {}", tally.found.join("\n  "))
        };
        above.map(describe).collect()
    }
}

/// Returns the doc comments that begin with a vague form.
pub(crate) fn openings(crates: &[Crate]) -> Vec<String> {
    let files: BTreeMap<_, _> = crates.iter().flat_map(|krate| &krate.files).map(|file| (&file.path, file)).collect();
    let docs = files.into_values().flat_map(|file| file.facts.docs.iter().map(move |doc| (file, doc)));
    let found = docs.filter_map(|(file, doc)| {
        let form = opening(&doc.text)?;
        Some(Violation::new(file, doc.line, format!("the doc comment begins with \"{form}\"")).to_string())
    });
    found.collect()
}

fn opening(doc: &str) -> Option<String> {
    let text = separated(doc.trim());
    let words: Vec<&str> = text.split_whitespace().collect();
    OPENINGS.iter().chain(&FORMS).find_map(|form| matched(form, &words))
}

/// Returns the number of words, and the vague forms among them. A form does not cross punctuation.
fn count(text: &str) -> (usize, Vec<String>) {
    let text = separated(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let forms = (0..words.len()).flat_map(|at| {
        let rest = words.get(at..).unwrap_or_default();
        FORMS.iter().filter_map(move |form| matched(form, rest))
    });
    (words.iter().filter(|word| **word != "|").count(), forms.collect())
}

/// Separates punctuation from words, as bars.
fn separated(text: &str) -> String {
    let text: String = text.chars().map(|c| if c == '\'' || c.is_alphanumeric() { c } else { separator(c) }).collect();
    text.to_lowercase().replace('|', " | ")
}

fn separator(c: char) -> char {
    if c.is_whitespace() { ' ' } else { '|' }
}

/// Returns the words of a form if these words begin with it.
fn matched(form: &str, words: &[&str]) -> Option<String> {
    let mut found = Vec::new();
    for (place, alternatives) in form.split(' ').enumerate() {
        let word = words.get(place)?;
        alternatives.split('|').find(|alternative| alternative == word)?;
        found.push(*word);
    }
    Some(found.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{lines, outside_of_code};

    /// A sentence of ten words without vague forms.
    const PLAIN: &str = "The node closes the connection of a slow client immediately.";

    fn problems(kind: TextKind, lines: &[&str]) -> Vec<String> {
        let mut rates = Rates::default();
        for (number, line) in (1..).zip(lines) {
            rates.add(kind, Path::new("proxy/src/a.rs"), number, line);
        }
        rates.problems()
    }

    /// Variants of a form: its words with each choice of alternatives.
    fn variants(form: &str) -> Vec<String> {
        form.split(' ').fold(vec![String::new()], |variants, word| {
            let longer = |start: &String| word.split('|').map(|end| format!("{start} {end}")).collect::<Vec<_>>();
            variants.iter().flat_map(longer).collect()
        })
    }

    #[test]
    fn every_form_is_found_in_each_of_its_variants() {
        for form in FORMS {
            for variant in variants(form) {
                let found = count(&format!("A host,{}.", variant.to_uppercase())).1;
                assert!(found.iter().any(|found| found == variant.trim()), "{variant}: {found:?}");
            }
        }
        assert_eq!(variants("is|are none"), [" is none", " are none"]);
    }

    #[test]
    fn plain_words_and_forms_across_punctuation_or_in_code_pass() {
        for text in [PLAIN, "no. More follows", "what (is) this", "a foretelling", "`tell` and", "the heart"] {
            assert_eq!(count(&outside_of_code(text)).1, [""; 0], "{text}");
        }
        assert_eq!(count(PLAIN).0, 10);
    }

    #[test]
    fn a_folder_may_have_one_form_and_two_per_thousand_words() {
        for kind in [TextKind::Comment, TextKind::Message, TextKind::Document] {
            let forms = |count: usize, plain: usize| [vec!["told"; count], vec![PLAIN; plain]].concat();
            assert_eq!(problems(kind, &forms(1, 0)), [""; 0]);
            assert_eq!(problems(kind, &forms(2, 10)).len(), 1, "two in a hundred words");
            assert_eq!(problems(kind, &forms(3, 100)), [""; 0], "three in a thousand words");
            assert_eq!(problems(kind, &forms(4, 100)).len(), 1, "four in a thousand words");
        }
    }

    #[test]
    fn planted_comments_and_strings_of_products_are_counted() {
        let text = "//! Told twice.\n// Told `told`.\nconst A: &str = \"told of it\";\nfn f() { g(\"it is told\") }\n\
                    #[error(\"nobody was told\")]\nstruct E;\n#[cfg(test)]\nmod tests { const B: &str = \"told again\"; }";
        let rates = Rates::of(&lines(&[Crate::planted(&[("lib.rs", text)])], &[]));
        let found = |kind| rates.0.get(&(kind, String::new())).map(|tally| tally.found.len());
        assert_eq!((found(TextKind::Comment), found(TextKind::Message)), (Some(2), Some(4)));
        assert_eq!(rates.problems().len(), 2, "{:?}", rates.problems());
    }
    #[test]
    fn a_doc_comment_that_begins_with_a_vague_form_is_found() {
        for (text, count) in [
            ("/// Whoever asks while it is busy waits.\nfn a() {}", 1),
            ("/// The same for raw endpoints and so on.\nfn a() {}", 1),
            ("/// What the app server tells.\nfn a() {}", 1),
            ("//! Those of the\n//! other node.\nfn a() {}", 1),
            ("/// So many clients.\nfn a() {}", 1),
            ("/// Whole frames that what follows belongs to.\nfn a() {}", 0),
            ("/// Returns what the app server tells.\nfn a() {}", 0),
            ("// What the app server tells.\nfn a() {}", 0),
        ] {
            assert_eq!(openings(&[Crate::planted(&[("lib.rs", text)])]).len(), count, "{text}");
        }
    }
}
