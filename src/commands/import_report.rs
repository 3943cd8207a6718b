//! What an import or a mirror says of a target at its end, for people and for programs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{Dataset, Image, VerifiedBundle};
use crate::commands::admitted::Source;
use crate::commands::export::OLD;
use crate::commands::import::Setup;
use crate::commands::inbox::Ignored;
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Contents, Name};
use crate::digest::Digest;
use crate::error::Error;
use crate::target::Switch;
use crate::text::{age, line, moment, moments, safe, size};
use crate::trust::acceptance::Admission;

/// What helps an importing host whose data is old.
pub(super) const NEWER_BUNDLE: &str = "bring a newer bundle";

/// What became of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// It is new here.
    Installed,
    /// It is new in this registry.
    Pushed,
    /// It is handed out from now on.
    Served,
    /// It would be, were this no dry run.
    WouldPush,
    /// It was in place.
    Unchanged,
    /// It was accepted before, was missing or different, and is back.
    Restored,
    /// The target failed.
    Failed,
    /// Something newer was there already.
    Older,
    /// It is older than `--max-age` allows.
    Refused,
    /// The layout has no place for it.
    NoPlace,
    /// The Trivy here wants another one.
    NotWanted,
    /// No `--image` names it.
    NotRequested,
    /// Not yet decided.
    #[serde(rename = "failed")]
    Installing,
}

impl Status {
    /// Whether the target has it now.
    fn is_in_place(self) -> bool {
        self.is_change() || self == Status::Unchanged
    }

    /// Whether the target did not have it before.
    fn is_change(self) -> bool {
        matches!(self, Status::Installed | Status::Pushed | Status::Served | Status::Restored)
    }

    /// The word for programs.
    pub(super) fn key(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(key)) => key,
            _ => self.word().into(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Status::Installed => "installed",
            Status::Pushed => "pushed",
            Status::Served => "served",
            Status::WouldPush => "would push",
            Status::Unchanged => "unchanged",
            Status::Restored => "restored",
            Status::Failed | Status::Installing => "failed",
            Status::Older => "left alone",
            Status::Refused => "refused",
            Status::NoPlace => "no place",
            Status::NotWanted => "not wanted",
            Status::NotRequested => "not requested",
        }
    }
}

/// Where an import goes. Its text is what the memory knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Trivy's cache directory, without symbolic links.
    Cache(PathBuf),
    /// A place in a registry.
    Registry(String),
    /// A web root, without symbolic links.
    Web(PathBuf),
    /// A server of ours, by the address that it listens on.
    Serve(SocketAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Cache(dir) => write!(f, "cache:{}", dir.display()),
            Target::Registry(place) => write!(f, "registry:{place}"),
            Target::Serve(address) => write!(f, "serve:{address}"),
            Target::Web(dir) => write!(f, "web:{}", dir.display()),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A dataset and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: Name,
    pub(super) tag: String,
    pub(super) status: Status,
    version: Option<String>,
    pub(super) updated_at: Option<Timestamp>,
    next_update: Option<Timestamp>,
    pub(super) was: Option<Timestamp>,
    /// How it took its place: `atomic`, `two-step` or `per-file`.
    switch: Option<&'static str>,
    /// The reference under which a registry has it, or the URL under which a web server does.
    pub(super) reference: Option<String>,
    /// The further tags there that name it.
    pub(super) extra_tags: Vec<String>,
    /// The digest of its manifest.
    pub(super) digest: Option<Digest>,
    /// Where it is fetched from, and the bytes of all its parts, where it comes from no bundle.
    #[serde(flatten)]
    fetched: Option<Fetched>,
    #[serde(skip)]
    pub(super) dataset: Option<Dataset>,
    /// The name that the scanner here has for a VEX repository in a cache.
    #[serde(skip)]
    pub(super) repository: Option<String>,
}

/// What a row says of a dataset that was fetched, or would be.
#[derive(Debug, Serialize)]
struct Fetched {
    source: String,
    size: u64,
}

