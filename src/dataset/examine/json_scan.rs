//! Reads a JSON document piece by piece and finds out what kind of VEX document it is, without keeping it: some are
//! larger than 100 MB.
//!
//! As strict as Go's decoder, with which Trivy reads documents, where that matters: what follows the first value is
//! not looked at.

/// The deepest nesting that Go's decoder takes.
const MAX_DEPTH: usize = 10_000;
/// As much of a key or a string as is needed to know it, in bytes.
const KEPT: usize = 64;

/// What a document is, as far as its JSON says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentKind {
    OpenVex,
    Csaf,
    CycloneDx,
    /// JSON of another kind.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value is to come. `true` if the array may end instead.
    Value(bool),
    /// A key is to come. `true` if the object may end instead.
    Key(bool),
    Colon,
    AfterValue,
    /// In a string, which may be a key.
    Text {
        key: bool,
        escaped: bool,
        hex: u8,
    },
    Number,
    /// In a word of which so many bytes came.
    Word(&'static [u8], usize),
    Done,
    Bad,
}

/// The reader.
#[derive(Debug)]
pub(super) struct JsonScan {
    state: State,
    /// Whether each open value is an object.
    stack: Vec<bool>,
    /// The beginning of the string that is read.
    text: Vec<u8>,
    /// The last key of the outermost object, and of the one below it.
    keys: [Vec<u8>; 2],
    has_context: bool,
    has_statements: bool,
    has_csaf: bool,
    has_bom: bool,
}

impl JsonScan {
    pub(super) fn new() -> Self {
        JsonScan {
            state: State::Value(false),
            stack: Vec::new(),
            text: Vec::new(),
            keys: Default::default(),
            has_context: false,
            has_statements: false,
            has_csaf: false,
            has_bom: false,
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

    /// What it is, or `None` if it is not one JSON object.
    pub(super) fn finish(self) -> Option<DocumentKind> {
        match self {
            JsonScan { state, .. } if state != State::Done => None,
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
            (State::Number, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => State::Number,
            (State::Number, _) => {
                self.state = self.after();
                return self.step(byte);
            }
            (state, _) if is_space => state,
            // The outermost value is an object.
            (State::Value(_), b'{') => self.open(true),
            (State::Value(_), _) if self.stack.is_empty() => State::Bad,
            (State::Value(_), b'[') => self.open(false),
            (State::Value(true), b']') | (State::Key(true), b'}') => self.close(byte),
            (State::Value(_), b'"') => self.begin(false),
            (State::Value(_), b'-' | b'0'..=b'9') => State::Number,
            (State::Value(_), b't') => State::Word(b"true", 1),
            (State::Value(_), b'f') => State::Word(b"false", 1),
            (State::Value(_), b'n') => State::Word(b"null", 1),
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
        if self.stack.len() == 1 && !object && self.keys[0] == b"statements" {
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
            (_, 1.., _) if byte.is_ascii_hexdigit() => go_on(false, hex - 1),
            (_, 1.., _) | (_, _, ..0x20) => State::Bad,
            (true, _, b'u') => go_on(false, 4),
            (true, _, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.keep(byte);
                go_on(false, 0)
            }
            (true, _, _) => State::Bad,
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

    fn end_key(&mut self) {
        let depth = self.stack.len();
        if let Some(kept) = depth.checked_sub(1).and_then(|depth| self.keys.get_mut(depth)) {
            kept.clone_from(&self.text);
        }
        self.has_bom |= depth == 1 && self.text == b"bomFormat";
        self.has_csaf |= depth == 2 && self.keys[0] == b"document" && self.text == b"csaf_version";
    }

    fn end_text(&mut self) {
        let is_context = self.stack.len() == 1 && self.keys[0] == b"@context";
        self.has_context |= is_context && self.text.windows(7).any(|part| part == b"openvex");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str, step: usize) -> Option<DocumentKind> {
        let mut scan = JsonScan::new();
        text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
        scan.finish()
    }

    #[test]
    fn documents_are_known_in_whatever_pieces_they_come() {
        for (text, wanted) in [
            (r#"{"@context":"https://openvex.dev/ns/v0.2.0","statements":[]}"#, Some(DocumentKind::OpenVex)),
            (
                r#" { "a": [1, -2.5e3, true, null, {"x": "\u00e9\"}"}], "statements": [ {} ] } "#,
                Some(DocumentKind::OpenVex),
            ),
            (r#"{"document":{"category":"csaf_vex","csaf_version":"2.0"}}"#, Some(DocumentKind::Csaf)),
            (r#"{"bomFormat":"CycloneDX","vulnerabilities":[]}"#, Some(DocumentKind::CycloneDx)),
            (r#"{"message":"Not Found"}"#, Some(DocumentKind::Other)),
            // Go's decoder reads the first value alone.
            (r#"{"statements":[]} x"#, Some(DocumentKind::OpenVex)),
        ] {
            for step in [1, 2, 7, 1000] {
                assert_eq!(scan(text, step), wanted, "{text}");
            }
        }
    }

    #[test]
    fn what_go_would_not_decode_is_no_document() {
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
            "\u{feff}{}",
            "<html>",
            pointer,
        ] {
            assert_eq!(scan(text, 3), None, "{text}");
        }
        assert_eq!(scan(&"{\"a\":".repeat(20_000), 4096), None);
    }

    /// As serde_json sees it, which is as strict as Go, for whatever is made of these pieces.
    #[test]
    fn it_agrees_with_a_parser() {
        let pieces = ["{", "}", "[", "]", ",", ":", "\"a\"", "\"\\u0041\"", "1", "true", " "];
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut text = String::from("{");
            for _ in 0..(seed % 9) {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            seed = seed.wrapping_add(1).wrapping_mul(6364136223846793005);
            let mut reader = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
            let is_json = matches!(reader.next(), Some(Ok(_)));
            assert_eq!(scan(&text, 2).is_some(), is_json, "{text}");
        }
    }
}
