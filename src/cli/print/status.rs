//! The text of the reports of `status` and `forget`.

use std::fmt;

use jiff::Timestamp;

use crate::delivery::target_id::TargetId;
use crate::status::drift::DriftState;
use crate::status::forget::ForgetReport;
use crate::status::report::{
    ExportStatus, HeartbeatStatus, ItemStatus, StatusReport, TargetStatus, exported,
};
use crate::util::text::{
    escape, escape_line, format_age, format_ago, format_count, format_minute, format_size, format_stamp,
    with_name,
};

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for target in &self.imports {
            self.write_target(f, target)?;
        }
        for heartbeat in &self.heartbeats {
            self.write_heartbeat(f, heartbeat)?;
        }
        for refused in &self.refused {
            let why = match &refused.bundle {
                Some(bundle) => with_name(&escape(bundle), &escape(&refused.why)),
                None => escape(&refused.why),
            };
            let what = if refused.given_up { "given up" } else { "refused" };
            writeln!(f, "{what:<10} {} {why}", format_minute(refused.at))?;
        }
        for export in &self.exports {
            self.write_export(f, export)?;
        }
        if let Some(dir) = &self.state_dir {
            writeln!(f, "state      {}", escape_line(&dir.display().to_string()))?;
        }
        Ok(())
    }
}

impl fmt::Display for ForgetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for gone in &self.forgotten {
            let (target, stream) = (escape_line(&gone.target.to_string()), escape(&gone.stream));
            writeln!(f, "forgotten: {target}   stream {stream}")?;
        }
        writeln!(
            f,
            "`status` no longer shows it. A later import into it is compared with the data that it accepted before."
        )
    }
}

impl StatusReport {
    /// Describes a target of imports: its last bundle, its datasets, and its problems.
    fn write_target(&self, f: &mut fmt::Formatter<'_>, target: &TargetStatus) -> fmt::Result {
        writeln!(f, "{}   stream {}", escape_line(&target.target.to_string()), escape(&target.stream))?;
        if target.retired {
            let used = target.used.or_else(|| Some(target.bundle.as_ref()?.created));
            let used = used.map_or_else(|| "-".into(), format_minute);
            let forget = target.forget_command();
            writeln!(f, "  retired          runs no longer use it; the last use was {used}")?;
            return writeln!(f, "                   `{forget}` removes it from here");
        }
        if let Some(failed) = &target.failed {
            let why = escape(&failed.why);
            writeln!(f, "  FAILED           every import since {}: {why}", format_minute(failed.since))?;
        }
        if let Some(reset) = target.floors_reset {
            writeln!(f, "  floors reset     {}; nothing has been accepted since", format_minute(reset))?;
        }
        if let Some(bundle) = &target.bundle {
            let number = numbered(bundle.sequence);
            let ago = format_ago(bundle.created, self.now);
            writeln!(f, "  last bundle      {} ({ago}){number}", format_minute(bundle.created))?;
            for item in &bundle.missing_items {
                writeln!(f, "  not in it        {item}: {}", escape(&item.why))?;
            }
        }
        if !target.accepted && target.failed.is_none() && target.floors_reset.is_none() {
            writeln!(f, "  last bundle      none was accepted yet")?;
        }
        for row in &target.datasets {
            self.write_row(f, row)?;
        }
        let is_unasked = |row: &ItemStatus| row.state == DriftState::NotLookedAt;
        let is_registry = matches!(target.target, TargetId::Registry(_));
        if is_registry && target.datasets.iter().any(is_unasked) {
            let why = if self.asked { "it did not answer" } else { "use --check-registries" };
            writeln!(f, "  not checked      the data in the registry: {why}")?;
        }
        if !target.missing.is_empty() {
            let bundles = format_count(target.missing.len(), "bundle");
            writeln!(f, "  never received   {bundles}: {}", format_numbers(&target.missing))?;
        }
        if target.overrides > 0 {
            let bundles = format_count(target.overrides, "bundle");
            let last = target.last_override.as_ref();
            let last = last
                .map(|last| format!(", last on {} by {}", format_minute(last.at), last.flags.join(" and ")));
            writeln!(f, "  against rules    {bundles} admitted by a flag{}", last.unwrap_or_default())?;
        }
        if let Some(disk) = target.disk {
            writeln!(f, "  on the disk      {}", format_size(disk))?;
        }
        Ok(())
    }