impl Row {
    pub(super) fn new(dataset: &Dataset, was: Option<Timestamp>, status: Status) -> Self {
        Row {
            name: dataset.name.clone(),
            tag: dataset.tag.clone(),
            status,
            version: dataset.version.as_deref().map(safe),
            updated_at: dataset.contents.updated_at,
            next_update: dataset.contents.next_update,
            was,
            switch: None,
            reference: None,
            extra_tags: Vec::new(),
            digest: Some(dataset.manifest.digest),
            fetched: None,
            dataset: Some(dataset.clone()),
            repository: None,
        }
    }

    /// A dataset that comes from its source. `announced` is the date that its manifest has.
    pub(super) fn fetched(dataset: &Dataset, announced: Option<Timestamp>, reference: String) -> Self {
        let size = dataset.blobs().map(|blob| blob.size).sum();
        Row {
            updated_at: dataset.contents.updated_at.or(announced),
            reference: Some(reference),
            fetched: Some(Fetched { source: dataset.source.clone(), size }),
            ..Row::new(dataset, None, Status::Installing)
        }
    }

    /// A dataset that no source has.
    pub(super) fn missing(name: &Name, tag: &str, reference: String) -> Self {
        Row { tag: tag.into(), status: Status::Failed, reference: Some(reference), ..Row::bare(name) }
    }

    fn bare(name: &Name) -> Self {
        Row {
            name: name.clone(),
            tag: String::new(),
            status: Status::Installing,
            version: None,
            updated_at: None,
            next_update: None,
            was: None,
            switch: None,
            reference: None,
            extra_tags: Vec::new(),
            digest: None,
            fetched: None,
            dataset: None,
            repository: None,
        }
    }

    /// A dataset that went back to its kept generation.
    pub(super) fn went_back(
        name: &Name,
        now: Option<Timestamp>,
        was: Option<Timestamp>,
        how: Switch,
    ) -> Self {
        Row { status: Status::Restored, updated_at: now, was, switch: Some(how.as_str()), ..Row::bare(name) }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, was) = match (self.updated_at, self.was) {
            (Some(now), Some(was)) if now != was => {
                let (now, was) = moments(now, was);
                (Some(now), Some(was))
            }
            (now, was) => (now.map(moment), was.map(moment)),
        };
        let date = now.or_else(|| self.version.clone()).unwrap_or_default();
        let line = format!("{:<15} {:<11} {date}", self.name, self.status.word());
        f.write_str(line.trim_end())?;
        match (self.status, was) {
            (Status::Installed | Status::Pushed | Status::WouldPush | Status::Restored, Some(was))
                if self.was != self.updated_at =>
            {
                write!(f, ", was {was}")?;
            }
            (Status::Older, Some(was)) => write!(f, ", has {was}")?,
            _ => {}
        }
        match self.switch {
            Some("per-file") => write!(f, "   (file by file: a scan during the switch may have seen both)")?,
            Some("two-step") => write!(f, "   (in two steps)")?,
            _ => self.reference.iter().try_for_each(|reference| write!(f, "   {}", safe(reference)))?,
        }
        if !self.extra_tags.is_empty() {
            write!(f, " (also :{})", self.extra_tags.join(", :"))?;
        }
        match (self.status, &self.fetched) {
            (Status::WouldPush, Some(fetched)) => {
                write!(f, "   from {}, {}", safe(&fetched.source), size(fetched.size))
            }
            _ => Ok(()),
        }
    }
}

/// An image beside the datasets and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct ImageRow {
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) digest: Digest,
    /// The reference under which a registry has it.
    pub(super) reference: Option<String>,
    /// What the memory knows this place of it by.
    #[serde(skip)]
    pub(super) key: String,
    /// Where its exporter had it from.
    #[serde(skip)]
    pub(super) source: String,
}

impl ImageRow {
    pub(super) fn new(image: &Image) -> Self {
        ImageRow {
            name: image.name.clone(),
            status: Status::Failed,
            digest: image.manifest.digest,
            reference: None,
            key: String::new(),
            source: image.source.clone(),
        }
    }

    /// An image that no `--image` names.
    pub(super) fn not_requested(image: &Image) -> Self {
        ImageRow { status: Status::NotRequested, ..ImageRow::new(image) }
    }
}

