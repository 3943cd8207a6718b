//! Text for people: escapes untrusted text, and formats sizes, times and ages.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use serde::{Serialize, Serializer};

/// Text from unverified input. It is truncated when it is created, so that an error that holds it stays small, and
/// escaped when it is shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Unverified(Box<str>);

impl Unverified {
    /// The most characters that are kept.
    const MAX: usize = 300;

    /// Truncates a text.
    pub fn new(text: &str) -> Self {
        match text.char_indices().nth(Self::MAX) {
            Some((end, _)) => Unverified([&text[..end], "…"].concat().into()),
            None => Unverified(text.into()),
        }
    }

    /// Returns the truncated text without escapes: to compare, and not to show.
    pub fn raw(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Unverified {
    fn from(text: &str) -> Self {
        Unverified::new(text)
    }
}

impl From<String> for Unverified {
    fn from(text: String) -> Self {
        Unverified::new(&text)
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_line(&self.0))
    }
}

/// Shows the same text as [`fmt::Display`], in quotes.
impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape_line(&self.0))
    }
}

impl Serialize for Unverified {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Escapes text from outside for a terminal, and truncates it, as [`Unverified`] does.
pub fn escape(text: &str) -> String {
    Unverified::new(text).to_string()
}

/// Returns the first word of an operator's command. The others may hold secrets.
pub(crate) fn program_of(command: &str) -> String {
    let mut words = command.split_whitespace();
    let first = escape(words.next().unwrap_or_default());
    if words.next().is_some() { format!("{first} …") } else { first }
}

/// Puts a name before a reason, unless the reason contains the name. Ignores case.
pub(crate) fn with_name(name: &str, why: &str) -> String {
    if why.to_lowercase().contains(&name.to_lowercase()) { why.to_owned() } else { format!("{name}: {why}") }
}

/// Escapes a line for a terminal and does not truncate it: characters for which [`is_hidden`] is true become
/// `\u{…}`. Messages may hold names of files from a medium, so all output passes through this function,
/// [`escape_lines`] or [`escape_json`].
pub fn escape_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character controls the terminal or the text around it instead of being visible. These are the control
/// characters (category Cc), format characters such as bidirectional overrides (Cf), and line and paragraph
/// separators (Zl, Zp) of Unicode 17, and the ranges that Unicode reserves for further ones.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Escapes JSON text for a terminal: characters for which [`is_hidden`] is true become `\uXXXX`, which means the same
/// to a JSON reader. Line feeds and tabs stay, because no other hidden characters occur outside of strings.
pub fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && !matches!(c, '\n' | '\t') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Escapes several lines for a terminal, each as [`escape_line()`] does.
pub fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape_line).collect::<Vec<_>>().join("\n")
}

/// Formats two times for a comparison: to the minute, or to the second if the minute is the same.
pub fn format_distinct(one: Timestamp, other: Timestamp) -> (String, String) {
    match (format_minute(one), format_minute(other)) {
        (a, b) if a == b => (format_second(one), format_second(other)),
        minutes => minutes,
    }
}

/// Writes a path to JSON. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// If the serializer cannot write a string.
pub fn serialize_path<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Writes several paths to JSON, each as [`serialize_path`] does.
///
/// # Errors
/// If the serializer cannot write a string.
pub fn serialize_paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// Writes a path that may be missing to JSON, as [`serialize_path`] does.
///
/// # Errors
/// If the serializer cannot write a string.
pub fn serialize_optional_path<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}

/// Writes a time in whole seconds. Only some sources have fractions, and programs that compare dates need none.
///
/// # Errors
/// If the serializer cannot write a string.
pub fn serialize_second<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&whole(*time))
}

/// Writes a time that may be missing in whole seconds.
///
/// # Errors
/// If the serializer cannot write a string.
pub fn serialize_optional_second<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize_second(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// Writes times by name in whole seconds.
///
/// # Errors
/// If the serializer cannot write a map.
pub fn serialize_seconds<S: Serializer>(
    times: &BTreeMap<String, Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(times.iter().map(|(name, time)| (name, whole(*time).to_string())))
}

fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Formats a number of things, with the regular plural of their name: `1 bundle`, `2 bundles`.
pub fn format_count(count: usize, name: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {name}{plural}")
}

/// Formats a number of bytes with a binary unit: `512 B`, `61.2 MiB`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a duration in seconds, or in milliseconds if it is not a whole number of seconds: `60 s`, `500 ms`.
pub fn format_duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        _ => format!("{} ms", duration.as_millis()),
    }
}

