//! Escaping of text that goes into HTML and SVG.

/// Replaces the five characters that mean something in markup, in text and in quoted attributes;
/// control characters that XML forbids become U+FFFD, since escaping does not make them legal.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            '\r' => escaped.push_str("&#13;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_loses_its_meaning_and_lines_stay() {
        assert_eq!(
            escape("<script>alert(\"a\" & 'b')</script>\nnext\u{0}"),
            "&lt;script&gt;alert(&quot;a&quot; &amp; &#39;b&#39;)&lt;/script&gt;\nnext\u{fffd}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_that_opens_markup_survives(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let entities = ["amp;", "lt;", "gt;", "quot;", "#39;", "#13;"];
            for (index, _) in escaped.match_indices('&') {
                let rest = &escaped[index + 1..];
                prop_assert!(entities.iter().any(|e| rest.starts_with(e)), "{}", escaped);
            }
        }
    }
}
