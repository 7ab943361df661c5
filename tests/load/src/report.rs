//! Report of one or several merged runs: all figures, in the structure of the JSON file.

pub(crate) mod html;
pub(crate) mod text;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cli::RunArguments;
use crate::connect::{How, Start};
use crate::engine::Harvest;
use crate::ledger::Counts;
use crate::processes::{LinkReport, ProcessReport};
use crate::published::Published;
use crate::tally::Tally;
use trunkline_generator::histogram::{Histogram, Quantiles};

/// Version of the file format; other versions are rejected.
const VERSION: u32 = 1;

/// CPU share of one core above which the generator itself may be the bottleneck.
const CPU_SHARE_MAX: f64 = 0.8;
/// CPU time below which a process can't be the bottleneck.
const CPU_S_MIN: f64 = 0.5;
/// Lateness above which messages were delayed by the generator.
const LATENESS_MAX_US: u64 = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    version: u32,
    pub(crate) profile: String,
    pub(crate) generators: u32,
    pub(crate) settings: Settings,
    /// Whether no message was lost, duplicated, reordered or misdelivered, and nothing failed.
    pub(crate) is_clean: bool,
    /// Whether the run ended early, so that the report covers only a part.
    pub(crate) is_cut_short: bool,
    pub(crate) counts: Counts,
    pub(crate) missing: Vec<String>,
    pub(crate) published: Option<Published>,
    pub(crate) tally: Tally,
    /// Figures of the tables, computed from the histograms for readers of the file.
    #[serde(skip_deserializing)]
    quantiles: Vec<Row>,
    pub(crate) generator: Generator,
    pub(crate) processes: Vec<ProcessReport>,
    pub(crate) links: Vec<LinkReport>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<String>,
    pub(crate) clients: u32,
    pub(crate) run_s: f64,
    pub(crate) rampup_s: f64,
    pub(crate) rampdown_s: f64,
    pub(crate) interval_ms: u64,
    pub(crate) groups: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) protocol: String,
    pub(crate) transport: String,
    pub(crate) negotiate: bool,
}

/// Resource usage of the generator during the profile's work.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    /// Peak memory; the maximum of several generators.
    pub(crate) peak_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) quantiles: Quantiles,
}

impl Settings {
    pub(crate) fn of(arguments: &RunArguments, how: &How) -> Self {
        Self {
            servers: arguments.servers.clone(),
            clients: arguments.clients,
            run_s: arguments.run.as_secs_f64(),
            rampup_s: arguments.rampup.as_secs_f64(),
            rampdown_s: arguments.rampdown.as_secs_f64(),
            interval_ms: arguments.interval,
            groups: arguments.groups,
            payload_bytes: arguments.payload,
            protocol: how.protocol.name().to_owned(),
            transport: how.transport.official_name().to_owned(),
            negotiate: how.start == Start::Negotiate,
        }
    }
}

impl Generator {
    /// CPU share of one core during the profile's work.
    pub(crate) fn share(&self) -> f64 {
        if self.wall_s > 0.0 { self.cpu_s / self.wall_s } else { 0.0 }
    }
}

impl Report {
    pub(crate) fn new(
        profile: String,
        settings: Settings,
        harvest: Harvest,
        tally: Tally,
        generator: Generator,
        (processes, links): (Vec<ProcessReport>, Vec<LinkReport>),
    ) -> Self {
        let Harvest { counts, missing, published, is_cut_short } = harvest;
        let mut report = Self {
            version: VERSION,
            profile,
            generators: 1,
            settings,
            is_clean: false,
            is_cut_short,
            counts,
            missing,
            published,
            tally,
            quantiles: Vec::new(),
            generator,
            processes,
            links,
            warnings: Vec::new(),
        };
        report.warnings = report.find_warnings();
        report.conclude();
        report
    }