/// Formats the time between two times in minutes, hours or days: `3 h`, `2 d`. A time in the future has the age
/// `0 min`.
pub fn format_age(then: Timestamp, now: Timestamp) -> String {
    let minutes = now.since(then).and_then(|span| span.total(Unit::Minute)).unwrap_or(0.0).max(0.0) as u64;
    match minutes {
        0..=119 => format!("{minutes} min"),
        120..=2879 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

/// Formats the time that has passed since `then`, such as `3 h ago`. If `then` is further ahead of the clock than
/// clocks usually differ, formats the difference instead.
pub fn format_ago(then: Timestamp, now: Timestamp) -> String {
    const USUAL: SignedDuration = SignedDuration::from_mins(5);
    match then.duration_since(now) > USUAL {
        true => format!("{} ahead of this host's clock", format_age(now, then)),
        false => format!("{} ago", format_age(then, now)),
    }
}

/// Formats a time to the minute: `2026-11-21 06:12 UTC`.
pub fn format_minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Formats a time to the second: `2026-11-21 06:12:07 UTC`.
pub fn format_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The format of [`format_stamp`].
const STAMP: &str = "%Y%m%dt%H%M%Sz";

/// Formats a time for the name of a file, in UTC: `20261121t091500z`. FAT and gateways allow all these characters.
pub fn format_stamp(time: Timestamp) -> String {
    time.strftime(STAMP).to_string()
}

/// Parses the output of [`format_stamp`]. Returns `None` for other text.
pub fn parse_stamp(text: &str) -> Option<Timestamp> {
    let is_complete = text.len() == "20261121t091500z".len();
    let date = is_complete.then(|| jiff::civil::DateTime::strptime(STAMP, text).ok())??;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ahead_of_the_clock_has_no_age() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let ago = |minutes: i64| format_ago(now - SignedDuration::from_mins(minutes), now);
        assert_eq!((ago(90).as_str(), ago(-4).as_str()), ("90 min ago", "0 min ago"));
        assert_eq!(ago(-20 * 60), "20 h ahead of this host's clock");
    }

    #[test]
    fn escapes_cannot_reach_the_terminal() {
        assert_eq!(escape("plain — text"), "plain — text");
        assert_eq!(escape("\x1b[2Jx\u{202e}y\n"), "\\u{1b}[2Jx\\u{202e}y\\u{a}");
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), 301);
        assert_eq!(escape(&"ä".repeat(300)), "ä".repeat(300));
        assert_eq!(escape_lines("a\n\x1bb\r\n"), "a\n\\u{1b}b\\u{d}\n");
    }

    /// The categories Cf, Zl and Zp of Unicode 17 (`DerivedGeneralCategory.txt`).
    const FORMATS: [(u32, u32); 21] = [
        (0xad, 0xad),
        (0x600, 0x605),
        (0x61c, 0x61c),
        (0x6dd, 0x6dd),
        (0x70f, 0x70f),
        (0x890, 0x891),
        (0x8e2, 0x8e2),
        (0x180e, 0x180e),
        (0x200b, 0x200f),
        (0x2028, 0x202e),
        (0x2060, 0x2064),
        (0x2066, 0x206f),
        (0xfeff, 0xfeff),
        (0xfff9, 0xfffb),
        (0x110bd, 0x110bd),
        (0x110cd, 0x110cd),
        (0x13430, 0x1343f),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0001, 0xe0001),
        (0xe0020, 0xe007f),
    ];

    #[test]
    fn no_format_or_control_character_is_shown() {
        let controls = [(0x00, 0x1f), (0x7f, 0x9f)];
        for c in FORMATS.iter().chain(&controls).flat_map(|(from, to)| *from..=*to) {
            let c = char::from_u32(c).unwrap();
            assert_eq!(escape_line(&c.to_string()), format!("\\u{{{:x}}}", u32::from(c)));
            assert!(escape_json(&format!("{c}")).is_ascii());
        }
        for seen in ["Ünïcödé", "データ", "ﷺ", "é\u{301}", "👩🏽"] {
            assert_eq!(escape_line(seen), seen);
            assert_eq!(escape_json(seen), seen);
        }
        assert_eq!(escape_line("\u{e0041}\u{e01ef}"), "\\u{e0041}\\u{e01ef}");
    }

    #[test]
    fn json_for_a_terminal_is_the_same_json() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let value = serde_json::json!({ "a\u{202e}": all, "list": [1, null] });
        let shown = escape_json(&format!("{value:#}"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(!shown.contains(|c| is_hidden(c) && c != '\n'));
    }

    #[test]
    fn unverified_text_is_truncated_when_it_is_created() {
        let long = Unverified::from("\u{202e}".repeat(1 << 20));
        assert!(long.raw().len() < 1000 && long.to_string().len() < 3000, "{long}");
        assert_eq!(format!("{long:?}").matches("202e").count(), 300);
        assert_eq!(Unverified::new("plain").raw(), "plain");
    }

    #[test]
    fn sizes_and_ages_read_well() {
        assert_eq!(format_size(1023), "1023 B");
        assert_eq!(format_duration(Duration::from_millis(60_000)), "60 s");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500 ms");
        assert_eq!(format_size(61 << 20), "61.0 MiB");
        assert_eq!(format_size((1 << 20) - 1), "1.0 MiB");
        let then: Timestamp = "2026-11-21T06:12:30Z".parse().unwrap();
        for (seconds, wanted) in [(-5, "0 min"), (60 * 119, "119 min"), (3 * 3600, "3 h"), (86400 * 2, "2 d")]
        {
            assert_eq!(format_age(then, then + jiff::SignedDuration::from_secs(seconds)), wanted);
        }
        assert_eq!(format_minute(then), "2026-11-21 06:12 UTC");
        assert_eq!(format_stamp(then), "20261121t061230z");
        assert_eq!(parse_stamp("20261121t061230z"), Some(then));
        assert_eq!(["", "20261121", "20261321t061230z", "2026111t061230z"].map(parse_stamp), [None; 4]);
    }
}
