//! Memory per idle connection: medians, table.

use anyhow::{Context, Result};
use serde::Serialize;
use trunkline_bench::child::Speaker;
use trunkline_bench::spread::Spread;
use trunkline_generator::memory::Memory;

use crate::browser::Dress;
use crate::idle::{MemoryReading, Waves};
use crate::settings::Settings;

const DRESSES: [Dress; 2] = [Dress::Minimal, Dress::Chromium];

/// Target for bytes per connection with minimal headers at the app server.
const AIM_BYTES: f64 = 500.0;

#[derive(Debug, Serialize)]
pub(crate) struct MemoryReport {
    figures: Vec<Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    dress: Dress,
    app: Growth,
    proxy: Growth,
    runs: Vec<Waves>,
}

/// Growth of anonymous memory, in bytes per connection.
#[derive(Debug, Clone, Copy, Serialize)]
struct Growth {
    /// Growth with the first wave, including pools and tables.
    first_wave: Spread,
    /// Growth from the first wave to the second.
    slope: Spread,
}

pub(crate) fn measure(settings: &Settings, tell: impl Fn(&str)) -> Result<MemoryReport> {
    tell(&heading(settings));
    let mut runs = DRESSES.map(|dress| (dress, Vec::new()));
    for run in 1..=settings.memory_runs {
        for (dress, waves) in &mut runs {
            let measured = waves_of(*dress, settings).with_context(|| format!("run {run}, {}", dress.name()))?;
            tell(&row(run, *dress, &measured, settings.idle));
            waves.push(measured);
        }
    }
    let figures = runs.into_iter().map(|(dress, runs)| Figures::new(dress, runs, settings.idle));
    Ok(MemoryReport { figures: figures.collect::<Result<_>>()? })
}

fn waves_of(dress: Dress, settings: &Settings) -> Result<Waves> {
    let [clients, shards] = [settings.idle.to_string(), settings.shards.to_string()];
    let arguments = ["idle", "--dress", dress.name(), "--clients", &clients, "--shards", &shards];
    Ok(serde_json::from_str(&Speaker::start("idle clients", &arguments)?.ask("")?)?)
}

impl MemoryReport {
    pub(crate) fn summary(&self) -> String {
        let line = |name: &str, figure: &Spread| {
            let Spread { median, min, max } = figure;
            format!("{name:<42}{median:>8.0}   {min:.0} to {max:.0}\n")
        };
        let mut text = "\nbytes of memory per idle connection: medians, and from where to where\n".to_owned();
        for Figures { dress, app, proxy, .. } in &self.figures {
            for (name, growth) in [("app server", app), ("proxy", proxy)] {
                let name = format!("{name}, {} headers", dress.name());
                text += &line(&format!("{name}, first wave"), &growth.first_wave);
                text += &line(&format!("{name}, slope"), &growth.slope);
            }
        }
        for figures in self.figures.iter().filter(|figures| figures.dress == Dress::Minimal) {
            let is_met = if figures.app.slope.median <= AIM_BYTES { "met" } else { "missed" };
            text += &format!("aim: app server, minimal headers, slope at most {AIM_BYTES}: {is_met}\n");
        }
        text
    }
}

impl Figures {
    fn new(dress: Dress, runs: Vec<Waves>, clients: u32) -> Result<Self> {
        let growth = |memory: fn(&MemoryReading) -> &Memory| -> Result<Growth> {
            let between = |from: fn(&Waves) -> &MemoryReading, to: fn(&Waves) -> &MemoryReading| {
                Spread::of(runs.iter().map(|run| per_client(memory(from(run)), memory(to(run)), clients)))
            };
            Ok(Growth {
                first_wave: between(|run| &run.before, |run| &run.first)?,
                slope: between(|run| &run.first, |run| &run.second)?,
            })
        };
        let (app, proxy) = (growth(|reading| &reading.app)?, growth(|reading| &reading.proxy)?);
        Ok(Self { dress, app, proxy, runs })
    }
}

fn per_client(before: &Memory, after: &Memory, clients: u32) -> f64 {
    (after.anonymous_bytes as f64 - before.anonymous_bytes as f64) / f64::from(clients)
}

fn heading(settings: &Settings) -> String {
    let (clients, both) = (settings.idle, 2 * settings.idle);
    format!(
        "\nmemory: {clients} idle connections, then {both}; growth of anonymous memory in bytes per connection\n\n\
         {:>5}  {:<9} {:>10} {:>10} {:>11} {:>11} {:>13}",
        "run", "headers", "app first", "app slope", "proxy first", "proxy slope", "app, all kiB",
    )
}

fn row(run: u32, dress: Dress, waves: &Waves, clients: u32) -> String {
    let Waves { before, first, second } = waves;
    format!(
        "{run:>5}  {:<9} {:>10.0} {:>10.0} {:>11.0} {:>11.0} {:>13}",
        dress.name(),
        per_client(&before.app, &first.app, clients),
        per_client(&first.app, &second.app, clients),
        per_client(&before.proxy, &first.proxy, clients),
        per_client(&first.proxy, &second.proxy, clients),
        second.app.resident_bytes / 1024,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_leaves_out_one_time_costs() {
        let reading = |clients: u64| {
            let anonymous_bytes = if clients == 0 { 1_000 } else { 51_000 + 400 * clients };
            let memory = Memory { anonymous_bytes, proportional_bytes: anonymous_bytes, resident_bytes: 0 };
            MemoryReading { app: memory, proxy: memory }
        };
        let waves = Waves { before: reading(0), first: reading(100), second: reading(200) };
        let figures = Figures::new(Dress::Minimal, vec![waves], 100).unwrap();
        assert!((figures.app.first_wave.median - 900.0).abs() < 1e-9);
        assert!((figures.app.slope.median - 400.0).abs() < 1e-9);
        assert!(MemoryReport { figures: vec![figures] }.summary().contains("at most 500: met"));
    }
}