    /// Merges the files of several generators.
    pub(crate) fn merged(files: &[impl AsRef<Path>]) -> Result<Self> {
        let mut reports = files.iter().map(|file| Self::read(file.as_ref()));
        let mut sum = reports.next().context("no file to merge")??;
        for report in reports {
            sum.add(report?)?;
        }
        sum.conclude();
        Ok(sum)
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self)?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match (self.is_cut_short, self.is_clean) {
            (false, true) => "clean",
            (false, false) => "NOT CLEAN",
            (true, true) => "cut short, clean until then",
            (true, false) => "cut short, NOT CLEAN",
        }
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let tally = &self.tally;
        let row = |name, histogram: &Histogram| Row { name, quantiles: histogram.quantiles() };
        let rows = [
            row("connect", &tally.connect),
            row("latency", &tally.latency),
            row("interval", &tally.interval),
            row("sent late", &tally.lateness),
        ];
        let mut rows: Vec<Row> = rows.into_iter().filter(|row| row.quantiles.count > 0).collect();
        if !tally.storms.is_empty() {
            let mut back = Histogram::default();
            tally.storms.iter().for_each(|storm| back.add(&storm.back));
            rows.push(row("back after a storm", &back));
        }
        rows
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let report: Self = serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        ensure!(report.version == VERSION, "{} is of version {}", path.display(), report.version);
        Ok(report)
    }

    fn add(&mut self, other: Self) -> Result<()> {
        ensure!(self.profile == other.profile, "{} and {} do not add up", self.profile, other.profile);
        self.generators += other.generators;
        for server in other.settings.servers {
            if !self.settings.servers.contains(&server) {
                self.settings.servers.push(server);
            }
        }
        self.is_cut_short |= other.is_cut_short;
        self.counts += other.counts;
        self.missing.extend(other.missing);
        match (&mut self.published, other.published) {
            (Some(sum), Some(other)) => sum.add(&other),
            (mine, other) => *mine = mine.take().or(other),
        }
        self.tally.add(&other.tally);
        self.generator.cpu_s += other.generator.cpu_s;
        self.generator.wall_s += other.generator.wall_s;
        self.generator.peak_bytes = self.generator.peak_bytes.max(other.generator.peak_bytes);
        // Keep all reports of a process that several generators measured.
        self.processes.extend(other.processes);
        self.links.extend(other.links);
        self.warnings.extend(other.warnings);
        Ok(())
    }

    fn conclude(&mut self) {
        self.is_clean = self.counts.are_clean() && self.tally.is_clean() && !self.did_nothing();
        self.quantiles = self.rows();
    }

    /// A run without connections proves nothing.
    fn did_nothing(&self) -> bool {
        self.tally.opened == 0
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let share = self.generator.share();
        if share > CPU_SHARE_MAX {
            warnings.push(format!(
                "the generator used {:.0} % of its core: it was the bottleneck; use several, and merge their reports",
                share * 100.0
            ));
        }
        let late_us = self.tally.lateness.at(0.99);
        if late_us > LATENESS_MAX_US {
            warnings.push(format!(
                "one message in a hundred left {} ms late or later: the generator or its machine was the bottleneck",
                late_us / 1_000
            ));
        }
        let watched_s = self.processes.iter().map(|process| process.cpu_s).sum::<f64>();
        if !self.processes.is_empty() && self.generator.cpu_s > watched_s.max(CPU_S_MIN) {
            warnings.push("the generator used more CPU time than all watched processes together".to_owned());
        }
        if self.published.is_some() && self.counts.sent == 0 {
            warnings.push("nothing was sent, so nothing is proven: run longer, or at a shorter interval".to_owned());
        }
        if cfg!(debug_assertions) {
            warnings.push("this is no release build: its times mean little".to_owned());
        }
        warnings
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::published::{Figure, Mean};

    /// Report with all kinds of content.
    pub(crate) fn sample() -> Report {
        let mut tally = Tally { attempted: 3, ..Tally::default() };
        tally.opened(100_000, 700);
        tally.opened(200_000, 900);
        tally.failed("connection refused".into());
        for number in 1..=1_000 {
            tally.sent(number * 5_000, number * 5_000);
            tally.received(number * 5_000, number);
        }
        let mut mean = Mean::default();
        mean.add(500);
        let harvest = Harvest {
            counts: Counts { sent: 1_000, expected: 1_001, received: 1_000, lost: 1, ..Counts::default() },
            missing: vec!["client 1 misses <everything>".into()],
            published: Some(Published::of(Figure::ChatLatency, [mean])),
            is_cut_short: false,
        };
        let settings = Settings {
            servers: vec!["http://127.0.0.1:8080".into()],
            clients: 3,
            run_s: 5.0,
            rampup_s: 1.0,
            rampdown_s: 1.0,
            interval_ms: 10,
            groups: 1,
            payload_bytes: 0,
            protocol: "json".into(),
            transport: "WebSockets".into(),
            negotiate: false,
        };
        let generator = Generator { cpu_s: 1.0, wall_s: 5.0, peak_bytes: 1 << 20 };
        Report::new("chat".into(), settings, harvest, tally, generator, (Vec::new(), Vec::new()))
    }

    #[test]
    fn a_report_survives_its_file_and_two_make_twice_one() {
        let file = std::env::temp_dir().join(format!("trunkline-load-{}.json", std::process::id()));
        sample().write_json(&file).unwrap();
        let merged = Report::merged(&[&file, &file]).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!((merged.generators, merged.counts.sent, merged.counts.lost), (2, 2_000, 2));
        assert_eq!(merged.tally.latency.count(), 2_000);
        assert_eq!(merged.tally.latency.quantiles().p99_us, sample().tally.latency.quantiles().p99_us);
        assert_eq!(merged.tally.failed["connection refused"], 2);
        assert!(!merged.is_clean);
    }

    #[test]
    fn any_fault_is_no_clean_run() {
        let mut report = sample();
        (report.counts.lost, report.tally.failed) = (0, Default::default());
        report.conclude();
        assert!(report.is_clean);
        for fault in [
            Counts { lost: 1, ..report.counts },
            Counts { duplicated: 1, ..report.counts },
            Counts { reordered: 1, ..report.counts },
            Counts { misdelivered: 1, ..report.counts },
        ] {
            let mut faulty = Report { counts: fault, ..report.clone() };
            faulty.conclude();
            assert!(!faulty.is_clean);
        }
        report.tally.opened = 0;
        report.conclude();
        assert!(!report.is_clean);
    }

    #[test]
    fn a_generator_that_is_too_busy_is_a_bottleneck() {
        let mut report = sample();
        report.generator.cpu_s = 4.9;
        assert!(report.find_warnings().iter().any(|warning| warning.contains("bottleneck")));
    }
}
