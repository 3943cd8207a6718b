//! What an export says at its end, for people and for programs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{Dataset, Image};
use crate::collect::artifact::PassedOver;
use crate::digest::Digest;
use crate::export::output::Parity;
use crate::util::text::{age, line, moment, safe, size};

#[derive(Serialize, Default)]
pub(crate) struct Report {
    pub(crate) dry_run: bool,
    /// Upstream has nothing new: nothing was written.
    pub(crate) unchanged: bool,
    pub(crate) bundle: Option<Written>,
    pub(crate) datasets: Vec<Row>,
    pub(crate) images: Vec<ImageRow>,
    /// The hosts that a dry run found to be asked, in the order of the alphabet.
    pub(crate) hosts: BTreeSet<String>,
    /// What was put into the folder of --drop.
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) dropped: Vec<PathBuf>,
    /// The heartbeat.
    #[serde(serialize_with = "crate::util::text::maybe_path")]
    pub(crate) heartbeat: Option<PathBuf>,
    /// Older bundles that --keep did not keep.
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) removed: Vec<PathBuf>,
    pub(crate) warnings: Vec<String>,
    pub(crate) errors: Vec<serde_json::Value>,
}

#[derive(Serialize)]
pub(crate) struct ImageRow {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) manifests: usize,
}

impl ImageRow {
    pub(crate) fn new(image: &Image) -> Self {
        ImageRow {
            name: image.name.clone(),
            source: image.source.clone(),
            digest: image.manifest.digest,
            size: image.size(),
            manifests: image.manifests.len() + 1,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Written {
    #[serde(serialize_with = "crate::util::text::path")]
    pub(crate) path: PathBuf,
    /// All its files: the only one, or the head and its volumes.
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) files: Vec<PathBuf>,
    pub(crate) parity: Option<ParityRow>,
    pub(crate) length: u64,
    pub(crate) identity: Digest,
    pub(crate) fingerprint: String,
    pub(crate) stream: String,
    pub(crate) created: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) sequence: Option<u64>,
    /// Whether it was read back from its medium and compared.
    pub(crate) read_back: bool,
    /// On a file system of its own, as a stick is.
    #[serde(skip)]
    pub(crate) on_medium: bool,
}

/// The parity beside a bundle.
#[derive(Serialize)]
pub(crate) struct ParityRow {
    #[serde(serialize_with = "crate::util::text::paths")]
    files: Vec<PathBuf>,
    /// The length of a shard in bytes.
    shard: u64,
    /// How many damaged shards can be made good.
    shards: usize,
    /// How many lost files, whichever they are.
    lost_files: usize,
}

impl ParityRow {
    pub(crate) fn new(parity: &Parity) -> Self {
        ParityRow {
            files: parity.names.clone(),
            shard: parity.shape.shard(),
            shards: parity.shape.parity(),
            lost_files: parity.shape.lost_files(),
        }
    }
}

impl fmt::Display for ParityRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        let (files, shards, lost) = (self.files.len(), self.shards, self.lost_files);
        write!(
            f,
            "{files} parity file{}, for {shards} damaged range{} of {}",
            s(files),
            s(shards),
            size(self.shard)
        )?;
        match lost {
            0 => write!(f, ", not for a lost file"),
            _ => write!(f, ", or {lost} lost file{}", s(lost)),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) tag: String,
    pub(crate) source: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) version: Option<String>,
    pub(crate) updated_at: Option<Timestamp>,
    /// The sources that were not taken, and why.
    pub(crate) passed_over: Vec<PassedOver>,
    #[serde(skip)]
    pub(crate) age: Option<String>,
}

impl Row {
    pub(crate) fn new(
        dataset: &Dataset,
        updated_at: Option<Timestamp>,
        passed_over: &[PassedOver],
        now: Timestamp,
    ) -> Self {
        Row {
            name: dataset.name.to_string(),
            tag: dataset.tag.clone(),
            source: dataset.source.clone(),
            digest: dataset.manifest.digest,
            size: dataset.blobs().map(|blob| blob.size).sum(),
            version: dataset.version.clone(),
            updated_at,
            passed_over: passed_over.to_vec(),
            age: updated_at.map(|date| age(date, now)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.datasets {
            let date = match (&row.updated_at, &row.age, &row.version) {
                (Some(date), Some(age), _) => format!("{} ({age} old)", moment(*date)),
                (_, _, Some(version)) => safe(version),
                _ if self.dry_run => "date unknown until fetched".into(),
                _ => "without a date".into(),
            };
            writeln!(
                f,
                "{:<14} {:<4} {date:<28} {:>10}  {}",
                row.name,
                row.tag,
                size(row.size),
                safe(&row.source)
            )?;
        }
        for image in &self.images {
            writeln!(f, "{:<48} {:>10}", safe(&image.name), size(image.size))?;
        }
        if let Some(bundle) = &self.bundle {
            writeln!(
                f,
                "Checked, signed, synced{}: {} ({}).{}",
                if bundle.read_back { ", read back" } else { "" },
                line(&bundle.path.display().to_string()),
                size(bundle.length),
                if bundle.on_medium { " Safe to unplug." } else { "" }
            )?;
            let mut folders: Vec<(&Path, usize)> = Vec::new();
            for folder in bundle.files.iter().skip(1).filter_map(|file| file.parent()) {
                match folders.iter_mut().find(|(known, _)| *known == folder) {
                    Some((_, count)) => *count += 1,
                    None => folders.push((folder, 1)),
                }
            }
            for (folder, count) in folders {
                writeln!(f, "  with {count} volumes behind it in {}", line(&folder.display().to_string()))?;
            }
            if let Some(parity) = &bundle.parity {
                writeln!(f, "  with {parity}")?;
            }
            writeln!(f, "Signed by {}", bundle.fingerprint)?;
            writeln!(f, "Payload {}, for your log.", bundle.identity)?;
        } else if self.unchanged {
            writeln!(f, "Nothing new since the last bundle of this stream. Nothing was written.")?;
        } else {
            let images = self.images.iter().map(|image| image.size);
            let total = self.datasets.iter().map(|row| row.size).chain(images).sum();
            writeln!(f, "Would fetch {}. Nothing was written.", size(total))?;
            if !self.hosts.is_empty() {
                let hosts: Vec<String> = self.hosts.iter().map(|host| safe(host)).collect();
                writeln!(f, "A firewall must let through: {}", hosts.join(", "))?;
            }
        }
        if let Some(folder) = self.dropped.first().and_then(|path| path.parent()) {
            writeln!(f, "Dropped {} files into {}", self.dropped.len(), line(&folder.display().to_string()))?;
        }
        for path in &self.removed {
            writeln!(f, "Removed: {}", line(&path.display().to_string()))?;
        }
        Ok(())
    }
}
