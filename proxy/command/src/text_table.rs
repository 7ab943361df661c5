//! Plain text tables without borders, for people and pipes.

use comfy_table::{CellAlignment, Table, presets};

const GAP: u16 = 2;

/// Formats rows under their headings, with texts left-aligned and numbers right-aligned. Returns the lines.
pub(super) fn columns(texts: &[&str], numbers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(texts.iter().chain(numbers).copied()).add_rows(rows);
    let width = texts.len() + numbers.len();
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index + 1 < width { GAP } else { 0 }));
        column.set_cell_alignment(if index < texts.len() { CellAlignment::Left } else { CellAlignment::Right });
    }
    lines(&table)
}

/// Formats names and values in two columns without headings. Returns the lines.
pub(super) fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    lines(&table)
}

fn lines(table: &Table) -> Vec<String> {
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_left_aligned_and_numbers_right_aligned() {
        let rows = [vec!["é".to_owned(), "7".to_owned()], vec!["long".to_owned(), "12345".to_owned()]];
        let lines = columns(&["A"], &["NUM"], rows.into_iter());
        assert_eq!(lines, ["A       NUM", "é         7", "long  12345"]);
        assert_eq!(columns(&["A"], &["NUM"], std::iter::empty()), ["A  NUM"]);
    }

    #[test]
    fn values_are_aligned_in_a_column() {
        assert_eq!(pairs([("a", "1".to_owned()), ("  bcd", "2 3".to_owned())]), ["a     1", "  bcd 2 3"]);
    }
}