impl fmt::Display for ImageRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}   {}", self.name, self.status.word())?;
        self.reference.iter().try_for_each(|reference| write!(f, "   {}", safe(reference)))
    }
}

/// A dataset that a target has from before.
pub(super) struct Standing {
    pub(super) name: Name,
    pub(super) tag: String,
    /// As in [`Row`].
    pub(super) reference: String,
}

/// The whole report.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) target: Target,
    trivy_version: String,
    #[serde(rename = "bundles")]
    pub(super) sources: Vec<Source>,
    /// The bundles that were refused, and why: the errors say the same without who made them.
    #[serde(skip)]
    pub(super) refused: Vec<(Source, String)>,
    #[serde(rename = "datasets")]
    pub(super) rows: Vec<Row>,
    pub(super) images: Vec<ImageRow>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) warnings: Vec<String>,
    #[serde(serialize_with = "errors")]
    pub(super) errors: Vec<Error>,
    /// The settings that keep Trivy offline, a line for each subcommand.
    pub(super) commands: Vec<String>,
    /// The same for people: subcommands that take the same flags share a line.
    #[serde(skip)]
    pub(super) settings: Vec<(Vec<&'static str>, String)>,
    /// What is said above them.
    #[serde(skip)]
    pub(super) heading: String,
    /// What the target has from before, and this run did not bring.
    #[serde(skip)]
    pub(super) standing: Vec<Standing>,
    /// It failed as a whole: nobody looked what it has.
    #[serde(skip)]
    pub(super) failed: bool,
    /// The same as environment variables.
    pub(super) environment: Vec<(String, String)>,
    #[serde(serialize_with = "crate::text::paths")]
    pub(super) written: Vec<PathBuf>,
    pub(super) advice: Vec<String>,
    /// From when Trivy would try to download, and fail, without these settings.
    pub(super) fails_from: Option<Timestamp>,
}

/// Writes the reports of a run, each under its target where there are several.
pub(super) fn write_all(f: &mut fmt::Formatter<'_>, reports: &[Report]) -> fmt::Result {
    for report in reports {
        if reports.len() > 1 {
            writeln!(f, "{}:", report.target)?;
        }
        fmt::Display::fmt(report, f)?;
    }
    Ok(())
}

/// The warnings of all targets, which name their target if there are several.
pub(super) fn warnings(reports: &[Report]) -> Vec<String> {
    let of = |report: &Report| {
        let target = if reports.len() > 1 { format!("{}: ", report.target) } else { String::new() };
        report.warnings.iter().map(|warning| format!("{target}{warning}")).collect::<Vec<_>>()
    };
    reports.iter().flat_map(of).collect()
}

pub(super) fn errors<S: serde::Serializer>(errors: &[Error], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(Error::to_json))
}

impl Report {
    pub(super) fn new(target: Target, setup: &Setup, ignored: Vec<Ignored>) -> Self {
        Report { ignored, ..Report::of(target, setup.host.version) }
    }

    /// The report of a target that no bundle goes to.
    pub(super) fn of(target: Target, version: TrivyVersion) -> Self {
        Report {
            target,
            trivy_version: version.to_string(),
            sources: Vec::new(),
            refused: Vec::new(),
            rows: Vec::new(),
            images: Vec::new(),
            ignored: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            commands: Vec::new(),
            settings: Vec::new(),
            heading: String::new(),
            standing: Vec::new(),
            failed: false,
            environment: Vec::new(),
            written: Vec::new(),
            advice: Vec::new(),
            fails_from: None,
        }
    }

    /// Writes down that something of a bundle is older than what was there, and taken all the same: that
    /// shows only after it was admitted.
    pub(super) fn rolls_back(&mut self, bundle: &VerifiedBundle, admission: &mut Admission) {
        admission.rolls_back();
        self.overrides(bundle, admission);
    }

    /// Writes down that an image of a bundle replaces a tag that trivy-ferry did not set.
    pub(super) fn replaces_tags(&mut self, bundle: &VerifiedBundle, admission: &mut Admission) {
        admission.replaces_tags();
        self.overrides(bundle, admission);
    }

