//! Text for people: untrusted text made harmless, sizes, and ages.

use std::fmt::Write;
use std::path::PathBuf;

use jiff::{Timestamp, Unit};
use serde::Serializer;

/// Text from outside, made safe for a terminal: control characters, escape sequences and
/// bidirectional overrides appear as `\u{…}`, and what is longer than 300 characters is cut.
pub fn safe(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => line(&text[..end]) + "…",
        None => line(text),
    }
}

/// A whole line made safe for a terminal as by [`safe`], and not cut. Names of files, which a
/// medium may have chosen, come into messages in many ways and leave the program only through
/// here and [`lines`].
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hidden {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Several lines, each made safe for a terminal as by [`line`].
pub fn lines(text: &str) -> String {
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Two times that are compared: to the minute, or to the second where the minute is the same.
pub fn moments(one: Timestamp, other: Timestamp) -> (String, String) {
    match (moment(one), moment(other)) {
        (a, b) if a == b => (second(one), second(other)),
        minutes => minutes,
    }
}

/// A path in JSON, which knows no names that are not UTF-8: what is none appears as U+FFFD.
///
/// # Errors
/// Those of the serializer.
pub fn path<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Several paths in JSON, each as by [`path`].
///
/// # Errors
/// Those of the serializer.
pub fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// A path in JSON that may be missing, as by [`path`].
///
/// # Errors
/// Those of the serializer.
pub fn maybe_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}

/// A number of bytes with a binary unit: `512 B`, `61.2 MiB`.
pub fn size(bytes: u64) -> String {
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

/// The time between two moments in the largest unit that says something: `3 h`, `2 d`. A moment
/// in the future has no age: `0 min`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let minutes = now.since(then).and_then(|span| span.total(Unit::Minute)).unwrap_or(0.0).max(0.0) as u64;
    match minutes {
        0..=119 => format!("{minutes} min"),
        120..=2879 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

/// A moment to the minute, in UTC: `2026-11-21 06:12`.
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A moment to the second, in UTC, where minutes may be the same.
pub fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// How [`stamp`] writes a moment.
const STAMP: &str = "%Y%m%dt%H%M%Sz";

/// A moment in the name of a file, in UTC: `20261121t091500z`. FAT and gateways allow all of it.
pub fn stamp(time: Timestamp) -> String {
    time.strftime(STAMP).to_string()
}

/// The moment that [`stamp`] wrote; `None` for anything else.
pub fn parse_stamp(text: &str) -> Option<Timestamp> {
    let is_whole = text.len() == "20261121t091500z".len();
    let date = is_whole.then(|| jiff::civil::DateTime::strptime(STAMP, text).ok())??;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_cannot_reach_the_terminal() {
        assert_eq!(safe("plain — text"), "plain — text");
        assert_eq!(safe("\x1b[2Jx\u{202e}y\n"), "\\u{1b}[2Jx\\u{202e}y\\u{a}");
        assert_eq!(safe(&"x".repeat(1000)).chars().count(), 301);
        assert_eq!(safe(&"ä".repeat(300)), "ä".repeat(300));
        assert_eq!(lines("a\n\x1bb\r\n"), "a\n\\u{1b}b\\u{d}\n");
    }

    #[test]
    fn sizes_and_ages_read_well() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(61 << 20), "61.0 MiB");
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        let then: Timestamp = "2026-11-21T06:12:30Z".parse().unwrap();
        for (seconds, wanted) in [(-5, "0 min"), (60 * 119, "119 min"), (3 * 3600, "3 h"), (86400 * 2, "2 d")]
        {
            assert_eq!(age(then, then + jiff::SignedDuration::from_secs(seconds)), wanted);
        }
        assert_eq!(moment(then), "2026-11-21 06:12");
        assert_eq!(stamp(then), "20261121t061230z");
        assert_eq!(parse_stamp("20261121t061230z"), Some(then));
        assert_eq!(["", "20261121", "20261321t061230z", "2026111t061230z"].map(parse_stamp), [None; 4]);
    }
}
