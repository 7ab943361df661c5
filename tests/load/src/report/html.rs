//! Report as a self-contained page: includes style and charts, for light and dark.

use crate::report::text::{self, ms};
use crate::report::{Report, Row};
use crate::tally::{Causes, Second};
use trunkline_generator::chart::{Chart, Line};
use trunkline_generator::histogram::Histogram;

/// Number of quantiles in a histogram's curve; ten points add one nine.
const CURVE_POINTS: u32 = 40;

pub(crate) fn page(report: &Report) -> String {
    let title = format!("trunkline-load: {}", escaped(&report.profile));
    let (verdict, class) = (report.verdict(), if report.is_clean { "good" } else { "bad" });
    let published = report.published.as_ref().map(|published| published.line(&report.counts)).unwrap_or_default();
    let style = include_str!("page.css");
    [
        format!("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>"),
        "<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">"
            .into(),
        format!("<style>{style}</style></head><body><main>"),
        format!("<header><h1>{title}</h1><span class=\"verdict {class}\">{verdict}</span></header>"),
        format!("<p class=\"sub\">{}</p>", escaped(&text::heading(report))),
        format!("<p class=\"sub\">{}</p>", escaped(&published)),
        tiles(report),
        notes(report),
        "<section class=\"charts\">".into(),
        charts(report).iter().map(Chart::figure).collect(),
        "</section>".into(),
        table(&report.rows()),
        causes(report),
        usage(report),
        "</main></body></html>\n".into(),
    ]
    .concat()
}

fn tiles(report: &Report) -> String {
    let (counts, tally) = (&report.counts, &report.tally);
    let failed: u64 = tally.failed.values().sum();
    let tile = |name: &str, count: u64, is_fault: bool| {
        let class = if is_fault && count > 0 { " class=\"bad\"" } else { "" };
        format!("<div><b{class}>{count}</b><span>{name}</span></div>")
    };
    [
        "<section class=\"tiles\">".into(),
        tile("connected", tally.opened, false),
        tile("failed to connect", failed, true),
        tile("ended early", tally.ended.values().sum(), true),
        tile("sent", counts.sent, false),
        tile("expected", counts.expected, false),
        tile("received", counts.received, false),
        tile("lost", counts.lost, true),
        tile("duplicated", counts.duplicated, true),
        tile("out of order", counts.reordered, true),
        tile("misdelivered", counts.misdelivered, true),
        "</section>".into(),
    ]
    .concat()
}

fn notes(report: &Report) -> String {
    let lines = report.warnings.iter().chain(&report.missing);
    let items: String = lines.map(|line| format!("<li>{}</li>", escaped(line))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"notes\">{items}</ul>") }
}

fn charts(report: &Report) -> Vec<Chart> {
    let tally = &report.tally;
    let seconds = |value: &dyn Fn(&Second) -> f64| over_time(tally.seconds.iter().map(value));
    // A second without messages has no latency, which differs from a latency of zero.
    let latencies = |value: &dyn Fn(&Second) -> f64| -> Vec<(f64, f64)> {
        let all = seconds(value).into_iter().zip(&tally.seconds);
        all.filter(|(_, second)| second.latency_count > 0).map(|(point, _)| point).collect()
    };
    let open = over_time(tally.open_by_second().into_iter().map(|open| open as f64));
    let mean = |second: &Second| second.latency_sum_us as f64 / second.latency_count.max(1) as f64 / 1e3;
    let marks = time_marks(tally.seconds.len());
    let over = |title: &'static str, unit, lines| Chart { title: title.into(), unit, marks: marks.clone(), lines };
    let mut charts = vec![over("Open connections", "count", vec![Line { name: "open", class: "a", points: open }])];
    if tally.latency.count() > 0 {
        charts.push(over(
            "Latency over time",
            "ms",
            vec![
                Line { name: "mean", class: "a", points: latencies(&mean) },
                Line { name: "largest", class: "b", points: latencies(&|second| second.latency_max_us as f64 / 1e3) },
            ],
        ));
        charts.push(over(
            "Messages",
            "per second",
            vec![
                Line { name: "received", class: "a", points: seconds(&|second| second.received as f64) },
                Line { name: "sent", class: "b", points: seconds(&|second| second.sent as f64) },
            ],
        ));
        charts.push(curve("Latency by share", &tally.latency));
    }
    if tally.interval.count() > 0 {
        charts.push(curve("Interval by share", &tally.interval));
    }
    charts.push(curve("Connect time by share", &tally.connect));
    charts.extend(tally.storms.iter().map(|storm| accept_curve(&storm.back)));
    charts
}

fn over_time(values: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    values.zip(0_u32..).map(|(value, second)| (f64::from(second), value)).collect()
}

