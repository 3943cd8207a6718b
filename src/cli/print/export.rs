//! The text of the report of `export`.

use std::fmt;
use std::path::Path;

use crate::export::report::{ExportReport, WrittenBundle, WrittenParity};
use crate::util::text::{escape, escape_line, format_count, format_minute, format_size};

impl fmt::Display for WrittenParity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = format_count(self.files.len(), "parity file");
        let ranges = format_count(self.shards, "damaged range");
        write!(f, "{files}, for {ranges} of {}", format_size(self.shard))?;
        match self.lost_files {
            0 => write!(f, ", not for a lost file"),
            lost => write!(f, ", or {}", format_count(lost, "lost file")),
        }
    }
}

impl fmt::Display for WrittenBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Wrote {} ({}): validated, signed, synced{}.{}",
            escape_line(&self.path.display().to_string()),
            format_size(self.length),
            if self.read_back { ", read back" } else { "" },
            if self.on_medium { " Safe to unplug." } else { "" }
        )?;
        let mut directories: Vec<(&Path, usize)> = Vec::new();
        for directory in self.files.iter().skip(1).filter_map(|file| file.parent()) {
            match directories.iter_mut().find(|(known, _)| *known == directory) {
                Some((_, count)) => *count += 1,
                None => directories.push((directory, 1)),
            }
        }
        for (directory, count) in directories {
            writeln!(
                f,
                "  with {} in {}",
                format_count(count, "further volume"),
                escape_line(&directory.display().to_string())
            )?;
        }
        if let Some(parity) = &self.parity {
            writeln!(f, "  with {parity}")?;
        }
        for flag in &self.overrides {
            writeln!(f, "  written only because of {flag}; this is recorded")?;
        }
        writeln!(f, "Signed by {}", self.fingerprint)?;
        writeln!(f, "Payload {}", self.identity)
    }
}

impl fmt::Display for ExportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.datasets {
            let date = match (&row.updated_at, &row.age, &row.version) {
                (Some(date), Some(age), _) => format!("{} ({age} old)", format_minute(*date)),
                (_, _, Some(version)) => escape(version),
                _ if self.dry_run => "date unknown until fetched".into(),
                _ => "no date".into(),
            };
            writeln!(
                f,
                "{:<14} {:<4} {date:<32} {:>10}  {}",
                row.name,
                row.tag,
                format_size(row.size),
                escape(&row.source)
            )?;
        }
        self.write_deltas(f)?;
        for image in &self.images {
            writeln!(f, "{:<48} {:>10}", escape(&image.name), format_size(image.size))?;
        }
        for item in &self.missing {
            writeln!(
                f,
                "{:<14} {:<4} MISSING",
                escape(&item.name),
                escape(item.tag.as_deref().unwrap_or(""))
            )?;
        }
        if let Some(bundle) = &self.bundle {
            write!(f, "{bundle}")?;
            if !self.missing.is_empty() {
                writeln!(
                    f,
                    "You can import it: targets keep the data that they have for the missing items."
                )?;
            }
        } else if self.unchanged {
            writeln!(f, "Nothing new since the last bundle of this stream: no bundle was written.")?;
        } else {
            let images = self.images.iter().map(|image| image.size);
            let total = self.datasets.iter().map(|row| row.size).chain(images).sum();
            writeln!(f, "Would fetch {}. Nothing was written.", format_size(total))?;
            if !self.hosts.is_empty() {
                let hosts: Vec<String> = self.hosts.iter().map(|host| escape(host)).collect();
                writeln!(f, "Hosts that a firewall must allow: {}", hosts.join(", "))?;
            }
        }
        self.write_other_files(f)
    }
}

impl ExportReport {
    /// Writes how the databases are carried as differences.
    fn write_deltas(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for delta in &self.deltas {
            writeln!(
                f,
                "{:<19} carried as differences from {} ({} instead of {})",
                delta.dataset,
                format_count(delta.bases, "version"),
                format_size(delta.size),
                format_size(delta.layer)
            )?;
            if let Some(date) = delta.reaches_back_to {
                writeln!(
                    f,
                    "{:<19} for importers that have the data of {} or later",
                    "",
                    format_minute(date)
                )?;
            }
        }
        Ok(())
    }

    /// Writes the files beside the bundle that were written or removed.
    fn write_other_files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = self.dropped.first().and_then(|path| path.parent()) {
            writeln!(
                f,
                "Copied {} into {}",
                format_count(self.dropped.len(), "file"),
                escape_line(&directory.display().to_string())
            )?;
        }
        if let Some(path) = self.program.first() {
            writeln!(f, "Program: {}, with its signed digest", escape_line(&path.display().to_string()))?;
        }
        if let Some(path) = &self.heartbeat {
            writeln!(f, "Heartbeat: {}", escape_line(&path.display().to_string()))?;
        }
        for path in &self.removed {
            writeln!(f, "Removed: {}", escape_line(&path.display().to_string()))?;
        }
        Ok(())
    }
}
