//! The rules, each with advice for violations.

use crate::source::Crate;
use crate::violation::Violation;
use crate::{name, order, prose};

/// One rule for all crates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Order,
    Cycle,
    Family,
    TypeName,
    FileName,
    ShortDoc,
    WideComment,
    Sleep,
    Unsafe,
}

impl Rule {
    pub(crate) fn violations(self, krate: &Crate) -> Vec<Violation> {
        match self {
            Self::Order => order::violations(krate),
            Self::Cycle => order::cycles(krate),
            Self::Family => order::family_cycles(krate),
            Self::TypeName => name::types(krate),
            Self::FileName => name::files(krate),
            Self::ShortDoc => prose::short_docs(krate),
            Self::WideComment => prose::wide_comments(krate),
            Self::Sleep => prose::sleeps(krate),
            Self::Unsafe => prose::unsafe_code(krate),
        }
    }

    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Order => {
                "modules import only those above them in the table `| module | … |` of the crate or the layer, which lists \
                 the lowest first: move the item down, pass it in, or hang a feature at a seam, such as `Tap`"
            }
            Self::Cycle => {
                "files of a crate must not import each other in a circle: move what both need into a file below both"
            }
            Self::Family => {
                "a parent and a file below it must not import each other: move what the child needs out of the parent, into \
                 a file of its own"
            }
            Self::TypeName => "a type name is declared once in a crate: prefix it with its concept, as in `LinkSocket`",
            Self::FileName => "a file name occurs once in a crate: name the file by its concept",
            Self::ShortDoc => "a doc comment of three words or fewer says more or goes, and `pub` becomes `pub(crate)`",
            Self::WideComment => "a line of a comment has at most 120 columns, except in tables, charts and code",
            Self::Sleep => "a test waits for a fact, or says why it can't: `// sleep: reason` on the line or above it",
            Self::Unsafe => "a crate root begins with `#![forbid(unsafe_code)]`",
        }
    }
}
