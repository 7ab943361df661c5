#![forbid(unsafe_code)]
//! Puts the figures of all benchmark runs together: `bench.json`, and a page with bars that needs nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;
use trunkline_tests::bench::command;
use trunkline_tests::bench::process::say;

const ALL: &str = "bench.json";
const PAGE: &str = "index.html";

/// The style of the page, for light and dark alike.
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
small { opacity: .75; }
";

/// Puts the figures of all benchmark runs together.
#[derive(Debug, Parser)]
#[command(name = "bench_page")]
struct Arguments {
    /// Where the JSON files are, and the page goes
    folder: PathBuf,
}

fn main() -> ExitCode {
    command::finish("bench_page", write(&Arguments::parse().folder))
}

fn write(folder: &PathBuf) -> Result<()> {
    let mut runs = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_run = path.extension().is_some_and(|extension| extension == "json") && !path.ends_with(ALL);
        if is_run {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            runs.insert(name, serde_json::from_str(&text).with_context(|| format!("{} is no run", path.display()))?);
        }
    }
    ensure!(!runs.is_empty(), "{} has no runs: tests/bench/run makes some", folder.display());
    std::fs::write(folder.join(ALL), serde_json::to_string_pretty(&runs)?)?;
    std::fs::write(folder.join(PAGE), page(&runs))?;
    say(&format!("{} runs: {} and {}", runs.len(), folder.join(ALL).display(), folder.join(PAGE).display()));
    Ok(())
}

/// A figure's median, smallest and largest.
fn spread(run: &Value, name: &str) -> Option<[f64; 3]> {
    let figure = run.get(name)?;
    let part = |part| figure.get(part).and_then(Value::as_f64);
    Some([part("median")?, part("min")?, part("max")?])
}

fn page(runs: &BTreeMap<String, Value>) -> String {
    let rows: String = runs.iter().filter_map(|(name, run)| row(name, run)).collect();
    let largest = runs.values().filter_map(micros).fold(f64::MIN_POSITIVE, f64::max);
    let costs: String = runs.iter().filter_map(|(name, run)| cost(name, run, largest)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Trunkline: what it costs</title>\
         <style>{STYLE}</style><h1>What it costs</h1>\
         <p>Units of work per second of the server's CPU time, beside a bare epoll server that does the same reads and \
         writes, the floor (in <em>slow</em>: beside a proxy whose clients all read). Medians of alternating pairs; the \
         thin line is from the smallest to the largest; noise is the floor beside itself.</p>\
         <table><tr><th>run<th>floor<th>proxy<th>proxy / floor<th><th>µs more each<th>noise<th>KiB per client</tr>{rows}</table>\
         <h2>CPU time of one unit</h2><table><tr><th>run<th>µs<th></tr>{costs}</table></html>"
    )
}

fn row(name: &str, run: &Value) -> Option<String> {
    let [floor, ..] = spread(run, "base")?;
    let [proxy, ..] = spread(run, "subject")?;
    let ratio = spread(run, "ratio")?;
    let [excess, ..] = spread(run, "excess_us")?;
    let [_, low, high] = spread(run, "base_over_base")?;
    let kib = run.get("memory_per_client_kib").and_then(Value::as_f64).unwrap_or_default();
    let mut row = String::new();
    // Writing to a text never fails.
    let _ = write!(
        row,
        "<tr><td>{name}<td>{floor:.0}<td>{proxy:.0}<td>{:.3}<td class=\"bar\">{}<td>{excess:.2}<td>{low:.2} to {high:.2}<td>{kib:.2}</tr>",
        ratio[0],
        bar(ratio, 1.2),
    );
    Some(row)
}

fn micros(run: &Value) -> Option<f64> {
    spread(run, "subject").map(|[per_second, ..]| 1e6 / per_second)
}

fn cost(name: &str, run: &Value, largest: f64) -> Option<String> {
    let micros = micros(run)?;
    Some(format!("<tr><td>{name}<td>{micros:.2}<td class=\"bar\">{}</tr>", bar([micros; 3], largest)))
}

/// A bar up to the median, and a line from the smallest to the largest.
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
    fn a_run_is_a_row_and_what_is_none_is_left_out() {
        let figure = |median: f64| json!({ "median": median, "min": median, "max": median });
        let run = json!({
            "base": figure(200.0), "subject": figure(100.0), "ratio": figure(0.5), "excess_us": figure(5_000.0),
            "base_over_base": figure(1.0), "memory_per_client_kib": 1.5
        });
        let page = page(&BTreeMap::from([("calls-64".into(), run), ("other".into(), json!({}))]));
        assert!(page.contains("<tr><td>calls-64<td>200<td>100<td>0.500"), "{page}");
        assert!(page.contains("<td>calls-64<td>10000.00<td"));
        assert!(!page.contains("other"));
    }

    #[test]
    fn a_bar_never_leaves_its_track() {
        assert!(bar([3.0, -1.0, 9.0], 2.0).contains("width:100.0%"));
    }
}
