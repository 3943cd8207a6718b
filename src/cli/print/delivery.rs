//! The text of the reports of `import`, `mirror` and `serve` about their targets.

use std::fmt;

use crate::delivery::admitted::AdmittedBundle;
use crate::delivery::report::{DatasetResult, DeliveryStatus, ImageResult, SubcommandSettings, TargetReport};
use crate::import::report::ImportReport;
use crate::intake::signer::SignerInfo;
use crate::mirror::MirrorReport;
use crate::trust::acceptance::REPLACE_TAGS;
use crate::util::text::{escape, escape_line, format_distinct, format_minute, format_size};

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, &self.targets)
    }
}

impl fmt::Display for AdmittedBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signers: Vec<String> = self.signers.iter().map(SignerInfo::to_string).collect();
        writeln!(f, "{}   signed by {}, created {} ago", self.name, signers.join(" and "), self.age)?;
        if self.first_import {
            writeln!(f, "  first import of this stream into this target")?;
        }
        if self.superseded {
            writeln!(f, "  late: newer bundles of this stream arrived before")?;
        }
        if let Some((from, to)) = self.missing {
            match to - from {
                0 => writeln!(f, "  bundle number {from} of this stream was never received here")?,
                _ => writeln!(f, "  bundles number {from} to {to} of this stream were never received here")?,
            }
        }
        if let (Some(before), Some(number)) = (self.number_before, self.sequence) {
            writeln!(
                f,
                "  number {number} after number {before}: the exporter lost its state or was restored, or two exporters use this stream"
            )?;
        }
        for flag in &self.overrides {
            match *flag {
                REPLACE_TAGS => writeln!(f, "  replaced image tags because of {flag}; this is recorded")?,
                _ => writeln!(f, "  accepted only because of {flag}; this is recorded")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for DatasetResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, was) = match (self.updated_at, self.was) {
            (Some(now), Some(was)) if now != was => {
                let (now, was) = format_distinct(now, was);
                (Some(now), Some(was))
            }
            (now, was) => (now.map(format_minute), was.map(format_minute)),
        };
        let date = now.or_else(|| self.version.clone()).unwrap_or_default();
        let line = format!("{:<15} {:<13} {date}", self.name, self.status.word());
        f.write_str(line.trim_end())?;
        match (self.status, was) {
            (
                DeliveryStatus::Installed
                | DeliveryStatus::Pushed
                | DeliveryStatus::WouldPush
                | DeliveryStatus::WouldInstall
                | DeliveryStatus::Restored,
                Some(was),
            ) if self.was != self.updated_at => {
                write!(f, ", was {was}")?;
            }
            (DeliveryStatus::Older, Some(was)) => write!(f, ", has {was}")?,
            _ => {}
        }
        match self.switch {
            Some("per-file") => {
                write!(f, "   (file by file: a scan during the switch may have read mixed data)")?
            }
            Some("two-step") => write!(f, "   (in two steps)")?,
            _ => self.reference.iter().try_for_each(|reference| write!(f, "   {}", escape(reference)))?,
        }
        if !self.extra_tags.is_empty() {
            write!(f, " (also :{})", self.extra_tags.join(", :"))?;
        }
        match (self.status, &self.fetched) {
            (DeliveryStatus::WouldPush, Some(fetched)) => {
                write!(f, "   from {}, {}", escape(&fetched.source), format_size(fetched.size))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ImageResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}   {}", self.name, self.status.word())?;
        self.reference.iter().try_for_each(|reference| write!(f, "   {}", escape(reference)))
    }
}

impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for source in &self.bundles {
            source.fmt(f)?;
        }
        for row in &self.datasets {
            writeln!(f, "{row}")?;
        }
        for image in &self.images {
            writeln!(f, "{image}")?;
        }
        for ignored in &self.ignored {
            writeln!(f, "skipped: {}: {}", ignored.name, ignored.why)?;
        }
        for path in &self.written {
            writeln!(f, "Written: {}", escape_line(&path.display().to_string()))?;
        }
        // Repeated imports without changes do not show the settings again.
        if self.tells_settings() && !self.settings.is_empty() {
            writeln!(f, "{}", self.heading)?;
            let shown = if self.shows_all_settings { self.settings.len() } else { 1 };
            for SubcommandSettings { environment, subcommands, flags, .. } in self.settings.iter().take(shown)
            {
                let space = if environment.is_empty() { "" } else { " " };
                writeln!(f, "  {environment}{space}trivy {}\n    {flags}", subcommands.join(" | "))?;
            }
            if shown < self.settings.len() && self.written.is_empty() {
                writeln!(f, "Other commands: --show-settings. A file for all of them: --write-env FILE.")?;
            }
            if let Some(time) = self.fails_from {
                writeln!(
                    f,
                    "Without them, from {} on, Trivy tries to download data and fails.",
                    format_minute(time)
                )?;
            }
        }
        for advice in self.settings_advice.iter().filter(|_| self.shows_all_settings) {
            writeln!(f, "{advice}")?;
        }
        for advice in &self.advice {
            writeln!(f, "{advice}")?;
        }
        Ok(())
    }
}

/// Writes the reports of a run, each under its target if there are several.
pub(crate) fn write_all(f: &mut fmt::Formatter<'_>, reports: &[TargetReport]) -> fmt::Result {
    for report in reports {
        if reports.len() > 1 {
            writeln!(f, "{}:", report.target)?;
        }
        fmt::Display::fmt(report, f)?;
    }
    Ok(())
}

/// Returns the warnings of all targets. They name their target if there are several.
pub(crate) fn warnings(reports: &[TargetReport]) -> Vec<String> {
    let of = |report: &TargetReport| {
        let target = if reports.len() > 1 { format!("{}: ", report.target) } else { String::new() };
        report.warnings.iter().map(|warning| format!("{target}{warning}")).collect::<Vec<_>>()
    };
    reports.iter().flat_map(of).collect()
}

impl fmt::Display for MirrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, &self.targets)?;
        match (self.dry_run, self.would_fetch) {
            (false, _) => Ok(()),
            (true, 0) => writeln!(f, "Would fetch nothing. Nothing was pushed."),
            (true, bytes) => writeln!(f, "Would fetch {}. Nothing was pushed.", format_size(bytes)),
        }
    }
}
