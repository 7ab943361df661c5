//! Formatted rows of the table.

use anyhow::{Result, bail};

use crate::slice::{Load, Seconds};
use crate::verdict::Row;

/// Heading of the next slice, with its length.
pub(crate) fn heading(load: &Load) -> String {
    let Load { name, clients, interval_ms, .. } = load;
    let Seconds { rampup, run, rampdown } = load.seconds;
    format!(
        "{name}: {clients} clients at each of two proxies, interval {interval_ms} ms; \
         {rampup} s up, {run} s, {rampdown} s down{}",
        machine_load().map(|load| format!("; load of the machine {load}")).unwrap_or_default()
    )
}

/// Load average of the last minute; more than a few means that the machine is busy.
fn machine_load() -> Option<String> {
    let loads = std::fs::read_to_string("/proc/loadavg").ok()?;
    loads.split(' ').next().map(str::to_owned)
}

pub(crate) fn whole(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| [verdict(row.is_met), &*row.load, &*row.what, &*row.asked, &*row.measured]);
    let cells: Vec<_> = [["", "load", "what", "asked", "measured"]].into_iter().chain(cells).collect();
    let widths = cells.iter().fold([0; 5], |mut widths, cells| {
        widths.iter_mut().zip(cells).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
        widths
    });
    let line = |cells: &[&str; 5]| {
        let line: String = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{}\n", line.trim_end())
    };
    format!("\n{}", cells.iter().map(line).collect::<String>())
}

/// Error that names each missed row.
pub(crate) fn missed(rows: &[Row]) -> Result<()> {
    let missed = rows.iter().filter(|row| row.is_met == Some(false));
    let missed: Vec<String> =
        missed.map(|row| format!("{}: {}: {} (asked {})", row.load, row.what, row.measured, row.asked)).collect();
    if !missed.is_empty() {
        bail!("{} MISSED\n{}", missed.len(), missed.join("\n"));
    }
    Ok(())
}

fn verdict(is_met: Option<bool>) -> &'static str {
    match is_met {
        None => "",
        Some(true) => "ok",
        Some(false) => "MISSED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_shown_in_its_row_and_ends_the_command() {
        let row = |what: &str, is_met| Row {
            load: "chat".into(),
            what: what.into(),
            asked: "0".into(),
            measured: "7".into(),
            is_met,
        };
        let rows = [row("lost", Some(false)), row("duplicated", Some(true)), row("told", None)];
        let text = whole(&rows);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines[1..3], ["MISSED  chat  lost        0      7", "ok      chat  duplicated  0      7"]);
        assert_eq!(missed(&rows).unwrap_err().to_string(), "1 MISSED\nchat: lost: 7 (asked 0)");
        assert!(missed(&rows[1..]).is_ok());
    }
}
