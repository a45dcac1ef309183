//! A Rust file as the rules see it: comments and literals blanked, the lines of tests known.

/// A Rust file whose comments, strings and characters are blanked, line for line.
pub struct Masked {
    /// The lines, as long as the originals.
    pub lines: Vec<String>,
    /// For each line, whether it belongs to an item under `#[cfg(test)]`.
    pub test: Vec<bool>,
}

/// Masks a file.
pub fn mask(source: &str) -> Masked {
    let blanked = blank(&source.chars().collect::<Vec<_>>());
    let test = test_lines(&blanked);
    let text: String = blanked.iter().collect();
    let lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    Masked { lines, test }
}

/// Replaces what is inside comments and literals by spaces; newlines stay.
fn blank(source: &[char]) -> Vec<char> {
    let mut out = source.to_vec();
    let mut at = 0;
    while at < source.len() {
        let end = literal_end(source, at);
        for c in &mut out[at..end] {
            if *c != '\n' {
                *c = ' ';
            }
        }
        at = end.max(at + 1);
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself where none does.
fn literal_end(source: &[char], at: usize) -> usize {
    let next = source.get(at + 1).copied();
    match source[at] {
        '/' if next == Some('/') => find(source, at, |i| source[i] == '\n'),
        '/' if next == Some('*') => block_comment_end(source, at),
        '"' => string_end(source, at),
        '\'' => char_end(source, at),
        // A raw string, alone or after `b` or `c`; `r#name` is none.
        'r' if !(at > 0 && is_word(source[at - 1]) && !follows_prefix(source, at)) => {
            let quote = find(source, at + 1, |i| source[i] != '#');
            if source.get(quote) != Some(&'"') {
                return at;
            }
            let hashes = quote - at - 1;
            let closes = |i: usize| {
                source[i] == '"'
                    && source[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes
            };
            (find(source, quote + 1, closes) + 1 + hashes).min(source.len())
        }
        _ => at,
    }
}

/// Whether the letter before `at` is the whole of a `b` or `c` prefix.
fn follows_prefix(source: &[char], at: usize) -> bool {
    matches!(source[at - 1], 'b' | 'c') && (at < 2 || !is_word(source[at - 2]))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first index from `from` at which `test` holds, or the end.
fn find(source: &[char], from: usize, test: impl Fn(usize) -> bool) -> usize {
    (from..source.len())
        .find(|i| test(*i))
        .unwrap_or(source.len())
}

fn block_comment_end(source: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < source.len() {
        match (source[i], source[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    source.len()
}

fn string_end(source: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < source.len() {
        match source[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    source.len()
}

/// The end of a character literal; a lifetime is none.
fn char_end(source: &[char], at: usize) -> usize {
    if source.get(at + 1) == Some(&'\\') {
        // What is escaped may itself be a quote.
        return (find(source, at + 3, |i| source[i] == '\'') + 1).min(source.len());
    }
    if source.get(at + 2) == Some(&'\'') {
        at + 3
    } else {
        at
    }
}

/// For each line, whether it lies in an item under `#[cfg(test)]` (or `cfg(all(test, ..))`).
fn test_lines(blanked: &[char]) -> Vec<bool> {
    let text: String = blanked.iter().collect();
    let mut test = vec![false; text.split('\n').count()];
    let line_of = |at: usize| text[..at].matches('\n').count();
    for (start, _) in text.match_indices("[cfg(") {
        let Some(length) = text[start..].find(']') else {
            continue;
        };
        let attribute = &text[start..start + length];
        let names_test = attribute
            .split(|c: char| !is_word(c))
            .any(|word| word == "test");
        if !names_test || attribute.contains("not(") {
            continue;
        }
        let whole_file = text[..start].ends_with("#!");
        let end = if whole_file {
            text.len()
        } else {
            item_end(&text, start + length + 1)
        };
        test[line_of(start)..=line_of(end)].fill(true);
    }
    test
}

/// The end of the item that begins at or after `from`: its `;`, or the brace that closes it.
fn item_end(text: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (i, c) in text[from..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return from + i;
                }
            }
            ';' if depth == 0 => return from + i,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(source: &str) -> String {
        mask(source).lines.join("\n")
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let cases = [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"a\\\"b\", c)", "f(      , c)"),
            ("r\"a\\\" + b", "      + b"),
            ("r#\"a\"b\"# + c", "         + c"),
            ("br#\"a\"# + bar + r#type", "b       + bar + r#type"),
            (
                "let q = '\"'; let l: &'a str;",
                "let q =    ; let l: &'a str;",
            ),
            ("'\\'' + '\\u{e9}' + b'x'", "     +          + b   "),
            ("\"é // é\" + x // y", "         + x     "),
            ("\"open", "     "),
            ("/* open", "       "),
        ];
        for (source, expected) in cases {
            assert_eq!(masked(source), expected, "{source}");
        }
    }

    #[test]
    fn newlines_stay_so_that_line_numbers_do() {
        let source = "a\n\"b\nc\"\n/* d\n*/ e\n";
        assert_eq!(masked(source), "a\n  \n  \n    \n   e\n");
    }

    #[test]
    fn the_lines_of_tests_are_known() {
        let source = "\
fn a() {}
#[cfg(test)]
use b::{c, d};
fn e() {}
#[cfg(not(test))]
fn f() {}
#[cfg(all(test, unix))]
mod tests {
    #[test]
    fn g() { let s = \"}\"; }
}
fn h() {}
#[cfg(test)]
fn i(j: [u8; 2]) {
}
#[cfg(test)]
mod tests;
fn k() {}
#[cfg(feature = \"test\")]
fn l() {}
";
        let masked = mask(source);
        let tests: Vec<usize> = (1..)
            .zip(&masked.test)
            .filter(|(_, t)| **t)
            .map(|(i, _)| i)
            .collect();
        assert_eq!(tests, [2, 3, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17]);
        assert!(
            mask("//! a\n#![cfg(test)]\nfn b() {}").test[1..]
                .iter()
                .all(|test| *test)
        );
    }
}
