//! Parses the text of Trivy's VEX configuration, and adds, replaces or removes entries.
//!
//! Text that trivy-ferry did not write is never reordered or reformatted: only complete lines are added and removed,
//! and the result is parsed again and compared. This module handles only YAML and this one file.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::scanner::vex_entry::{CarriedRepository, VexEntry};
use crate::scanner::vex_origin::Origin;
use crate::scanner::yaml::{scalar, truth};

/// The parsed text.
#[derive(Debug, Default)]
pub(crate) struct Document {
    text: String,
    pub(crate) entries: Vec<VexEntry>,
    /// The lines of each entry.
    places: Vec<Place>,
    sequence: Sequence,
    /// The number of scalars outside of entries.
    others: usize,
}

/// The lines of an entry, counted from 1, without the comment with its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    first: usize,
    last: usize,
    scalars: usize,
}

/// The form of the list in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Sequence {
    #[default]
    Absent,
    /// The key has no value.
    Empty {
        /// Its line, counted from 1.
        line: usize,
    },
    Block {
        /// Columns before the dash.
        indent: usize,
        /// The last line of the last entry, counted from 1.
        last_line: usize,
    },
    Other,
}

/// The changes to the entries.
#[derive(Debug, Default)]
pub(crate) struct Edits<'a> {
    /// Entries to replace, by their index.
    pub(crate) replace: BTreeMap<usize, &'a CarriedRepository>,
    /// Entries to remove, by their index.
    pub(crate) remove: Vec<usize>,
    /// Entries to add at the end.
    pub(crate) add: Vec<&'a CarriedRepository>,
}

impl Edits<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.replace.is_empty() && self.remove.is_empty() && self.add.is_empty()
    }
}

/// Returns an entry in the form of Trivy's default (`trivy vex repo init` of v0.74.0), after the comment with its
/// origin.
pub(crate) fn entry_text(repository: &CarriedRepository, enabled: bool, indent: &str, end: &str) -> String {
    let (name, url) = (scalar(&repository.name), scalar(&repository.url));
    let enabled = if enabled { "enabled: true" } else { "enabled: false" };
    let fields = [enabled, "username: \"\"", "password: \"\"", "token: \"\"", "insecure: false"];
    let mut text = format!("- name: {name}\n  url: {url}\n");
    for field in fields {
        text.push_str(&format!("  {field}\n"));
    }
    if let Some(origin) = &repository.origin {
        text.insert_str(0, &format!("{}\n", origin.comment(&text)));
    }
    text.lines().map(|line| format!("{indent}{line}{end}")).collect()
}

impl Document {
    /// Returns the text with some edits. The result is parsed to verify that nothing else has changed.
    ///
    /// # Errors
    /// If the list is not in block style, or an entry could not be changed without changing others. The
    /// text says why.
    pub(crate) fn edited(&self, edits: &Edits<'_>) -> Result<String, String> {
        let end = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let new = |repository: &&CarriedRepository, indent: usize| {
            entry_text(repository, true, &" ".repeat(indent), end)
        };
        let mut lines: Vec<String> = self.text.split_inclusive('\n').map(str::to_owned).collect();
        if let Some(last) = lines.last_mut().filter(|line| !line.ends_with('\n')) {
            last.push_str(end);
        }
        let (indent, at) = match self.sequence {
            Sequence::Absent => {
                lines.push(format!("repositories:{end}"));
                (2, lines.len())
            }
            Sequence::Empty { line } => (2, line),
            Sequence::Block { indent, last_line } => (indent, last_line.min(lines.len())),
            Sequence::Other => return Err("its list of repositories is not in block style".into()),
        };
        lines.splice(at..at, edits.add.iter().map(|repository| new(repository, indent)));
        // From the end, so that the line numbers of earlier entries stay valid.
        for (index, place) in self.places.iter().enumerate().rev() {
            let with = edits.replace.get(&index);
            if with.is_some() || edits.remove.contains(&index) {
                let marked = usize::from(self.entries[index].origin.is_some());
                lines.splice(place.first - 1 - marked..place.last, with.map(|with| new(with, indent)));
            }
        }
        let text = lines.concat();
        self.proven(edits, &text)?;
        Ok(text)
    }

    /// Verifies that a text is this one with these edits.
    fn proven(&self, edits: &Edits<'_>, text: &str) -> Result<(), String> {
        let ours = |repository: &&CarriedRepository| VexEntry {
            name: repository.name.clone(),
            url: repository.url.clone(),
            enabled: true,
            origin: repository.origin.clone(),
        };
        let (mut entries, mut scalars) = (Vec::new(), Vec::new());
        for (index, (entry, place)) in self.entries.iter().zip(&self.places).enumerate() {
            match edits.replace.get(&index) {
                Some(with) => entries.push(ours(with)),
                None if edits.remove.contains(&index) => continue,
                None => entries.push(entry.clone()),
            }
            scalars.push(place.scalars);
        }
        entries.extend(edits.add.iter().map(ours));
        let again = Document::parse(text)?;
        let kept = again.places.iter().zip(&scalars).all(|(place, scalars)| place.scalars == *scalars);
        match again.entries == entries && again.others == self.others && kept {
            true => Ok(()),
            false => Err("an entry could not be changed without changing others".into()),
        }
    }

