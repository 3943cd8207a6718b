//! Quotes strings for YAML files that other programs read.

use std::fmt::Write;

/// Quotes a string so that every YAML parser reads it back: everything except printable ASCII is escaped. YAML allows
/// fewer characters in a file than JSON, and parsers disagree about them.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            ' '..='~' => write!(out, "{c}"),
            _ => match u32::from(c) {
                code @ ..=0xff => write!(out, "\\x{code:02x}"),
                code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            },
        };
    }
    out.push('"');
    out
}

/// Returns a string as a scalar: plain if every parser reads it as this string, else quoted.
pub(crate) fn scalar(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._/~?=&%:".contains(&c))
        && !text.ends_with(':')
        && truth(text).is_none()
        && !matches!(text, "null" | "Null" | "NULL");
    if word { text.into() } else { quoted(text) }
}

/// Parses a boolean of YAML 1.1 as Go's yaml.v3 does (`decode.go`).
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saphyr_parser::{Event, Parser};

    use super::*;

    fn read(yaml: &str) -> Option<String> {
        Parser::new_from_str(yaml).find_map(|event| match event.unwrap().0 {
            Event::Scalar(value, ..) => Some(value.into_owned()),
            _ => None,
        })
    }

    #[test]
    fn strings_that_could_be_misread_are_quoted() {
        for (text, wanted) in [
            ("corp", "corp"),
            ("https://vex.corp.example/x?y=1", "https://vex.corp.example/x?y=1"),
            ("no", "\"no\""),
            ("y", "\"y\""),
            ("null", "\"null\""),
            ("a: b", "\"a: b\""),
            ("a:", "\"a:\""),
            ("1.5", "\"1.5\""),
            ("", "\"\""),
            ("a\nb: \u{85}\u{2028}\u{feff}\u{1f600}\"\\", r#""a\x0ab: \x85\u2028\ufeff\U0001f600\"\\""#),
        ] {
            assert_eq!(scalar(text), wanted);
            assert_eq!(read(&scalar(text)).as_deref(), Some(text));
        }
    }

    proptest! {
        #![proptest_config(crate::util::seed::cases(256))]
        #[test]
        fn every_string_is_read_back(text in any::<String>()) {
            for yaml in [quoted(&text), scalar(&text)] {
                prop_assert!(yaml.bytes().all(|byte| matches!(byte, b' '..=b'~')));
                prop_assert_eq!(read(&yaml), Some(text.clone()));
            }
        }
    }
}
