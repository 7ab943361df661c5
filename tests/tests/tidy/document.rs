//! Markdown documents of the repository: their links and the anchors of their headings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::workspace::workspace;

pub(crate) const BOOK: &str = "docs/book/src";

/// Folders without documents of the repository.
const SKIPPED: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// One document, by its path from the root of the repository.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Document {
    /// Reads the documents in a folder and below it.
    pub(crate) fn below(folder: &Path) -> Vec<Self> {
        let mut documents = Vec::new();
        for entry in workspace().join(folder).read_dir().unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            let is_skipped = name.starts_with('.') || SKIPPED.contains(&name.as_str());
            if entry.file_type().unwrap().is_dir() && !is_skipped {
                documents.extend(Self::below(&path));
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(workspace().join(&path)).unwrap();
                documents.push(Self { path, text });
            }
        }
        documents
    }

    /// Returns the targets of its links, with their line numbers.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let links = |(line, text): (usize, String)| {
            let targets: Vec<_> = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).collect();
            targets.into_iter().map(|(target, _)| (line, target.to_owned())).collect::<Vec<_>>()
        };
        self.prose().flat_map(links).collect()
    }

    /// Returns the anchors of its headings, as GitHub and mdBook make them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for (_, line) in unfenced(&self.text) {
            let title = line.trim_start_matches('#');
            if let (true, Some(title)) = (line.starts_with('#'), title.strip_prefix(' ')) {
                let anchor = anchor(title);
                let count = seen.entry(anchor.clone()).or_default();
                anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
                *count += 1;
            }
        }
        anchors
    }

    /// Iterates over its lines outside of code blocks, without code spans.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, String)> {
        unfenced(&self.text).map(|(number, line)| (number, line.split('`').step_by(2).collect::<Vec<_>>().join("`")))
    }
}

/// Returns a line of text for each dead relative link.
pub(crate) fn dead_links(documents: &[Document]) -> Vec<String> {
    let anchors: BTreeMap<_, _> = documents.iter().map(|document| (&document.path, document.anchors())).collect();
    let mut dead = Vec::new();
    for document in documents {
        for (line, link) in document.links() {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { document.path.clone() } else { resolve(&document.path, path) };
            let exists = anchors.contains_key(&target) || workspace().join(&target).exists();
            let has_anchor = anchor.is_empty() || anchors.get(&target).is_some_and(|known| known.contains(anchor));
            if !exists || !has_anchor {
                dead.push(format!("{}:{line}: {link}", document.path.display()));
            }
        }
    }
    dead
}

/// Returns a line of text for each source file in a code span that does not exist. Names may omit leading folders, and
/// `src`.
pub(crate) fn gone_files(documents: &[Document], files: &[PathBuf]) -> Vec<String> {
    let without_src = |path: &Path| path.iter().filter(|part| *part != "src").collect::<PathBuf>();
    let files: Vec<_> = files.iter().map(|file| without_src(file)).collect();
    let mut gone = Vec::new();
    for document in documents {
        for (number, line) in unfenced(&document.text) {
            let spans = line.split('`').skip(1).step_by(2);
            for name in spans.filter(|span| span.ends_with(".rs") && !span.contains(['*', '{', ' '])) {
                if !files.iter().any(|file| file.ends_with(without_src(Path::new(name)))) {
                    gone.push(format!("{}:{number}: {name}", document.path.display()));
                }
            }
        }
    }
    gone
}

/// Path of a link's target, given the path of its document.
pub(crate) fn resolve(document: &Path, link: &str) -> PathBuf {
    let mut path = document.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// Iterates over lines outside of fenced blocks, numbered from 1.
fn unfenced(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Anchor of a heading: its text in lower case, without punctuation, spaces as hyphens.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Document {
        Document { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_link_to_no_file_and_one_to_no_heading_are_found() {
        let text =
            "# One `two`: three\n[a](nowhere.md) [b](#one-two-three)\n\n## Same\n## Same\n[c](#same-1) [d](#other)\n";
        let found = dead_links(&[document("page.md", text)]);
        assert_eq!(found, ["page.md:2: nowhere.md", "page.md:6: #other"]);
    }

    #[test]
    fn a_name_of_no_file_is_found() {
        let text = "`a/b.rs` and `proxy/src/a/b.rs`, `b.rs`; `c.rs`, `src/*.rs`\n```text\n`d.rs`\n```\n";
        let found = gone_files(&[document("page.md", text)], &["proxy/src/a/b.rs".into()]);
        assert_eq!(found, ["page.md:1: c.rs"]);
    }

    #[test]
    fn links_in_code_and_of_other_sites_are_not_followed() {
        let text = "```sh\n# not a heading\n[a](nowhere.md)\n```\n`[b](nowhere.md)` [c](https://example.com/x.md)\n";
        assert_eq!(dead_links(&[document("page.md", text)]), [""; 0]);
        assert!(!document("page.md", text).anchors().contains("not-a-heading"));
    }
}
