//! Detects the kind of a VEX document from its JSON, which is read in pieces and not kept, because some documents
//! are larger than 100 MB.
//!
//! It follows the rules of Go's decoder, which Trivy uses: bytes after the first value are ignored, `Statements` is
//! read as `statements`, and the last of several equal keys counts.

use crate::util::json::is_go_key;

/// The deepest nesting that Go's decoder accepts.
const MAX_DEPTH: usize = 10_000;
/// The number of bytes of a key or a string that are kept, enough to recognize it.
const KEPT: usize = 64;
/// The keys of the outermost object that decide the meaning of a document.
const DECISIVE: [&str; 5] = ["@context", "statements", "document", "product_tree", "vulnerabilities"];

/// The kind of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentKind {
    OpenVex,
    Csaf,
    CycloneDx,
    /// JSON of another kind.
    Other,
    /// JSON in which a decisive key occurs twice, possibly with different letter case.
    Ambiguous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value is expected. `true` if the array may end instead.
    Value(bool),
    /// A key is expected. `true` if the object may end instead.
    Key(bool),
    Colon,
    AfterValue,
    /// A string that is being read. It may be a key.
    Text {
        key: bool,
        escaped: bool,
        hex: u8,
    },
    Number(Number),
    /// A word that is being read, and the number of its bytes that were read.
    Word(&'static [u8], usize),
    Done,
    Bad,
}

/// The last part of a number that was read (RFC 8259, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    /// A zero. Only a fraction or an exponent may follow.
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    fn begin(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Number::Minus),
            b'0' => Some(Number::Zero),
            b'1'..=b'9' => Some(Number::Integer),
            _ => None,
        }
    }

    /// Returns the next state of the number, or `None` if the byte does not belong to it.
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Number::Minus, b'0'..=b'9') => Number::begin(byte),
            (Number::Integer, b'0'..=b'9') => Some(Number::Integer),
            (Number::Zero | Number::Integer, b'.') => Some(Number::Point),
            (Number::Point | Number::Fraction, b'0'..=b'9') => Some(Number::Fraction),
            (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Some(Number::E),
            (Number::E, b'+' | b'-') => Some(Number::Sign),
            (Number::E | Number::Sign | Number::Exponent, b'0'..=b'9') => Some(Number::Exponent),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::Exponent)
    }
}

/// The state of the reader.
#[derive(Debug)]
pub(super) struct JsonScan {
    state: State,
    /// Whether each open value is an object.
    stack: Vec<bool>,
    /// The beginning of the current string, unescaped.
    text: Vec<u8>,
    /// The value of the hexadecimal digits of an escape that were read.
    unit: u32,
    /// The last key of the outermost object, and that of the object below it.
    keys: [Vec<u8>; 2],
    has_context: bool,
    has_statements: bool,
    has_csaf: bool,
    has_bom: bool,
    /// The decisive keys that were read.
    decisive: [bool; DECISIVE.len()],
    has_twice: bool,
}

impl JsonScan {
    pub(super) fn new() -> Self {
        JsonScan {
            state: State::Value(false),
            stack: Vec::new(),
            text: Vec::new(),
            unit: 0,
            keys: Default::default(),
            has_context: false,
            has_statements: false,
            has_csaf: false,
            has_bom: false,
            decisive: Default::default(),
            has_twice: false,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if matches!(self.state, State::Done | State::Bad) {
                return;
            }
            self.step(*byte);
        }
    }

    /// Returns the kind of the document, or `None` if it is not a JSON object.
    pub(super) fn finish(self) -> Option<DocumentKind> {
        match self {
            JsonScan { state, .. } if state != State::Done => None,
            JsonScan { has_twice: true, .. } => Some(DocumentKind::Ambiguous),
            JsonScan { has_bom: true, .. } => Some(DocumentKind::CycloneDx),
            JsonScan { has_csaf: true, .. } => Some(DocumentKind::Csaf),
            JsonScan { has_context: true, .. } | JsonScan { has_statements: true, .. } => {
                Some(DocumentKind::OpenVex)
            }
            _ => Some(DocumentKind::Other),
        }
    }