    /// Describes a dataset in a target: its date, its state and its source.
    fn write_row(&self, f: &mut fmt::Formatter<'_>, row: &ItemStatus) -> fmt::Result {
        let what = describe(row.state);
        let date = if what.is_empty() { Some(row.accepted) } else { row.in_use };
        let mut date = dated(date, self.now);
        if row.manifest_date {
            date.push_str(", by its manifest");
        }
        let expired = row.expires.is_some_and(|expires| expires < self.now);
        let expired = if expired { "EXPIRED" } else { "" };
        let text = format!("  {:<16} {date}  {what}{expired}", escape(&row.name));
        writeln!(f, "{}", text.trim_end())?;
        for tag in &row.lost_tags {
            writeln!(f, "  {:<16} the tag {} no longer names it", "", escape(tag))?;
        }
        // The source is known only for data that was imported here.
        if let Some(source) = row.source.as_ref().filter(|_| what.is_empty()) {
            let version = row.version.iter().map(|version| format!(" {}", escape(version)));
            let version: String = version.collect();
            let signer = |name: &String| match row.no_longer_trusted.contains(name) {
                true => format!("{} (no longer trusted)", escape(name)),
                false => escape(name),
            };
            let signers: Vec<String> = row.signers.iter().map(signer).collect();
            let signers = signers.join(" and ");
            writeln!(f, "  {:<16} from {}{version}, signed by {signers}", "", escape(source))?;
        }
        Ok(())
    }

    /// Describes the last heartbeat of a stream, and the bundle that it announces if it has not arrived here.
    fn write_heartbeat(&self, f: &mut fmt::Formatter<'_>, heartbeat: &HeartbeatStatus) -> fmt::Result {
        let heard = &heartbeat.heard;
        writeln!(f, "heartbeat  stream {}", escape(&heartbeat.stream))?;
        let ago = format_ago(heard.created, self.now);
        writeln!(
            f,
            "  last made        {} ({ago}): {}",
            format_minute(heard.created),
            exported(&heard.export)
        )?;
        for item in &heard.missing {
            writeln!(f, "  could not get    {item}: {}", escape(&item.why))?;
        }
        if let (Some(newest), false) = (&heard.newest, heartbeat.here) {
            let number = numbered(newest.sequence);
            let name = format!("{}-{}", escape(&heartbeat.stream), format_stamp(newest.created));
            writeln!(f, "  not here yet     {name}{number}")?;
            for target in &heartbeat.not_in {
                writeln!(f, "                   not in {}", escape_line(&target.to_string()))?;
            }
        }
        Ok(())
    }

    /// Describes the last bundle that was exported to a stream.
    fn write_export(&self, f: &mut fmt::Formatter<'_>, export: &ExportStatus) -> fmt::Result {
        writeln!(f, "exported   stream {}", escape(&export.stream))?;
        let ago = format_ago(export.created, self.now);
        writeln!(
            f,
            "  last bundle      {} ({ago}), number {}",
            format_minute(export.created),
            export.sequence
        )?;
        for (name, date) in &export.datasets {
            writeln!(f, "  {:<16} {}", escape(name), dated(Some(*date), self.now))?;
        }
        Ok(())
    }
}

fn numbered(sequence: Option<u64>) -> String {
    sequence.map_or_else(String::new, |number| format!(", number {number}"))
}

/// Formats ascending numbers with ranges: `4, 8-12`. If there are many ranges, only the last ones are shown.
fn format_numbers(numbers: &[u64]) -> String {
    const MOST: usize = 12;
    let ranges = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let ranges = ranges.filter_map(|range| match range {
        [] => None,
        [only] => Some(only.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    let ranges: Vec<String> = ranges.collect();
    let shown = &ranges[ranges.len().saturating_sub(MOST)..];
    let earlier = if shown.len() < ranges.len() { "..., " } else { "" };
    format!("{earlier}{}", shown.join(", "))
}

fn dated(date: Option<Timestamp>, now: Timestamp) -> String {
    date.map_or_else(|| "-".into(), |date| format!("{} ({} old)", format_minute(date), format_age(date, now)))
}

/// Returns the words for a dataset that does not match the imported data.
fn describe(state: DriftState) -> &'static str {
    match state {
        DriftState::InPlace | DriftState::NotLookedAt => "",
        DriftState::Missing => "MISSING: it was imported and is not there",
        DriftState::Differs => "DIFFERS from the imported data",
        DriftState::Older => "OLDER than the imported data",
        DriftState::Newer => "NEWER than the imported data",
        DriftState::NotAccepted => "not from a bundle that was accepted here",
        DriftState::Superseded => "replaced by a later import of another stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_numbers_are_shown_as_ranges() {
        assert_eq!(format_numbers(&[4]), "4");
        assert_eq!(format_numbers(&[4, 8, 9, 10, 12]), "4, 8-10, 12");
        let odd: Vec<u64> = (0..20).map(|number| 2 * number).collect();
        assert_eq!(format_numbers(&odd), "..., 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38");
        assert_eq!(format_numbers(&[u64::MAX - 1, u64::MAX]), "18446744073709551614-18446744073709551615");
    }
}
