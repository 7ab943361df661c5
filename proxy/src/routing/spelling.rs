//! Suggestions for names that were misspelt.

/// Least likeness (Jaro-Winkler) at which an unknown name is taken for a misspelt one.
const LIKENESS: f64 = 0.7;

/// Returns the known name that is most like an unknown one, if one is like it at all.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let likeness = |name: &str| strsim::jaro_winkler(name, unknown);
    let best = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) >= LIKENESS).then(|| best.to_owned())
}