fn time_marks(seconds: usize) -> Vec<(f64, String)> {
    let last = u32::try_from(seconds.saturating_sub(1)).unwrap_or(u32::MAX);
    let step = last.div_ceil(6).max(1);
    (0..=last).step_by(step as usize).map(|second| (f64::from(second), format!("{second} s"))).collect()
}

/// Histogram over quantiles on a scale with equal width per nine, because the tail matters.
fn curve(title: &'static str, histogram: &Histogram) -> Chart {
    let points = (0..=CURVE_POINTS).map(|step| {
        let nines = f64::from(step) / 10.0;
        (nines, histogram.at(1.0 - 0.1_f64.powf(nines)) as f64 / 1e3)
    });
    let marks = ["0", "90 %", "99 %", "99.9 %", "99.99 %"].into_iter().zip(0_u32..);
    let marks = marks.map(|(text, place)| (f64::from(place), text.to_owned())).collect();
    Chart {
        title: title.into(),
        unit: "ms",
        marks,
        lines: vec![Line { name: "time", class: "a", points: points.collect() }],
    }
}

/// Number of reconnected clients over the time since the drop.
fn accept_curve(back: &Histogram) -> Chart {
    let count = back.count() as f64;
    let at = |percent: u32| (back.at(f64::from(percent) / 100.0) as f64 / 1e3, count * f64::from(percent) / 100.0);
    let points: Vec<_> = std::iter::once((0.0, 0.0)).chain((1..=100).map(at)).collect();
    let last = points.last().map_or(0.0, |point| point.0);
    let marks = (0..=4).map(|part| last * f64::from(part) / 4.0).map(|x| (x, format!("{x:.0} ms"))).collect();
    let lines = vec![Line { name: "back", class: "a", points }];
    Chart { title: "Back after a storm".into(), unit: "clients", marks, lines }
}

fn table(rows: &[Row]) -> String {
    let rows: String = rows
        .iter()
        .map(|row| {
            let quantiles = row.quantiles;
            let times = [quantiles.p50_us, quantiles.p90_us, quantiles.p99_us, quantiles.p999_us, quantiles.max_us];
            let times: String = times.iter().map(|&time_us| format!("<td>{}</td>", ms(time_us))).collect();
            format!("<tr><th>{}</th><td>{}</td>{times}</tr>", row.name, quantiles.count)
        })
        .collect();
    format!(
        "<table><thead><tr><th>milliseconds</th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th>\
         <th>max</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

fn causes(report: &Report) -> String {
    let tally = &report.tally;
    let rows = |name: &str, causes: &Causes| -> String {
        let row = |(cause, count): (&String, &u64)| {
            format!("<tr><th>{name}</th><td>{}</td><td>{count}</td></tr>", escaped(cause))
        };
        causes.iter().map(row).collect()
    };
    let rows =
        [rows("failed", &tally.failed), rows("ended early", &tally.ended), rows("error", &tally.errors)].concat();
    if rows.is_empty() { rows } else { format!("<table><tbody>{rows}</tbody></table>") }
}

fn usage(report: &Report) -> String {
    let mib = |bytes: u64| format!("<td>{:.1}</td>", bytes as f64 / f64::from(1 << 20));
    let generator = &report.generator;
    let (cpu_s, peak) = (generator.cpu_s, mib(generator.peak_bytes));
    let own = format!("<tr><th>generator</th><td>{cpu_s:.2}</td><td></td><td></td>{peak}<td></td></tr>");
    let row = |process: &crate::processes::ProcessReport| {
        let memory = [process.before_bytes, process.ready_bytes, process.peak_bytes].map(mib).concat();
        let (name, cpu_s, each) = (escaped(&process.name), process.cpu_s, process.bytes_per_client);
        format!("<tr><th>{name}</th><td>{cpu_s:.2}</td>{memory}<td>{each:.0}</td></tr>")
    };
    let rows: String = report.processes.iter().map(row).collect();
    let link = |link: &crate::processes::LinkReport| {
        format!("<p class=\"sub\">{}: {} link bytes</p>", escaped(&link.url), link.bytes)
    };
    let links: String = report.links.iter().map(link).collect();
    format!(
        "<table><thead><tr><th>process</th><th>CPU s</th><th>MiB before</th><th>MiB with clients</th><th>MiB at most</th>\
         <th>bytes per client</th></tr></thead><tbody>{own}{rows}</tbody></table>{links}"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn the_page_stands_alone_and_has_figures_and_charts() {
        let page = page(&sample());
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("<script"));
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.matches("<svg").count() >= 4, "{page}");
        assert!(page.contains("<b class=\"bad\">1</b><span>lost</span>"));
        assert!(page.contains("misses &lt;everything&gt;"));
    }
}
