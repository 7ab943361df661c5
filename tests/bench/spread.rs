//! Median and range of several values.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Median and range of several values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median; of two values, their mean.
    pub median: f64,
    /// Minimum of the values.
    pub min: f64,
    /// Maximum of the values.
    pub max: f64,
}

impl Spread {
    /// Computes median and range of these values.
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
