//! Rows for people: columns side by side, numbers to the right. What could move the cursor is shown, not done.

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::rows::{Row, columns, text};

/// Most rows of a table.
pub(super) const MAX_ROWS: usize = 1000;

/// Widest column, in characters of a terminal.
const MAX_WIDTH: usize = 60;

/// The table; nothing for no rows.
pub(super) fn render(rows: &[Row]) -> String {
    let columns = columns(rows);
    if columns.is_empty() {
        return String::new();
    }
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(row.get(column))).collect()).collect();
    let headers: Vec<String> = columns.iter().map(|column| shortened(&plain(column))).collect();
    let mut widths: Vec<usize> = headers.iter().map(|header| header.width()).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let numeric: Vec<bool> = columns
        .iter()
        .map(|column| rows.iter().filter_map(|row| row.get(column)).all(|value| value.is_number() || value.is_null()))
        .collect();
    let mut out = String::new();
    line(&mut out, &headers, &widths, &numeric);
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    out.push_str(&rule.join("─┼─"));
    out.push('\n');
    cells.iter().for_each(|row| line(&mut out, row, &widths, &numeric));
    out
}

fn line(out: &mut String, cells: &[String], widths: &[usize], numeric: &[bool]) {
    let mut text = String::new();
    for (at, ((cell, width), numeric)) in cells.iter().zip(widths).zip(numeric).enumerate() {
        if at > 0 {
            text.push_str(" │ ");
        }
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        let parts = if *numeric { [padding.as_str(), cell] } else { [cell, padding.as_str()] };
        parts.into_iter().for_each(|part| text.push_str(part));
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

/// MISSING is empty, NULL says so.
fn cell(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::Null) => "NULL".to_owned(),
        Some(value) => shortened(&plain(&text(value))),
    }
}

fn plain(text: &str) -> String {
    text.chars().flat_map(|ch| if ch.is_control() { ch.escape_default().collect() } else { vec![ch] }).collect()
}

fn shortened(text: &str) -> String {
    if text.width() <= MAX_WIDTH {
        return text.to_owned();
    }
    let mut out = String::new();
    for ch in text.chars() {
        if out.width() >= MAX_WIDTH - 2 {
            break;
        }
        out.push(ch);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: &str) -> String {
        render(&serde_json::from_str::<Vec<Row>>(json).unwrap())
    }

    #[test]
    fn numbers_stand_right_and_missing_is_not_null() {
        let shown = table(r#"[{"name": "ä", "n": 5}, {"name": null, "n": 100}, {"n": 7}]"#);
        assert_eq!(shown, "name │   n\n─────┼────\nä    │   5\nNULL │ 100\n     │   7\n");
        assert_eq!(table("[]"), "");
    }

    #[test]
    fn a_value_can_neither_clear_the_screen_nor_widen_the_table_for_ever() {
        let shown = table(&serde_json::json!([{"x": "\u{1b}[2J\n"}, {"x": "w".repeat(500)}]).to_string());
        assert!(shown.contains("\\u{1b}[2J\\n") && !shown.contains('\u{1b}'), "{shown}");
        assert!(shown.lines().all(|line| line.width() <= MAX_WIDTH), "{shown}");
        assert!(shown.contains("w…"), "{shown}");
    }
}
