//! The middle of several figures, and how far they spread.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The middle of several figures, and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of two, what lies between them.
    pub median: f64,
    /// Smallest of the figures.
    pub min: f64,
    /// Largest of the figures.
    pub max: f64,
}

impl Spread {
    /// Computes it from these figures.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (&min, &max) = figures.first().zip(figures.last()).context("nothing was measured")?;
        let upper = figures.get(figures.len() / 2).copied().unwrap_or(max);
        let lower = figures.get((figures.len() - 1) / 2).copied().unwrap_or(min);
        Ok(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 10.0]), Spread { median: 3.0, min: 1.0, max: 10.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 10.0]), Spread { median: 3.0, min: 1.0, max: 10.0 });
        assert!(Spread::of(std::iter::empty()).is_err());
    }
}
