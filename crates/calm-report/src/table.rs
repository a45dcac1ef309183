//! Tables for a terminal and for HTML.

use askama::Template;

/// A table of text cells, the first column aligned left and the others, numbers, right. Rows may be
/// shorter than the header: missing cells are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Template)]
#[template(path = "table.html")]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<S: Into<String>>(headers: impl IntoIterator<Item = S>) -> Self {
        Self {
            headers: headers.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned text with a rule under the header, one line per row, no trailing blanks.
    pub fn to_text(&self) -> String {
        let cell = |row: &[String], column: usize| {
            let text = row.get(column).map_or("", String::as_str);
            text.replace(['\n', '\r', '\t'], " ")
        };
        let all = || std::iter::once(&self.headers).chain(&self.rows);
        let widths = self.columns().map(|column| {
            let cells = all().map(|row| cell(row, column).chars().count());
            cells.max().unwrap_or(0)
        });
        let widths: Vec<usize> = widths.collect();
        let line = |row: &[String]| {
            let padded = widths.iter().enumerate().map(|(i, &width)| {
                let text = cell(row, i);
                if i > 0 {
                    format!("{text:>width$}")
                } else {
                    format!("{text:<width$}")
                }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let rules: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.headers) + &line(&rules) + &rows
    }

    /// An HTML `<table>`; the first cell is the row's header, the others have the class `num`.
    pub fn to_html(&self) -> String {
        self.render().expect("writing to a string")
    }

    fn columns(&self) -> std::ops::Range<usize> {
        let rows = self.rows.iter().map(Vec::len);
        0..rows.fold(self.headers.len(), usize::max)
    }

    fn headed(&self) -> bool {
        self.headers.iter().any(|header| !header.is_empty())
    }

    fn cell<'a>(&self, row: &'a [String], column: &usize) -> &'a str {
        row.get(*column).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["model", "Brier-1"]);
        table
            .row(["CALM", "0.0131 ± 0.0004"])
            .row(["unigram", "0.011"])
            .row(["a|b<c"]);
        table
    }

    #[test]
    fn text_is_aligned_by_characters_not_bytes() {
        let expected = "\
model            Brier-1
───────  ───────────────
CALM     0.0131 ± 0.0004
unigram            0.011
a|b<c
";
        assert_eq!(table().to_text(), expected);
        let mut wide = Table::new(["a"]);
        wide.row(["1", "2\n3"]);
        assert_eq!(wide.to_text(), "a\n─  ───\n1  2 3\n");
    }

    #[test]
    fn html_escapes_and_marks_numbers() {
        let html = table().to_html();
        for part in [
            "<th scope=\"col\" class=\"num\">Brier-1</th>",
            "<th scope=\"row\">a|b&#60;c</th><td class=\"num\"></td>",
        ] {
            assert!(html.contains(part), "{html}");
        }
    }
}
