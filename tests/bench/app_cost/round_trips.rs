//! Round trips of one client with one pending call, at the bare handler and at the app server behind a proxy.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use trunkline_bench::child::Speaker;
use trunkline_bench::product::{self, Product};
use trunkline_bench::rounds::in_turn;
use trunkline_bench::single_caller::SingleCaller;
use trunkline_bench::spread::Spread;

use crate::settings::Settings;
use crate::windows::Part;

/// Target for the ratio of the 99th percentiles.
const AIM: f64 = 2.5;

/// Warm-up calls before each window.
const WARM_UP: Duration = Duration::from_millis(300);

/// Pause between an answer and the next call.
const NO_PAUSE: Duration = Duration::ZERO;

const PARTS: [Part; 3] = [Part::Bare, Part::App, Part::BareAgain];

/// All results. Times are µs from the call to its answer.
#[derive(Debug, Serialize)]
pub(crate) struct RoundTripReport {
    bare_p50_us: Spread,
    bare_p99_us: Spread,
    app_p50_us: Spread,
    app_p99_us: Spread,
    /// App server divided by bare handler, by pair.
    p99_ratio: Spread,
    /// Ratio of both bare handler windows, by pair: 1 except for noise.
    noise: Spread,
}

/// Latencies of one window in µs.
#[derive(Clone, Copy)]
struct LatencyWindow {
    p50: f64,
    p99: f64,
}

pub(crate) fn measure(settings: &Settings, tell: impl Fn(&str)) -> Result<RoundTripReport> {
    let address = product::address()?;
    let _bare = Speaker::start("bare handler", &["bare", "--listen", &address.to_string()])?;
    let product = Product::start(settings.shards)?;
    let payload = settings.payload as usize;
    let (mut bare, mut app) =
        (SingleCaller::connect(address, payload)?, SingleCaller::connect(product.address(), payload)?);
    tell(&format!(
        "\nround trips: 1 client, 1 call at a time, text of {payload} bytes, {} rounds of 3 windows of {} s\n\n\
         {:>5}  {:<11} {:>9} {:>8} {:>8}",
        settings.pairs, settings.seconds, "round", "server", "calls", "p50 us", "p99 us"
    ));
    let mut windows: Vec<(Part, LatencyWindow)> = Vec::new();
    for round in 1..=settings.pairs {
        for part in in_turn(PARTS, round) {
            let caller = if part == Part::App { &mut app } else { &mut bare };
            caller.call_for(WARM_UP, NO_PAUSE)?;
            let done = caller.call_for(Duration::from_secs(settings.seconds.into()), NO_PAUSE)?;
            let window = LatencyWindow { p50: done.percentile(50) as f64, p99: done.percentile(99) as f64 };
            tell(&format!("{round:>5}  {:<11} {:>9} {:>8} {:>8}", part.name(), done.units, window.p50, window.p99));
            windows.push((part, window));
        }
    }
    RoundTripReport::new(&windows)
}

impl RoundTripReport {
    fn new(windows: &[(Part, LatencyWindow)]) -> Result<Self> {
        let of = |wanted: Part| -> Vec<LatencyWindow> {
            windows.iter().filter(|(part, _)| *part == wanted).map(|(_, window)| *window).collect()
        };
        let (bare, app, again) = (of(Part::Bare), of(Part::App), of(Part::BareAgain));
        let ratios = |of: &[LatencyWindow], to: &[LatencyWindow]| {
            Spread::of(of.iter().zip(to).map(|(of, to)| of.p99 / to.p99.max(1.0)))
        };
        let both = [bare.as_slice(), again.as_slice()].concat();
        Ok(Self {
            bare_p50_us: Spread::of(both.iter().map(|window| window.p50))?,
            bare_p99_us: Spread::of(both.iter().map(|window| window.p99))?,
            app_p50_us: Spread::of(app.iter().map(|window| window.p50))?,
            app_p99_us: Spread::of(app.iter().map(|window| window.p99))?,
            p99_ratio: ratios(&app, &bare)?,
            noise: ratios(&again, &bare)?,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let line = |name: &str, figure: &Spread| {
            let Spread { median, min, max } = figure;
            format!("{name:<34}{median:>10.2}   {min:.2} to {max:.2}\n")
        };
        let is_met = if self.p99_ratio.median <= AIM { "met" } else { "missed" };
        [
            "\nround trips of one client: medians, and from where to where\n".into(),
            line("bare handler, p50 us", &self.bare_p50_us),
            line("app server behind a proxy, p50 us", &self.app_p50_us),
            line("bare handler, p99 us", &self.bare_p99_us),
            line("app server behind a proxy, p99 us", &self.app_p99_us),
            line("p99, behind a proxy / bare", &self.p99_ratio),
            line("noise: bare / bare", &self.noise),
            format!("aim: p99 behind a proxy / bare at most {AIM}: {is_met}\n"),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_compared_with_the_one_of_its_round() {
        let window = |p99| LatencyWindow { p50: 1.0, p99 };
        let windows = [
            (Part::Bare, window(10.0)),
            (Part::App, window(20.0)),
            (Part::BareAgain, window(10.0)),
            (Part::App, window(90.0)),
            (Part::BareAgain, window(30.0)),
            (Part::Bare, window(30.0)),
        ];
        let report = RoundTripReport::new(&windows).unwrap();
        assert_eq!((report.p99_ratio.min, report.p99_ratio.max, report.noise.median), (2.0, 3.0, 1.0));
    }
}
