//! Table of the protocols' limits, for the book.
//!
//! ```text
//!  protocol/src/limits.rs ─ documented const ───► doc comment, value, name
//! ```
//!
//! Values are computed from the expressions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::reference::{escape, read};

/// The file in which all constants are limits.
const LIMITS_FILE: &str = "protocol/src/limits.rs";

/// Operation on two numbers; `None` where there is no result.
type Operation = fn(u64, u64) -> Option<u64>;

/// Operators by ascending precedence.
const SIGNS: [[(&str, Operation); 2]; 2] =
    [[(" + ", u64::checked_add), (" - ", u64::checked_sub)], [(" / ", u64::checked_div), (" * ", u64::checked_mul)]];

/// A constant at the top level of a file.
#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) name: String,
    kind: String,
    expression: String,
    /// Its doc comment, in one line.
    doc: String,
}

/// The limits, as Markdown.
pub(crate) fn limits() -> String {
    let constants = constants(&read(Path::new(LIMITS_FILE)));
    let known = evaluated(&constants, &BTreeMap::new());
    let mut page = "| limits | value | constant |\n|---|---|---|\n".to_owned();
    for constant in constants.iter().filter(|constant| !constant.doc.is_empty() && constant.name != "_") {
        writeln!(page, "| {} | {} | `{}` |", escape(&constant.doc), shown(constant, &known), constant.name).unwrap();
    }
    page
}

/// Constants at the top level of a file. (Constants of tests are indented.)
pub(crate) fn constants(text: &str) -> Vec<Constant> {
    let mut found = Vec::new();
    let (mut doc, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        if let Some(more) = line.strip_prefix("///") {
            doc.push_str(more);
            continue;
        }
        if let Some(rest) = line.split_once("const ").filter(|(before, _)| is_visibility(before)).map(|(_, rest)| rest)
        {
            let mut rest = rest.to_owned();
            while !rest.ends_with(';') {
                rest = format!("{rest} {}", lines.next().unwrap_or(";").trim());
            }
            if let Some((name, (kind, expression))) =
                rest.split_once(": ").and_then(|(name, rest)| Some((name, rest.split_once(" = ")?)))
            {
                let (expression, doc) = (expression.trim_end_matches(';').to_owned(), plain(&doc));
                found.push(Constant { name: name.to_owned(), kind: kind.to_owned(), expression, doc });
            }
        }
        doc.clear();
    }
    found
}

fn is_visibility(text: &str) -> bool {
    text.is_empty() || text == "pub " || text.starts_with("pub(")
}

/// Text of a doc comment without the targets of its links.
fn plain(doc: &str) -> String {
    let mut parts = doc.trim().split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    let joined = parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest));
    joined.replace("[`", "`").replace("`]", "`")
}

/// Values of constants that are numbers or times (in milliseconds), in addition to known ones.
fn evaluated(constants: &[Constant], known: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut known = known.clone();
    // Twice: a constant may precede the constants in its expression.
    for constant in constants.iter().chain(constants) {
        if let Some(value) = value(&constant.expression, &known) {
            known.insert(constant.name.clone(), value);
        }
    }
    known
}

/// Value of an arithmetic expression without parentheses.
fn value(expression: &str, known: &BTreeMap<String, u64>) -> Option<u64> {
    let expression = expression.trim();
    let inside = |before: &str, after: &str| expression.strip_prefix(before)?.strip_suffix(after);
    if let Some(seconds) = inside("Duration::from_secs(", ")") {
        return Some(value(seconds, known)? * 1000);
    }
    if let Some(inner) = inside("Duration::from_millis(", ")").or_else(|| inside("NonZeroUsize::new(", ").unwrap()")) {
        return value(inner, known);
    }
    // Splits at the last operator of the lowest precedence, because operators are left-associative.
    for signs in SIGNS {
        let last = signs.iter().filter_map(|(sign, apply)| Some((expression.rfind(sign)?, sign.len(), apply)));
        if let Some((at, length, apply)) = last.max_by_key(|(at, ..)| *at) {
            let (one, other) = (expression.get(..at)?, expression.get(at + length..)?);
            return apply(value(one, known)?, value(other, known)?);
        }
    }
    let name = expression.split(" as ").next().unwrap_or_default();
    name.replace('_', "").parse().ok().or_else(|| known.get(name).copied())
}

/// Value of a constant as shown on the page.
fn shown(constant: &Constant, known: &BTreeMap<String, u64>) -> String {
    let Constant { name, kind, expression, .. } = constant;
    match known.get(name) {
        None => format!("`{expression}`"),
        Some(&ms) if kind == "Duration" || name.ends_with("_MS") => time(ms),
        Some(&seconds) if name.ends_with("_S") => time(seconds * 1000),
        Some(&bytes) if name.contains("BYTES") => in_units(bytes, &[(" MiB", 1 << 20), (" KiB", 1 << 10)], " bytes"),
        Some(&number) => in_units(number, &[], ""),
    }
}

fn time(ms: u64) -> String {
    let units = [(" days", 86_400_000), (" h", 3_600_000), (" min", 60_000), (" s", 1000)];
    in_units(ms, &units, " ms")
}

/// Number in its largest integral unit, with separated thousands.
fn in_units(number: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let largest = units.iter().find(|(_, size)| number > 0 && number.is_multiple_of(*size));
    let (unit, size) = largest.copied().unwrap_or((smallest, 1));
    let digits = (number / size).to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(if digits.len() > 4 { first } else { digits.len() });
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups: Vec<_> = [head.to_owned()].into_iter().chain(groups).filter(|group| !group.is_empty()).collect();
    format!("{}{unit}", groups.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_shown_with_their_values_and_docs() {
        let text = "/// Frames of [`A`](b::A),\n/// at most.\npub(crate) const A_MAX: usize = 16 * 1024;\n\
                    const B_MAX_BYTES: usize = A_MAX / 4 * 2;\nconst C: Duration =\n    Duration::from_secs(120);\n\
                    mod tests {\n    const D_MAX: usize = 1;\n}\n";
        let constants = constants(text);
        let known = evaluated(&constants, &BTreeMap::new());
        let shown: Vec<_> = constants.iter().map(|constant| shown(constant, &known)).collect();
        assert_eq!(shown, ["16 384", "8 KiB", "2 min"]);
        assert_eq!(
            constants.iter().map(|constant| &*constant.doc).collect::<Vec<_>>(),
            ["Frames of `A`, at most.", "", ""]
        );
    }
}
