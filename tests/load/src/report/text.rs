//! Report for a terminal.

use std::fmt::Write;

use crate::report::Report;
use crate::tally::Causes;

/// First line of the published tests.
pub(crate) fn heading(report: &Report) -> String {
    let settings = &report.settings;
    let interval = |seconds: f64| seconds * 1_000.0 / f64::from(settings.clients.max(1));
    format!(
        "Clients={}, Duration={}s, Ramp Up Interval={:.0}ms, Ramp Down Interval={:.0}ms",
        report.settings.servers.len() as u64 * u64::from(settings.clients),
        settings.run_s,
        interval(settings.rampup_s),
        interval(settings.rampdown_s),
    )
}

pub(crate) fn whole(report: &Report) -> String {
    let mut text = heading(report) + "\n";
    if let Some(published) = &report.published {
        text += &published.line(&report.counts);
        text += "\n";
    }
    text += &counts(report);
    text += &table(report);
    text += &storms(report);
    text += &usage(report);
    for line in report.missing.iter().chain(&report.warnings) {
        put(&mut text, format_args!("! {line}"));
    }
    text + "\n" + report.verdict()
}

fn counts(report: &Report) -> String {
    let (counts, tally) = (&report.counts, &report.tally);
    let mut text = String::new();
    put(&mut text, format_args!("\nconnects       {} of {}", tally.opened, tally.attempted));
    put_causes(&mut text, "failed", &tally.failed);
    put_causes(&mut text, "ended early", &tally.ended);
    put_causes(&mut text, "errors", &tally.errors);
    for (name, count) in [
        ("sent", counts.sent),
        ("expected", counts.expected),
        ("received", counts.received),
        ("lost", counts.lost),
        ("duplicated", counts.duplicated),
        ("out of order", counts.reordered),
        ("misdelivered", counts.misdelivered),
    ] {
        put(&mut text, format_args!("{name:<14} {count}"));
    }
    text
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let columns = ["ms", "count", "p50", "p90", "p99", "p99.9", "max"];
    let [name, count, others @ ..] = columns;
    let heads: String = others.iter().map(|head| format!("{head:>11}")).collect();
    put(&mut text, format_args!("\n{name:<20}{count:>10}{heads}"));
    for row in report.rows() {
        let quantiles = row.quantiles;
        let times = [quantiles.p50_us, quantiles.p90_us, quantiles.p99_us, quantiles.p999_us, quantiles.max_us];
        let times: String = times.iter().map(|&time_us| format!("{:>11}", ms(time_us))).collect();
        put(&mut text, format_args!("{:<20}{:>10}{times}", row.name, quantiles.count));
    }
    text
}

fn storms(report: &Report) -> String {
    let mut text = String::new();
    for (number, storm) in report.tally.storms.iter().enumerate() {
        let back = &storm.back;
        let (half, most, all) = (ms(back.at(0.5)), ms(back.at(0.9)), ms(back.max()));
        put(
            &mut text,
            format_args!(
                "storm {}: {} of {} back; half after {half} ms, nine of ten after {most} ms, the last after {all} ms",
                number + 1,
                back.count(),
                storm.clients
            ),
        );
    }
    text
}

fn usage(report: &Report) -> String {
    let mut text = String::new();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let generator = &report.generator;
    put(
        &mut text,
        format_args!(
            "\ngenerator: {:.2} CPU s, {:.0} % of a core; memory {:.1} MiB at most",
            generator.cpu_s,
            generator.share() * 100.0,
            mib(generator.peak_bytes)
        ),
    );
    for process in &report.processes {
        put(
            &mut text,
            format_args!(
                "{}: {:.2} CPU s; memory {:.1} MiB before, {:.1} with all clients, {:.1} at the end, {:.1} at most; \
                 {:.0} bytes per client",
                process.name,
                process.cpu_s,
                mib(process.before_bytes),
                mib(process.ready_bytes),
                mib(process.done_bytes),
                mib(process.peak_bytes),
                process.bytes_per_client
            ),
        );
    }
    for link in &report.links {
        put(&mut text, format_args!("{}: {} link bytes", link.url, link.bytes));
    }
    text
}

/// Formats milliseconds with the measured precision.
pub(crate) fn ms(time_us: u64) -> String {
    format!("{:.2}", time_us as f64 / 1_000.0)
}

fn put_causes(text: &mut String, name: &str, causes: &Causes) {
    for (cause, count) in causes {
        put(text, format_args!("{name:<14} {count}: {cause}"));
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn the_end_has_the_published_lines_the_table_and_the_verdict() {
        let text = whole(&sample());
        assert!(
            text.starts_with("Clients=3, Duration=5s, Ramp Up Interval=333ms, Ramp Down Interval=333ms\nClients=1,")
        );
        assert!(text.contains("lost           1\n"), "{text}");
        assert!(text.contains("failed         1: connection refused"), "{text}");
        assert!(text.contains("latency                   1000       0.50       0.90       0.99"), "{text}");
        assert!(text.ends_with("NOT CLEAN"));
    }
}