    fn step(&mut self, byte: u8) {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (State::Text { .. }, _) => self.in_text(byte),
            (State::Word(word, at), _) => match word.get(at) {
                Some(wanted) if *wanted == byte && at + 1 == word.len() => self.after(),
                Some(wanted) if *wanted == byte => State::Word(word, at + 1),
                _ => State::Bad,
            },
            (State::Number(number), _) => match number.next(byte) {
                Some(number) => State::Number(number),
                None if number.may_end() => {
                    self.state = self.after();
                    return self.step(byte);
                }
                None => State::Bad,
            },
            (state, _) if is_space => state,
            // The outermost value must be an object.
            (State::Value(_), b'{') => self.open(true),
            (State::Value(_), _) if self.stack.is_empty() => State::Bad,
            (State::Value(_), b'[') => self.open(false),
            (State::Value(true), b']') | (State::Key(true), b'}') => self.close(byte),
            (State::Value(_), b'"') => self.begin(false),
            (State::Value(_), b't') => State::Word(b"true", 1),
            (State::Value(_), b'f') => State::Word(b"false", 1),
            (State::Value(_), b'n') => State::Word(b"null", 1),
            (State::Value(_), _) => Number::begin(byte).map_or(State::Bad, State::Number),
            (State::Key(_), b'"') => self.begin(true),
            (State::Colon, b':') => State::Value(false),
            (State::AfterValue, b',') => match self.stack.last() {
                Some(true) => State::Key(false),
                _ => State::Value(false),
            },
            (State::AfterValue, b'}' | b']') => self.close(byte),
            _ => State::Bad,
        };
    }

    fn open(&mut self, object: bool) -> State {
        if self.stack.len() >= MAX_DEPTH {
            return State::Bad;
        }
        if self.stack.len() == 1 && !object && is_go_key(&self.keys[0], "statements") {
            self.has_statements = true;
        }
        self.stack.push(object);
        if object { State::Key(true) } else { State::Value(true) }
    }

    fn close(&mut self, byte: u8) -> State {
        match self.stack.pop() {
            Some(object) if object == (byte == b'}') => self.after(),
            _ => State::Bad,
        }
    }

    fn after(&self) -> State {
        if self.stack.is_empty() { State::Done } else { State::AfterValue }
    }

    fn begin(&mut self, key: bool) -> State {
        self.text.clear();
        State::Text { key, escaped: false, hex: 0 }
    }

    fn in_text(&mut self, byte: u8) -> State {
        let State::Text { key, escaped, hex } = self.state else { return State::Bad };
        let go_on = |escaped, hex| State::Text { key, escaped, hex };
        match (escaped, hex, byte) {
            (_, 1.., _) => match char::from(byte).to_digit(16) {
                Some(digit) => {
                    self.unit = self.unit << 4 | digit;
                    if hex == 1 {
                        self.keep_unit();
                    }
                    go_on(false, hex - 1)
                }
                None => State::Bad,
            },
            (_, _, ..0x20) => State::Bad,
            (true, _, b'u') => {
                self.unit = 0;
                go_on(false, 4)
            }
            (true, _, _) => match unescaped(byte) {
                Some(byte) => {
                    self.keep(byte);
                    go_on(false, 0)
                }
                None => State::Bad,
            },
            (false, _, b'\\') => go_on(true, 0),
            (false, _, b'"') if key => {
                self.end_key();
                State::Colon
            }
            (false, _, b'"') => {
                self.end_text();
                self.after()
            }
            (false, _, _) => {
                self.keep(byte);
                go_on(false, 0)
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.text.len() < KEPT {
            self.text.push(byte);
        }
    }

    /// Keeps the character of an escape. Surrogates become other characters, which is good enough because all keys
    /// that matter are ASCII.
    fn keep_unit(&mut self) {
        let character = char::from_u32(self.unit).unwrap_or(char::REPLACEMENT_CHARACTER);
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            self.keep(byte);
        }
    }

    fn end_key(&mut self) {
        let depth = self.stack.len();
        if let Some(kept) = depth.checked_sub(1).and_then(|depth| self.keys.get_mut(depth)) {
            kept.clone_from(&self.text);
        }
        if depth == 1
            && let Some(index) = DECISIVE.iter().position(|key| is_go_key(&self.text, key))
        {
            self.has_twice |= std::mem::replace(&mut self.decisive[index], true);
        }
        self.has_bom |= depth == 1 && self.text == b"bomFormat";
        self.has_csaf |=
            depth == 2 && is_go_key(&self.keys[0], "document") && is_go_key(&self.text, "csaf_version");
    }

    fn end_text(&mut self) {
        let is_context = self.stack.len() == 1 && is_go_key(&self.keys[0], "@context");
        self.has_context |= is_context && self.text.windows(7).any(|part| part == b"openvex");
    }
}