    /// Parses the only supported form: a mapping with a list of mappings of scalars.
    ///
    /// # Errors
    /// If the text is not YAML, is in flow style, uses aliases, has more than one document, or has another
    /// form. The text of the error says why.
    pub(crate) fn parse(text: &str) -> Result<Document, String> {
        let mut document = Document { text: text.to_owned(), ..Document::default() };
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| format!("it is not YAML ({error})"))?;
            let lines = (span.start.line(), span.end.line());
            match event {
                Event::Alias(_) => return Err("it uses YAML aliases".into()),
                Event::DocumentStart(_) => walk.document()?,
                Event::MappingStart(..) => {
                    walk.depth += 1;
                    if walk.depth == 1 && !top_is_block(text, lines.0) {
                        return Err("it is in flow style".into());
                    }
                    if walk.in_list && walk.depth == 3 {
                        walk.begin_entry(lines.0);
                        if document.sequence == Sequence::Absent {
                            document.sequence = block(text, lines.0, span.start.col());
                        }
                    }
                }
                Event::SequenceStart(..) => {
                    walk.depth += 1;
                    walk.in_list |= walk.depth == 2 && walk.top_key.as_deref() == Some("repositories");
                    let flow = || text[byte(text, span.start.index())..].starts_with('[');
                    if walk.in_list && walk.depth == 2 && flow() {
                        document.sequence = Sequence::Other;
                    }
                }
                Event::MappingEnd | Event::SequenceEnd => walk.end(&mut document),
                Event::Scalar(value, style, ..) => walk.scalar(&value, style, lines, &mut document)?,
                _ => {}
            }
        }
        document.read_origins();
        Ok(document)
    }

    /// Reads the comments with the origins of entries.
    fn read_origins(&mut self) {
        let lines: Vec<&str> = self.text.lines().collect();
        for (entry, place) in self.entries.iter_mut().zip(&self.places) {
            let (Some(comment), Some(text)) =
                (lines.get(place.first.wrapping_sub(2)), lines.get(place.first - 1..place.last))
            else {
                continue;
            };
            let indent = text.first().map_or(0, |line| line.len() - line.trim_start_matches(' ').len());
            let plain = |line: &&str| format!("{}\n", line.get(indent..).unwrap_or_default());
            entry.origin = Origin::of(comment, &text.iter().map(plain).collect::<String>());
        }
    }
}

/// The position of the parser.
#[derive(Default)]
struct Walk {
    depth: u32,
    documents: u32,
    in_list: bool,
    /// The keys whose values are not parsed yet, at the top and in an entry.
    top_key: Option<String>,
    key: Option<String>,
    /// The line of the list's key.
    list_line: usize,
    entry: VexEntry,
    place: Place,
}

impl Walk {
    fn document(&mut self) -> Result<(), String> {
        self.documents += 1;
        if self.documents > 1 { Err("it has more than one document".into()) } else { Ok(()) }
    }

    fn begin_entry(&mut self, line: usize) {
        self.entry = VexEntry::default();
        self.place = Place { first: line, last: line, scalars: 0 };
        self.key = None;
    }

    /// Handles the end of a mapping or a sequence.
    fn end(&mut self, document: &mut Document) {
        if self.in_list && self.depth == 3 {
            document.entries.push(self.entry.clone());
            document.places.push(self.place);
        }
        if self.depth == 2 {
            (self.in_list, self.top_key) = (false, None);
        }
        if self.depth == 4 {
            self.key = None;
        }
        self.depth -= 1;
    }

    fn scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        (first, last): (usize, usize),
        document: &mut Document,
    ) -> Result<(), String> {
        match self.in_list && self.depth > 2 {
            true => self.place.scalars += 1,
            false => document.others += 1,
        }
        if self.in_list
            && let Sequence::Block { last_line, .. } = &mut document.sequence
        {
            *last_line = (*last_line).max(last);
            self.place.last = self.place.last.max(last);
            if !matches!(style, ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted) {
                return Err("it uses block scalars".into());
            }
        }
        match (self.depth, self.top_key.take(), self.key.take()) {
            (0, ..) if !value.is_empty() && value != "null" && value != "~" => {
                return Err("it is not a mapping".into());
            }
            (1, None, _) if value == "repositories" => {
                (self.top_key, self.list_line) = (Some(value.to_owned()), first);
                document.others -= 1;
            }
            (1, None, _) => self.top_key = Some(value.to_owned()),
            (1, Some(list), _) if list == "repositories" => {
                document.others -= 1;
                document.sequence = empty(&document.text, self.list_line);
            }
            (3, top, None) if self.in_list => (self.top_key, self.key) = (top, Some(value.to_owned())),
            (3, top, Some(field)) if self.in_list => {
                self.top_key = top;
                match field.as_str() {
                    "name" => self.entry.name = value.to_owned(),
                    "url" => self.entry.url = value.to_owned(),
                    "enabled" => self.entry.enabled = truth(value).unwrap_or(false),
                    _ => {}
                }
            }
            (_, top, _) if self.depth > 1 => self.top_key = top,
            _ => {}
        }
        Ok(())
    }
}

fn top_is_block(text: &str, line: usize) -> bool {
    !text.lines().nth(line.saturating_sub(1)).is_some_and(|line| line.trim_start().starts_with('{'))
}

/// Returns the form of a list whose first entry begins at a line (from 1) and column (from 0).
fn block(text: &str, line: usize, column: usize) -> Sequence {
    let before: String =
        text.lines().nth(line.saturating_sub(1)).unwrap_or("").chars().take(column).collect();
    let indent = before.len() - before.trim_start_matches(' ').len();
    match before.trim_start_matches(' ').trim_end() {
        "-" => Sequence::Block { indent, last_line: line },
        _ => Sequence::Other,
    }
}

/// Returns the byte offset of a character offset.
fn byte(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

/// Returns the form of a list without entries: its key must have no value, but may have a comment.
fn empty(text: &str, line: usize) -> Sequence {
    let line_text = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    match line_text.strip_prefix("repositories:").map(str::trim_start) {
        Some("") => Sequence::Empty { line },
        Some(comment) if comment.starts_with('#') => Sequence::Empty { line },
        _ => Sequence::Other,
    }
}
