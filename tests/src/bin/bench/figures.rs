//! Figures of several rounds, and tables of them.

use std::fmt;

use serde_json::{Value, json};

/// The middle of several rounds with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Figure {
    /// `None` without a single value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &greatest) = (values.first()?, values.last()?);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Self {
            median: f64::midpoint(*values.get(low)?, *values.get(high)?),
            least,
            greatest,
        })
    }

    pub fn json(self) -> Value {
        json!({ "median": self.median, "least": self.least, "greatest": self.greatest })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median {
            100.0.. => 0,
            10.0.. => 1,
            _ => 2,
        };
        write!(
            f,
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.least, self.greatest
        )
    }
}

/// A figure, or a dash where nothing was measured.
pub fn cell(figure: Option<Figure>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string())
}

pub fn json_or_null(figure: Option<Figure>) -> Value {
    figure.map_or(Value::Null, Figure::json)
}

/// Lines of cells as Markdown; the first line is the head.
pub fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("| {cell:<width$} ");
        }
        text += "|\n";
        if number == 0 {
            for width in &widths {
                text += &format!("|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    text
}

/// One column of a table of rounds.
pub struct Column<T> {
    pub head: &'static str,
    /// Its name in JSON.
    pub key: &'static str,
    pub of: fn(&T) -> f64,
}

/// What rounds of several kinds came to: a table with a line for each kind, and the same for JSON, where a kind is named
/// `key`.
pub fn report<T>(key: &str, kinds: &[(&str, &[T])], columns: &[Column<T>]) -> (String, Vec<Value>) {
    let head = columns.iter().map(|column| column.head);
    let head = std::iter::once(key).chain(head).map(str::to_owned);
    let mut lines = vec![head.collect()];
    let mut results = Vec::new();
    for (kind, rounds) in kinds {
        let mut line = vec![(*kind).to_owned()];
        let mut result = json!({ key: kind, "rounds": rounds.len() });
        for column in columns {
            let figure = Figure::of(rounds.iter().map(column.of));
            line.push(cell(figure));
            result[column.key] = json_or_null(figure);
        }
        lines.push(line);
        results.push(result);
    }
    (table(&lines), results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_whatever_the_order() {
        let odd = Figure::of([3.0, 1.0, 10.0]);
        assert_eq!(odd.map(|figure| figure.median), Some(3.0));
        let even = Figure::of([4.0, 1.0, 2.0, 9.0]);
        assert_eq!(
            even.map(|figure| figure.to_string()),
            Some("3.00 (1.00–9.00)".to_owned())
        );
        assert_eq!(Figure::of([]), None);
    }

    #[test]
    fn rounds_are_reported_by_their_kind() {
        let columns = [Column {
            head: "speed/s",
            key: "speed",
            of: |speed: &f64| *speed,
        }];
        let kinds: [(&str, &[f64]); 2] = [("fast", &[4.0, 2.0, 3.0]), ("none", &[])];
        let (text, results) = report("way", &kinds, &columns);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| way  | speed/s          |");
        assert_eq!(lines[2], "| fast | 3.00 (2.00–4.00) |");
        assert_eq!(lines[3], "| none | -                |");
        assert_eq!(results[0]["way"], "fast");
        assert_eq!(results[0]["speed"]["greatest"], 4.0);
        assert_eq!(results[1]["speed"], Value::Null);
    }

    #[test]
    fn tables_are_aligned() {
        let line = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[line(["a", "wide"]), line(["–bc", "d"])]);
        assert_eq!(text, "| a   | wide |\n|-----|------|\n| –bc | d    |\n");
    }
}