/// Returns the character that a letter after a backslash stands for.
fn unescaped(letter: u8) -> Option<u8> {
    match letter {
        b'"' | b'\\' | b'/' => Some(letter),
        b'b' => Some(0x08),
        b'f' => Some(0x0c),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::{Deserializer, Value};

    use super::*;

    fn scan(text: impl AsRef<[u8]>, step: usize) -> Option<DocumentKind> {
        let mut scan = JsonScan::new();
        text.as_ref().chunks(step).for_each(|piece| scan.feed(piece));
        scan.finish()
    }

    #[test]
    fn documents_are_recognized_in_pieces_of_any_size() {
        for (text, wanted) in [
            (r#"{"@context":"https://openvex.dev/ns/v0.2.0","statements":[]}"#, Some(DocumentKind::OpenVex)),
            (
                r#" { "a": [1, -2.5e3, true, null, {"x": "\u00e9\"}"}], "statements": [ {} ] } "#,
                Some(DocumentKind::OpenVex),
            ),
            (r#"{"document":{"category":"csaf_vex","csaf_version":"2.0"}}"#, Some(DocumentKind::Csaf)),
            (r#"{"bomFormat":"CycloneDX","vulnerabilities":[]}"#, Some(DocumentKind::CycloneDx)),
            (r#"{"message":"Not Found"}"#, Some(DocumentKind::Other)),
            (r#"{"\u0073tatement\u0073":[]}"#, Some(DocumentKind::OpenVex)),
            (r#"{"@context":"https:\/\/open\u0076ex.dev\/ns"}"#, Some(DocumentKind::OpenVex)),
            (r#"{"docume\u006Et":{"csaf\u005fversion":"2.0"}}"#, Some(DocumentKind::Csaf)),
            (r#"{"\uD83D\uDE00":1,"\u0062omFormat":2}"#, Some(DocumentKind::CycloneDx)),
            (r#"{"stateme\nts":[],"\u0000statements":[],"statements\u0000":[]}"#, Some(DocumentKind::Other)),
            // Go 1.26 (`encoding/json`) ignores the case of keys, and accepts the letters that Unicode folds to
            // `k` and `s`.
            (r#"{"Statements":[]}"#, Some(DocumentKind::OpenVex)),
            (r#"{"@Context":"https://openvex.dev/ns"}"#, Some(DocumentKind::OpenVex)),
            ("{\"\u{17f}TATEMENTS\":[]}", Some(DocumentKind::OpenVex)),
            (r#"{"\u017ftatements":[]}"#, Some(DocumentKind::OpenVex)),
            (r#"{"Document":{"CSAF_Version":"2.0"}}"#, Some(DocumentKind::Csaf)),
            (r#"{"statements ":[]}"#, Some(DocumentKind::Other)),
            // Go uses the last of two such keys, and merges them if they are lists.
            (r#"{"statements":[{}],"Statements":[]}"#, Some(DocumentKind::Ambiguous)),
            (r#"{"statements":[{}],"statements":null}"#, Some(DocumentKind::Ambiguous)),
            (r#"{"document":{"csaf_version":"2.0"},"DOCUMENT":null}"#, Some(DocumentKind::Ambiguous)),
            (r#"{"statements":[{"statements":1}],"x":{"Statements":2}}"#, Some(DocumentKind::OpenVex)),
            (r#"{"statements":[],"x":1,"X":2,"x":3}"#, Some(DocumentKind::OpenVex)),
            // Go's decoder reads only the first value.
            (r#"{"statements":[]} x"#, Some(DocumentKind::OpenVex)),
        ] {
            for step in [1, 2, 7, 1000] {
                assert_eq!(scan(text, step), wanted, "{text}");
            }
        }
    }

    #[test]
    fn json_that_go_rejects_is_not_a_document() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n";
        for text in [
            "",
            "[]",
            "1",
            "\"x\"",
            "null",
            "{",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":tru}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\n\"}",
            "{\"statements\":[",
            "{\"statements\":[],\"n\":1-+e.e--}",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":[1.]}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":\"\\u00g0\"}",
            "\u{feff}{}",
            "<html>",
            pointer,
        ] {
            assert_eq!(scan(text, 3), None, "{text}");
        }
        assert_eq!(scan("{\"a\":".repeat(20_000), 4096), None);
    }

    /// Pseudorandom numbers that are the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % end
        }

        fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
            choices[self.below(choices.len())]
        }

        /// Returns a text that may be a number.
        fn number(&mut self) -> String {
            (0..=self.below(6)).map(|_| self.of(&["-", "+", "0", "1", "29", ".", "e", "E"])).collect()
        }

        /// Returns a string with some of its characters escaped.
        fn string(&mut self, text: &str) -> String {
            let mut string = String::from("\"");
            for character in text.chars() {
                match self.below(4) {
                    0 => string.push_str(&format!("\\u{:04x}", u32::from(character))),
                    1 => string.push_str(&format!("\\u{:04X}", u32::from(character))),
                    2 if character == '/' => string.push_str("\\/"),
                    _ => string.push(character),
                }
            }
            string.push('"');
            string
        }

        /// Returns an object with some of the decisive keys, and values of all types.
        fn document(&mut self) -> String {
            let mut members = Vec::new();
            for key in ["statements", "@context", "document", "bomFormat", "statement", "\t", "a/b"] {
                if self.below(3) > 0 {
                    continue;
                }
                let value = match self.below(7) {
                    0 => self.number(),
                    1 => "[1, -0.5e+3]".into(),
                    2 => self.string("https://openvex.dev/ns"),
                    3 => format!("{{{}:{}}}", self.string("csaf_version"), self.string("2.0")),
                    4 => format!("{{\"x\":[{{{}:[]}}]}}", self.string("statements")),
                    5 => self.of(&["true", "false", "null", "[]", "{}"]).into(),
                    _ => self
                        .string("\u{8}\u{c}\n\r\\\u{e9}")
                        .replace(['\u{8}', '\u{c}', '\n', '\r', '\\'], "\\n"),
                };
                members.push(format!("{} :{value}", self.string(key)));
            }
            format!("{{{}}}", members.join(self.of(&[",", " ,\n"])))
        }
    }

    /// Whether `serde_json`, which is as strict as Go, finds a JSON value at the beginning.
    fn is_json(text: &[u8]) -> bool {
        matches!(Deserializer::from_slice(text).into_iter::<IgnoredAny>().next(), Some(Ok(_)))
    }

    fn kind(document: &Value) -> DocumentKind {
        let context = document["@context"].as_str().unwrap_or("");
        if document.get("bomFormat").is_some() {
            DocumentKind::CycloneDx
        } else if document["document"].get("csaf_version").is_some() {
            DocumentKind::Csaf
        } else if document["statements"].is_array() || context.contains("openvex") {
            DocumentKind::OpenVex
        } else {
            DocumentKind::Other
        }
    }

    /// Checks that the scan and `serde_json` agree on whether a text is JSON, for random texts and for documents with
    /// changed bytes, and agree on the kind of unchanged documents.
    #[test]
    fn the_scan_agrees_with_a_parser() {
        let pieces = ["{", "}", "[", "]", ",", ":", "\"a\"", "\"\\u0041\"", "1", "true", " "];
        let bytes = b"{}[],:\"\\/u0123456789abcdefnrtE+-. \n\x01\x80\xff";
        let mut random = Random(7);
        let mut valid = 0;
        for _ in 0..20_000 {
            let text: String = (0..random.below(9)).map(|_| random.of(&pieces)).collect();
            let text = format!("{{{text}");
            assert_eq!(scan(&text, 2).is_some(), is_json(text.as_bytes()), "{text}");
            let text = format!("{{\"a\":{}}}", random.number());
            assert_eq!(scan(&text, 2).is_some(), is_json(text.as_bytes()), "{text}");

            let text = random.document();
            assert_eq!(scan(&text, 3).is_some(), is_json(text.as_bytes()), "{text}");
            if let Ok(document) = serde_json::from_str(&text) {
                assert_eq!(scan(&text, 5), Some(kind(&document)), "{text}");
                valid += 1;
            }
            let mut text = text.into_bytes();
            for _ in 0..=random.below(3) {
                let at = random.below(text.len());
                // The outermost value remains an object.
                text[at.max(1)..]
                    .iter_mut()
                    .take(1)
                    .for_each(|byte| *byte = bytes[random.below(bytes.len())]);
            }
            assert_eq!(scan(&text, 2).is_some(), is_json(&text), "{}", text.escape_ascii());
        }
        assert!(valid > 10_000, "{valid}");
    }
}
