//! Tables for a terminal, for Markdown and for HTML.

use crate::escape::escape;

/// Which edge the cells of a column share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// Text.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// A table of text cells. Rows may be shorter than the header: missing cells are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    headers: Vec<String>,
    alignment: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; the first column is aligned left, the others right.
    pub fn new<S: Into<String>>(headers: impl IntoIterator<Item = S>) -> Self {
        Self {
            headers: headers.into_iter().map(Into::into).collect(),
            alignment: vec![Align::Left],
            rows: Vec::new(),
        }
    }

    /// Sets the alignment, column by column; columns beyond it are aligned right.
    pub fn align(mut self, alignment: impl IntoIterator<Item = Align>) -> Self {
        self.alignment = alignment.into_iter().collect();
        self
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

    fn columns(&self) -> usize {
        self.rows
            .iter()
            .map(Vec::len)
            .fold(self.headers.len(), usize::max)
    }

    fn alignment(&self, column: usize) -> Align {
        self.alignment.get(column).copied().unwrap_or(Align::Right)
    }

    /// Width of each column in characters, over the cells that `render` makes of the table's.
    fn widths(&self, render: impl Fn(&str) -> String) -> Vec<usize> {
        let cells = |column: usize| {
            let rows = std::iter::once(&self.headers).chain(&self.rows);
            rows.filter_map(move |row| row.get(column))
        };
        (0..self.columns())
            .map(|column| {
                cells(column)
                    .map(|c| render(c).chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// Aligned text with a rule under the header, one line per row, no trailing blanks.
    pub fn to_text(&self) -> String {
        let widths = self.widths(one_line);
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            let padded: Vec<_> = (0..widths.len())
                .map(|i| {
                    self.pad(
                        i,
                        &one_line(cells.get(i).map_or("", String::as_str)),
                        widths[i],
                    )
                })
                .collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        };
        line(&self.headers);
        line(
            &widths
                .iter()
                .map(|&width| "─".repeat(width))
                .collect::<Vec<_>>(),
        );
        self.rows.iter().for_each(|row| line(row));
        text
    }

    /// A GitHub-flavoured Markdown table, aligned in the source too.
    pub fn to_markdown(&self) -> String {
        let cell = |text: &str| one_line(text).replace('\\', r"\\").replace('|', r"\|");
        let widths: Vec<_> = self
            .widths(cell)
            .into_iter()
            .map(|width| width.max(3))
            .collect();
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            text.push('|');
            for (i, &width) in widths.iter().enumerate() {
                let content = cell(cells.get(i).map_or("", String::as_str));
                text.push_str(&format!(" {} |", self.pad(i, &content, width)));
            }
            text.push('\n');
        };
        line(&self.headers);
        let rules = widths
            .iter()
            .enumerate()
            .map(|(i, &width)| match self.alignment(i) {
                Align::Left => "-".repeat(width),
                Align::Right => format!("{}:", "-".repeat(width - 1)),
            });
        line(&rules.collect::<Vec<_>>());
        self.rows.iter().for_each(|row| line(row));
        text
    }

    /// An HTML `<table>`; right-aligned cells have the class `num`, and a left-aligned first cell is
    /// the row's header.
    pub fn to_html(&self) -> String {
        let mut html = String::from("<table>\n");
        if self.headers.iter().any(|header| !header.is_empty()) {
            html.push_str("<thead><tr>");
            for column in 0..self.columns() {
                let header = self.headers.get(column).map_or("", String::as_str);
                let class = self.class(column);
                html.push_str(&format!("<th scope=\"col\"{class}>{}</th>", escape(header)));
            }
            html.push_str("</tr></thead>\n");
        }
        html.push_str("<tbody>\n");
        for row in &self.rows {
            html.push_str("<tr>");
            for column in 0..self.columns() {
                let cell = escape(row.get(column).map_or("", String::as_str));
                let class = self.class(column);
                if column == 0 && class.is_empty() {
                    html.push_str(&format!("<th scope=\"row\">{cell}</th>"));
                } else {
                    html.push_str(&format!("<td{class}>{cell}</td>"));
                }
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n</table>\n");
        html
    }

    fn class(&self, column: usize) -> &'static str {
        match self.alignment(column) {
            Align::Left => "",
            Align::Right => " class=\"num\"",
        }
    }

    fn pad(&self, column: usize, cell: &str, width: usize) -> String {
        match self.alignment(column) {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        }
    }
}

/// A cell on one line: line breaks become blanks.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r', '\t']).collect::<Vec<_>>().join(" ")
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
    }

    #[test]
    fn markdown_escapes_the_bar() {
        let expected = r"| model   |         Brier-1 |
| ------- | --------------: |
| CALM    | 0.0131 ± 0.0004 |
| unigram |           0.011 |
| a\|b<c  |                 |
";
        assert_eq!(table().to_markdown(), expected);
    }

    #[test]
    fn html_escapes_and_marks_numbers() {
        let html = table().to_html();
        assert!(
            html.contains("<th scope=\"col\" class=\"num\">Brier-1</th>"),
            "{html}"
        );
        assert!(
            html.contains("<th scope=\"row\">a|b&lt;c</th><td class=\"num\"></td>"),
            "{html}"
        );
    }

    #[test]
    fn a_row_wider_than_the_header_loses_nothing() {
        let mut table = Table::new(["a"]).align([Align::Right]);
        table.row(["1", "2\n3"]);
        assert_eq!(table.to_text(), "a\n─  ───\n1  2 3\n");
    }
}
