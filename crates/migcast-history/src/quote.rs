//! Text out of a file as part of a line for people.
use std::fmt;

/// Characters of a file's text that a line quotes at most.
const CHARS_MAX: usize = 200;

/// A file's text, cut, with what would break a line or steer a terminal escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars().take(CHARS_MAX) {
        match character {
            '"' | '\'' | '\\' => line.push(character),
            _ => line.extend(character.escape_debug()),
        }
    }
    if text.chars().nth(CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// What is wrong with a text that should be JSON, on one line.
#[derive(Debug)]
pub struct JsonError(serde_json::Error);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> JsonError {
        JsonError(error)
    }
}

impl fmt::Display for JsonError {
    /// The parser's message, which quotes names and values as they stand in the text, with the place it found.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        // What is wrong with a value as a whole has no place.
        if self.0.line() > 0 {
            write!(f, " at line {} column {}", self.0.line(), self.0.column())?;
        }
        Ok(())
    }
}

impl JsonError {
    /// The parser's message without the place it found.
    pub(crate) fn reason(&self) -> String {
        let message = self.0.to_string();
        let place = format!(" at line {} column {}", self.0.line(), self.0.column());
        quoted(message.strip_suffix(&place).unwrap_or(&message))
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_stays_on_its_line() {
        assert_eq!(quoted("a \"b\"\n\u{1b}[1m\u{2028}c"), "a \"b\"\\n\\u{1b}[1m\\u{2028}c");
        assert_eq!(quoted(&"x".repeat(201)), "x".repeat(200) + "…");
    }

    #[test]
    fn a_json_error_says_where() {
        let text = format!("{{\"{}\\n\": 1}}", "x".repeat(300));
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        let error: JsonError = serde_json::from_str::<Nothing>(&text).unwrap_err().into();
        let line = error.to_string();
        assert!(line.ends_with("… at line 1 column 305") && !line.contains('\n'), "{line}");
    }
}
