//! Tables in Markdown. Pure: results in, text out.

use std::fmt::Write;

use anyhow::{Context, Result};
use trunkline_bench::spread::Spread;

use crate::figures::{Done, Figures, GENERATOR, Work};

/// Placeholder of a missing result.
const NONE: &str = "–";
/// Delimiters of the tables in a page.
const BEGIN: &str = "<!-- tests/bench/compare writes from here -->";
const END: &str = "<!-- to here -->";
/// Start of the last table, which is printed, but not part of the page.
const PROCESSES: &str = "\n**Each process**";

pub(crate) fn tables(all: &[Figures]) -> String {
    let rounds = all.iter().map(|figures| figures.rounds);
    let (least, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    let rounds = match (least, most) {
        (1, 1) => "1 round".into(),
        _ if least == most => format!("{most} rounds"),
        _ => format!("{least} to {most} rounds"),
    };
    format!(
        "Medians of {rounds}, smallest and largest in brackets.\n\n\
         **Per second of CPU time**, all processes of a row together: more is better. Memory: less is better.\n\n{}\n\
         **Milliseconds** until half of all units were done, and until 99 of 100 were, under that load: less is better.\n\n{}\n\
         **Each process**: µs of CPU time per unit, and bytes per idle connection.\n\n{}",
        rates(all),
        latencies(all),
        processes(all)
    )
}

pub(crate) fn into_page(page: &str, tables: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("the page has no lines {BEGIN:?} and {END:?}"))?;
    let tables = tables.split_once(PROCESSES).map_or(tables, |(shown, _)| shown);
    Ok(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

fn rates(all: &[Figures]) -> String {
    let mut text = heading(&["", "deliveries", "echoes", "connects", "TLS resumed", "bytes per idle connection"]);
    for figures in all {
        let cells = Work::ALL.map(|work| figures.work(work).map_or(NONE.into(), |done| whole(&done.per_cpu_second)));
        row(&mut text, &title(figures), &[&cells[..], &[whole(&figures.idle_bytes)]].concat());
        let Some((process, title)) = figures.peer.alone() else { continue };
        let alone = |done: &Done| done.per_cpu_second_alone.map(|spread| whole(&spread));
        let cells = Work::ALL.map(|work| figures.work(work).and_then(alone).unwrap_or(NONE.into()));
        let bytes = figures.idle_bytes_of.get(process).map_or(NONE.into(), whole);
        row(&mut text, title, &[&cells[..], &[bytes]].concat());
    }
    text
}

fn latencies(all: &[Figures]) -> String {
    let mut text =
        heading(&["", "deliveries p50", "p99", "echoes p50", "p99", "connects p50", "p99", "TLS resumed p50", "p99"]);
    for figures in all {
        let cells = Work::ALL.map(|work| match figures.work(work) {
            Some(done) => [decimal(done.p50_ms.median), decimal(done.p99_ms.median)],
            None => [NONE.into(), NONE.into()],
        });
        row(&mut text, &title(figures), &cells.concat());
    }
    text
}

fn processes(all: &[Figures]) -> String {
    let mut text = heading(&["", "process", "delivery", "echo", "connect", "TLS resumed", "idle connection"]);
    for figures in all {
        let names = figures.idle_bytes_of.keys().map(String::as_str).chain([GENERATOR]);
        for (number, name) in names.enumerate() {
            let of = |work| figures.work(work)?.micros_of.get(name).map(fine);
            let bytes = figures.idle_bytes_of.get(name).map_or(NONE.into(), whole);
            let works = Work::ALL.map(|work| of(work).unwrap_or(NONE.into()));
            let first = if number == 0 { title(figures) } else { String::new() };
            row(&mut text, &first, &[&[name.to_owned()], &works[..], &[bytes]].concat());
        }
    }
    text
}

/// Title of a row; our product is bold.
fn title(figures: &Figures) -> String {
    let title = figures.peer.title();
    if figures.peer.is_ours() { format!("**{title}**") } else { title.to_owned() }
}

fn heading(cells: &[&str]) -> String {
    format!("| {} |\n|{}\n", cells.join(" | "), "---|".repeat(cells.len()))
}

fn row(text: &mut String, first: &str, cells: &[String]) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
}

fn whole(Spread { median, min, max }: &Spread) -> String {
    format!("{} ({} to {})", thousands(*median), thousands(*min), thousands(*max))
}

fn fine(Spread { median, min, max }: &Spread) -> String {
    format!("{} ({} to {})", decimal(*median), decimal(*min), decimal(*max))
}

/// Formats a number with three significant digits, for numbers from 1 to 1000.
fn decimal(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// Formats a number with three significant digits and thousands separators.
pub(crate) fn thousands(value: f64) -> String {
    let unit = 10_f64.powf((value.abs().max(1.0).log10().floor() - 2.0).max(0.0));
    let digits = format!("{:.0}", (value / unit).round() * unit);
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let mut text = String::from(sign);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::slice;
    use crate::peer::Peer;

    #[test]
    fn three_digits_count_and_thousands_stand_apart() {
        let numbers = [0.4, 7.0, 123.4, 1_234.0, 98_765.0, 1_234_567.0, -2_345.0].map(thousands);
        let spaced = numbers.map(|number| number.replace('\u{202f}', " "));
        assert_eq!(spaced, ["0", "7", "123", "1 230", "98 800", "1 230 000", "-2 350"]);
    }

    #[test]
    fn a_pass_through_has_a_row_with_and_one_without_what_is_behind_it() {
        let slices =
            [slice(Peer::Haproxy, 1, &[("haproxy", 100), ("axum", 300)]), slice(Peer::Nchan, 1, &[("worker-1", 100)])];
        let text = tables(&Figures::of_all(&slices).unwrap()).replace('\u{202f}', " ");
        assert!(text.contains("\n| HAProxy + axum | 2 500 (2 500 to 2 500) |"), "{text}");
        assert!(text.contains("\n| HAProxy alone | 10 000 (10 000 to 10 000) |"), "{text}");
        assert!(text.contains("\n| nginx with nchan | 10 000 (10 000 to 10 000) | – | 10 000"), "{text}");
        assert!(text.contains("\n|  | generator, not counted | 50.0 (50.0 to 50.0) |"), "{text}");
    }

    #[test]
    fn tables_take_the_place_of_those_before() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let page = into_page(&into_page(&page, "one").unwrap(), "two\n**Each process**: three").unwrap();
        assert_eq!(page, format!("before\n{BEGIN}\n\ntwo\n{END}\nafter\n"));
        assert!(into_page("nothing", "two").is_err());
    }
}