    fn overrides(&mut self, bundle: &VerifiedBundle, admission: &Admission) {
        for source in self.sources.iter_mut().filter(|source| source.identity == bundle.identity()) {
            source.overrides.clone_from(&admission.overrides);
        }
    }

    /// Writes down a dataset that the target refuses.
    pub(super) fn fails(&mut self, dataset: &Dataset, reference: String, error: Error) {
        let mut row = Row::new(dataset, None, Status::Failed);
        row.reference = Some(reference);
        self.rows.push(row);
        self.errors.push(error);
    }

    /// Sets what became of a dataset.
    pub(super) fn set(&mut self, dataset: &Dataset, status: Status, how: Option<Switch>) {
        let reference = dataset.reference();
        if let Some(row) = self.rows.iter_mut().find(|row| format!("{}-{}", row.name, row.tag) == reference) {
            row.status = status;
            row.switch = how.map(Switch::as_str);
        }
    }

    /// Sets what the content of a dataset was found to be.
    pub(super) fn found(&mut self, dataset: &Dataset, contents: &Contents) {
        let reference = dataset.reference();
        if let Some(row) = self.rows.iter_mut().find(|row| format!("{}-{}", row.name, row.tag) == reference) {
            (row.updated_at, row.next_update) = (contents.updated_at, contents.next_update);
        }
    }

    /// Whether a dataset is in place now.
    pub(super) fn is_in_place(&self, dataset: &Dataset) -> bool {
        self.in_place().any(|row| row.dataset.as_ref() == Some(dataset))
    }

    /// Warns of databases that are old, each time, and says what would help: a stick that nobody
    /// refreshes must not stay green for ever. VEX documents and checks stay true for long.
    pub(super) fn warn_of_old(&mut self, now: Timestamp, remedy: &str) {
        let is_old = |row: &&Row| {
            row.name.kind().is_large() && row.updated_at.is_some_and(|date| now.duration_since(date) > OLD)
        };
        let old = self.in_place().filter(is_old).map(|row| {
            let date = row.updated_at.map_or_else(String::new, |date| age(date, now));
            format!("{} is {date} old: {remedy}", row.name)
        });
        let old: Vec<String> = old.collect();
        self.warnings.extend(old);
    }

    /// The datasets that are in place now.
    pub(super) fn in_place(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.status.is_in_place())
    }

    /// The datasets that changed.
    pub(super) fn changed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.status.is_change())
    }

    /// The places in which an image is now.
    pub(super) fn places_of(&self, image: &Image) -> impl Iterator<Item = &ImageRow> {
        let is = |row: &&ImageRow| row.name == image.name && row.digest == image.manifest.digest;
        self.images.iter().filter(is).filter(|row| row.status.is_in_place())
    }

    /// Whether anything changed.
    pub(super) fn has_changed(&self) -> bool {
        self.changed().next().is_some() || self.images.iter().any(|row| row.status.is_change())
    }

    /// Whether anything is in place, be it new or not.
    pub(super) fn has_something_in_place(&self) -> bool {
        let nothing = |row: &Row| matches!(row.status, Status::Failed | Status::Installing | Status::Refused);
        !self.rows.iter().all(nothing) || self.images.iter().any(|row| row.status.is_in_place())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for source in &self.sources {
            source.fmt(f)?;
        }
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for image in &self.images {
            writeln!(f, "{image}")?;
        }
        for ignored in &self.ignored {
            writeln!(f, "ignored: {}: {}", ignored.name, ignored.why)?;
        }
        for path in &self.written {
            writeln!(f, "Written: {}", line(&path.display().to_string()))?;
        }
        // Said once; who imports the same again knows.
        if self.changed().count() > 0 && !self.settings.is_empty() {
            writeln!(f, "{}", self.heading)?;
            for (subcommands, flags) in &self.settings {
                writeln!(f, "  trivy {}\n    {flags}", subcommands.join(" | "))?;
            }
            if let Some(time) = self.fails_from {
                writeln!(f, "Without them Trivy tries to download from {} on, and fails.", moment(time))?;
            }
        }
        for advice in &self.advice {
            writeln!(f, "{advice}")?;
        }
        Ok(())
    }
}
