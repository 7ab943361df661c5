//! Violation of a rule, with its place.

use std::fmt;

use crate::source::SourceFile;

/// Place in a file, and the problem there.
#[derive(Debug)]
pub(crate) struct Violation {
    place: String,
    problem: String,
}

impl Violation {
    pub(crate) fn new(file: &SourceFile, line: usize, problem: String) -> Self {
        Self { place: format!("{}:{line}", file.path.display()), problem }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}
