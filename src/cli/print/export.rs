//! What `export` prints.

use std::fmt;
use std::path::Path;

use crate::export::report::{ParityRow, Report, Written};
use crate::util::text::{line, moment, safe, size};

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

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Checked, signed, synced{}: {} ({}).{}",
            if self.read_back { ", read back" } else { "" },
            line(&self.path.display().to_string()),
            size(self.length),
            if self.on_medium { " Safe to unplug." } else { "" }
        )?;
        let mut folders: Vec<(&Path, usize)> = Vec::new();
        for folder in self.files.iter().skip(1).filter_map(|file| file.parent()) {
            match folders.iter_mut().find(|(known, _)| *known == folder) {
                Some((_, count)) => *count += 1,
                None => folders.push((folder, 1)),
            }
        }
        for (folder, count) in folders {
            writeln!(f, "  with {count} volumes behind it in {}", line(&folder.display().to_string()))?;
        }
        if let Some(parity) = &self.parity {
            writeln!(f, "  with {parity}")?;
        }
        writeln!(f, "Signed by {}", self.fingerprint)?;
        writeln!(f, "Payload {}, for your log.", self.identity)
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
            write!(f, "{bundle}")?;
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
