//! Rows of figures by round, and goals.

use anyhow::Result;
use trunkline_bench::spread::Spread;
use trunkline_tests::harness::command::print_line;

/// Figures of one row by round.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) figures: Vec<f64>,
}

impl Row {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, figures: Vec::new() }
    }

    /// Compares with the same rounds of another row.
    pub(crate) fn against(&self, base: &Self, compare: fn(f64, f64) -> f64) -> Result<Spread> {
        Spread::of(self.figures.iter().zip(&base.figures).map(|(figure, base)| compare(*figure, *base)))
    }
}

/// Prints the measured rows. `compare` relates each to the first one.
pub(crate) fn print(title: &str, rows: &[Row], relation: &str, compare: fn(f64, f64) -> f64) -> Result<()> {
    print_line(&format!("\n{title:<44}{:>12}  {:<24}{relation}", "median", "range"));
    for row in rows.iter().filter(|row| !row.figures.is_empty()) {
        let figures = Spread::of(row.figures.iter().copied())?;
        let against = rows.first().map_or(Ok(figures), |base| row.against(base, compare))?;
        print_line(&format!("{:<44}{:>12}  {:<24}{}", row.name, digits(figures.median), range(figures), text(against)));
    }
    Ok(())
}

/// Prints whether the median of a goal is reached.
pub(crate) fn judge(goal: &str, figure: Spread, is_met: fn(f64) -> bool) {
    let verdict = if is_met(figure.median) { "met" } else { "MISSED" };
    print_line(&format!("goal {verdict}: {goal}: {}", text(figure)));
}

fn text(spread: Spread) -> String {
    format!("{} ({})", digits(spread.median), range(spread))
}

fn range(spread: Spread) -> String {
    format!("{} to {}", digits(spread.min), digits(spread.max))
}

fn digits(figure: f64) -> String {
    if figure.abs() < 1000.0 { format!("{figure:.3}") } else { format!("{figure:.0}") }
}
