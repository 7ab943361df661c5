#![forbid(unsafe_code)]
//! Combines the results of all benchmark runs: `bench.json`, and a self-contained page with charts.
//!
//! The results of each run are kept in the folder `history`, with date and commit, and the page shows their
//! development. They stay in the build folder, because results of different machines are not comparable.

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use history::Entry;
use serde_json::Value;
use trunkline_bench::spread::Spread;
use trunkline_generator::chart::{Chart, Line};
use trunkline_tests::harness::command;
use trunkline_tests::harness::command::print_line;

const ALL: &str = "bench.json";
const PAGE: &str = "index.html";
const HISTORY: &str = "history";

/// Style of the page, for light and dark.
const STYLE: &str = "
:root { color-scheme: light dark; --bar: light-dark(#2f6fde, #6ea0ff); --range: light-dark(#0b2a66, #d5e3ff); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid light-dark(#ddd, #444); }
th:first-child, td:first-child { text-align: left; }
td.bar { width: 34%; min-width: 12rem; }
.track { position: relative; height: 1rem; background: light-dark(#eee, #333); }
.track div { position: absolute; top: 0; bottom: 0; background: var(--bar); }
.track i { position: absolute; top: .3rem; bottom: .3rem; background: var(--range); }
figure { margin: 2rem 0; }
.key { margin-left: 1rem; }
.key::before { content: \"\"; display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle; }
.key.proxy::before { background: var(--bar); }
.key.floor::before { background: gray; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11px; fill: currentColor; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: light-dark(#ddd, #444); }
polyline { fill: none; stroke-width: 2; }
polyline.proxy { stroke: var(--bar); }
polyline.floor { stroke: gray; stroke-dasharray: 6 4; }
";

/// Puts the figures of all benchmark runs together.
#[derive(Debug, Parser)]
#[command(name = "bench_page")]
struct Arguments {
    /// Folder of the JSON files and the page
    folder: PathBuf,
    /// Folder of the history; by default the subfolder `history`
    #[arg(long, value_name = "FOLDER")]
    history: Option<PathBuf>,
    /// Commit of the last run; without it, nothing is added to the history
    #[arg(long, value_name = "COMMIT", requires = "date", requires = "since")]
    commit: Option<String>,
    /// Date of that run, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "DATE", default_value = "")]
    date: String,
    /// Start of that run in Unix seconds: older files are ignored
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    since: u64,
}

fn main() -> ExitCode {
    command::finish("bench_page", write(&Arguments::parse()))
}

fn write(arguments: &Arguments) -> Result<()> {
    let Arguments { folder, history, commit, date, since } = arguments;
    let (mut runs, mut is_new) = (BTreeMap::new(), BTreeSet::new());
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_run = path.extension().is_some_and(|extension| extension == "json") && !path.ends_with(ALL);
        if is_run {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            if path.metadata()?.modified()? >= UNIX_EPOCH + Duration::from_secs(*since) {
                is_new.insert(name.clone());
            }
            runs.insert(name, serde_json::from_str(&text).with_context(|| format!("{} is no run", path.display()))?);
        }
    }
    ensure!(!runs.is_empty(), "{} has no runs: tests/bench/run makes some", folder.display());
    std::fs::write(folder.join(ALL), serde_json::to_string_pretty(&runs)?)?;
    let history = history.clone().unwrap_or_else(|| folder.join(HISTORY));
    if let Some(commit) = commit {
        Entry::new(date, commit, runs.iter().filter(|(name, _)| is_new.contains(*name))).keep(&history)?;
    }
    std::fs::write(folder.join(PAGE), page(&runs, &history::all(&history)?))?;
    print_line(&format!("{} runs: {} and {}", runs.len(), folder.join(ALL).display(), folder.join(PAGE).display()));
    Ok(())
}

/// Below this number of clients, the shared memory of a proxy hides the memory per client.
const CLIENTS_MIN: f64 = 1_000.0;

/// Runs that differ only in the number of clients, by name prefix, with the title of their chart.
const SERIES: [(&str, &str); 2] = [
    ("flat-deliveries-", "CPU time of a delivery over the number of clients"),
    ("flat-calls-", "CPU time of a call over the number of clients"),
];

fn spread(run: &Value, name: &str) -> Option<[f64; 3]> {
    let figure = run.get(name)?;
    let part = |part| figure.get(part).and_then(Value::as_f64);
    Some([part("median")?, part("min")?, part("max")?])
}

fn page(runs: &BTreeMap<String, Value>, entries: &[Entry]) -> String {
    let mut all: Vec<_> = runs.iter().map(|(name, run)| (name.as_str(), run)).collect();
    all.sort_by_key(|(name, _)| numbered(name));
    let rows: String = all.iter().filter_map(|(name, run)| row(name, run)).collect();
    let costs = bars(&all, |run| micros(run, "subject"), 2, plain);
    let memory = bars(&all, memory, 2, plain);
    let [p50, p99] = ["p50_us", "p99_us"].map(|name| bars(&all, |run| latency(run, name), 0, f64::ln_1p));
    let flat: String = SERIES.iter().map(|(names, title)| over_clients(&all, names, title)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Trunkline: what it costs</title>\
         <style>{STYLE}</style><h1>What it costs</h1>\
         <p>Units of work per second of the server's CPU time, beside a bare epoll server that does the same reads and \
         writes, the floor (in <em>slow</em>: beside a proxy whose clients all read, in <em>transports</em>: by WebSockets; in \
         <em>sends</em>: to many by one system call). Medians of alternating pairs; the \
         thin line is from the smallest to the largest; noise is the floor beside itself.</p>\
         <table><tr><th>run<th>floor<th>proxy<th>proxy / floor<th><th>µs more each<th>noise<th>KiB per client</tr>{rows}</table>\
         {flat}<h2>CPU time of one unit</h2><table><tr><th>run<th>µs<th></tr>{costs}</table>\
         <h2>Memory of one client</h2><table><tr><th>run<th>KiB<th></tr>{memory}</table>\
         <h2>Latency under this load</h2><p>All clients at once, and the generator looks once in a while: what counts is how \
         runs differ. Bars grow by equal steps as the figure doubles.</p><h3>Half of all within</h3><table><tr><th>run<th>µs<th></tr>{p50}</table>\
         <h3>99 of 100 within</h3><table><tr><th>run<th>µs<th></tr>{p99}</table>{}</html>",
        history::section(entries)
    )
}

/// Splits a name from its number, so that 5000 precedes 10000.
fn numbered(name: &str) -> (&str, u64) {
    let text = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (text, name.get(text.len()..).and_then(|number| number.parse().ok()).unwrap_or_default())
}

fn clients(run: &Value) -> Option<f64> {
    run.get("settings")?.get("clients")?.as_f64()
}

/// Memory per client at the proxy; none for visitors, which are disconnected when it is read.
fn memory(run: &Value) -> Option<f64> {
    let work = run.get("settings")?.get("work").and_then(Value::as_str);
    clients(run).filter(|_| work != Some("connect")).filter(|clients| *clients >= CLIENTS_MIN)?;
    run.get("memory_per_client_kib")?.as_f64()
}

fn latency(run: &Value, name: &str) -> Option<f64> {
    let windows = run.get("windows")?.as_array()?.iter();
    let subject = windows.filter(|window| window.get("part").and_then(Value::as_str) == Some("subject"));
    let spread = Spread::of(subject.filter_map(|window| window.get(name)?.as_f64())).ok()?;
    // Idle clients have no latency.
    Some(spread.median).filter(|latency| *latency > 0.0)
}

fn over_clients(all: &[(&str, &Value)], names: &str, title: &'static str) -> String {
    let runs: Vec<_> = all.iter().filter(|(name, _)| name.starts_with(names)).map(|(_, run)| *run).collect();
    // The number of clients grows by a factor per step.
    let line = |name, figure| Line {
        name,
        class: name,
        points: runs.iter().filter_map(|run| Some((clients(run)?.ln(), micros(run, figure)?))).collect(),
    };
    let marks = runs.iter().filter_map(|run| clients(run)).map(|clients| (clients.ln(), clients.to_string()));
    let lines = vec![line("floor", "base"), line("proxy", "subject")];
    Chart { title: title.into(), unit: "µs", marks: marks.collect(), lines }.figure()
}

fn row(name: &str, run: &Value) -> Option<String> {
    let [floor, ..] = spread(run, "base")?;
    let [proxy, ..] = spread(run, "subject")?;
    let ratio = spread(run, "ratio")?;
    let [excess, ..] = spread(run, "excess_us")?;
    let [_, low, high] = spread(run, "base_over_base")?;
    let kib = run.get("memory_per_client_kib").and_then(Value::as_f64).unwrap_or_default();
    let mut row = String::new();
    let _ = write!(
        row,
        "<tr><td>{name}<td>{floor:.0}<td>{proxy:.0}<td>{:.3}<td class=\"bar\">{}<td>{excess:.2}<td>{low:.2} to {high:.2}<td>{kib:.2}</tr>",
        ratio[0],
        bar(ratio, 1.2),
    );
    Some(row)
}

fn micros(run: &Value, of: &str) -> Option<f64> {
    spread(run, of).map(|[per_second, ..]| 1e6 / per_second)
}

fn plain(figure: f64) -> f64 {
    figure
}

/// Table rows with one bar each, for all runs with this result, scaled by `scale`.
fn bars(
    all: &[(&str, &Value)],
    figure: impl Fn(&Value) -> Option<f64>,
    digits: usize,
    scale: fn(f64) -> f64,
) -> String {
    let figures: Vec<_> = all.iter().filter_map(|(name, run)| Some((name, figure(run)?))).collect();
    let largest = figures.iter().fold(f64::MIN_POSITIVE, |largest, (_, figure)| largest.max(scale(*figure)));
    let row = |(name, figure): &(&&str, f64)| {
        format!("<tr><td>{name}<td>{figure:.digits$}<td class=\"bar\">{}</tr>", bar([scale(*figure); 3], largest))
    };
    figures.iter().map(row).collect()
}

/// Bar up to the median, and a line from minimum to maximum.
fn bar([median, min, max]: [f64; 3], full: f64) -> String {
    let percent = |value: f64| (value / full * 100.0).clamp(0.0, 100.0);
    let (from, to) = (percent(min), percent(max));
    format!(
        "<div class=\"track\"><div style=\"width:{:.1}%\"></div><i style=\"left:{from:.1}%;width:{:.1}%\"></i></div>",
        percent(median),
        to - from
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_a_row_and_other_files_are_left_out() {
        let figure = |median: f64| json!({ "median": median, "min": median, "max": median });
        let run = json!({
            "base": figure(200.0), "subject": figure(100.0), "ratio": figure(0.5), "excess_us": figure(5_000.0),
            "base_over_base": figure(1.0), "memory_per_client_kib": 1.5
        });
        let page = page(&BTreeMap::from([("calls-64".into(), run), ("other".into(), json!({}))]), &[]);
        assert!(page.contains("<tr><td>calls-64<td>200<td>100<td>0.500"), "{page}");
        assert!(page.contains("<td>calls-64<td>10000.00<td"));
        assert!(!page.contains("other"));
    }

    #[test]
    fn runs_that_differ_in_clients_are_a_picture_in_their_order() {
        let figure = |median: f64| json!({ "median": median, "min": median, "max": median });
        let run =
            |clients: u32| json!({ "settings": { "clients": clients }, "base": figure(2e5), "subject": figure(1e5) });
        let runs = [5_000, 10_000].map(|clients| (format!("flat-calls-{clients}"), run(clients)));
        let page = page(&BTreeMap::from(runs), &[]);
        let [first, second] = [">5000</text>", ">10000</text>"].map(|mark| page.find(mark));
        assert!(first.is_some() && first < second, "{page}");
        assert_eq!(page.matches("<polyline").count(), 2, "{page}");
    }

    #[test]
    fn latencies_are_those_of_the_proxy_and_memory_of_few_clients_is_none() {
        let window = |part, p50_us| json!({ "part": part, "p50_us": p50_us });
        let windows = [window("base", 900), window("subject", 10), window("subject", 30), window("subject", 20)];
        let run = json!({ "settings": { "clients": 64 }, "memory_per_client_kib": 40.0, "windows": windows });
        assert_eq!((latency(&run, "p50_us"), latency(&run, "p99_us"), memory(&run)), (Some(20.0), None, None));
    }

    #[test]
    fn a_bar_never_leaves_its_track() {
        assert!(bar([3.0, -1.0, 9.0], 2.0).contains("width:100.0%"));
    }
}
