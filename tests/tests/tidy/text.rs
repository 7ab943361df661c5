//! Texts for people: lines of comments, strings of products and prose of documents, without spans of code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::document::Document;
use crate::source::{Crate, SourceFile};

/// Kind of a text: comment, string or document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TextKind {
    Comment,
    /// String of a program, outside of its tests.
    Message,
    Document,
}

/// Line of text with its place.
#[derive(Debug)]
pub(crate) struct TextLine {
    pub(crate) kind: TextKind,
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) text: String,
    /// Whether it is part of a fenced block in a comment: a chart or code.
    pub(crate) is_fenced: bool,
}

/// Collects comments of all crates, strings of products and prose of documents. A file of several crates counts once.
pub(crate) fn lines(crates: &[Crate], documents: &[Document]) -> Vec<TextLine> {
    let files: BTreeMap<_, _> = crates.iter().flat_map(|krate| &krate.files).map(|file| (&file.path, file)).collect();
    let mut lines = Vec::new();
    for file in files.values() {
        lines.extend(comments(file));
        lines.extend(messages(file));
    }
    for document in documents {
        lines.extend(document.prose().map(|(line, text)| TextLine {
            kind: TextKind::Document,
            path: document.path.clone(),
            line,
            text,
            is_fenced: false,
        }));
    }
    lines
}

fn comments(file: &SourceFile) -> Vec<TextLine> {
    let mut lines = Vec::new();
    let mut is_block = false;
    for (line, text) in (1..).zip(file.text.lines()) {
        let Some(comment) = text.trim_start().strip_prefix("//") else {
            is_block = false;
            continue;
        };
        let is_fence = comment.trim_start_matches(['/', '!']).trim_start().starts_with("```");
        is_block ^= is_fence;
        lines.push(TextLine {
            kind: TextKind::Comment,
            path: file.path.clone(),
            line,
            text: outside_of_code(comment),
            is_fenced: is_block || is_fence,
        });
    }
    lines
}

/// Strings of a file of a product. Users do not read the assertions of tests.
fn messages(file: &SourceFile) -> Vec<TextLine> {
    let is_product = !file.path.starts_with("tests");
    let strings = file.facts.strings.iter().filter(|string| is_product && string.text.contains(' '));
    let line = |line: usize, text: &str| TextLine {
        kind: TextKind::Message,
        path: file.path.clone(),
        line,
        text: text.to_owned(),
        is_fenced: false,
    };
    strings.map(|string| line(string.line, &string.text)).collect()
}

/// Drops spans of code.
pub(crate) fn outside_of_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}
