//! `watch`: imports bundles that arrive in a directory, unattended.
//!
//! It polls the directory, because shares and gateways send no notifications. Only the signed manifest decides whether
//! a bundle is complete. Time decides only when a file counts as settled and when to stop waiting for missing files.

pub(crate) mod attempt;
pub(crate) mod inbox;
pub mod options;
pub(crate) mod overdue;
pub(crate) mod portion;
pub(crate) mod reason;
pub(crate) mod renamed;
pub(crate) mod report;
pub(crate) mod seen;
pub(crate) mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle::volumes::{Volume, parse_name};
use crate::bundle::{BundleError, UnverifiedBundle};
use crate::digest::Digest;
use crate::error::{Category, Error, gravest};
use crate::hint::Hint;
use crate::hook;
use crate::import::registry::push_images::check_places;
use crate::import::{Importer, heartbeat};
use crate::intake::file_sets::{Inputs, name_of, named_date};
use crate::intake::namesakes::Digests;
use crate::progress::Progress;
use crate::status::metrics::RunNews;
use crate::trust::TrustError;
use crate::trust::keyring::Keyring;
use crate::trust::log::{Event, LogEntry};
use crate::trust::state::{Side, StateDir};
use crate::util::clock;
use crate::util::text::{escape, escape_line, format_count, format_second, with_name};
use crate::watch::attempt::ImportAttempt;
use crate::watch::inbox::{Inbox, Quarantine, TakenFiles};
use crate::watch::options::WatchOptions;
use crate::watch::overdue::{Overdue, overdue};
use crate::watch::portion::{Junk, Portion, Sorted, file_name, first, look, sets_of};
use crate::watch::reason::{BundleVerdict, Details, Disposition, Reason, errors_as_json};
use crate::watch::renamed::{RenamedVolumes, lacking_in};
use crate::watch::report::{BundleOutcome, WaitingBundle, WatchReport};
use crate::watch::seen::{SeenBundle, Todo};
use crate::watch::state::{ImportedBundle, ImportedBundles, UnsignedQuota, WaitingTimes};

/// The pause before a retry after a temporary failure, such as an unreachable registry or a full
/// disk.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// The pause before a retry after a rejection because of a clock. It is long, because each retry writes to the log.
const RECHECK_PAUSE: Duration = Duration::from_secs(600);

struct Watch<'w> {
    options: &'w WatchOptions,
    importer: Importer,
    inbox: Inbox,
    seen: BTreeMap<String, SeenBundle>,
    /// The waiting times of bundles, including earlier runs.
    waited: WaitingTimes,
    /// The imported bundles, to recognize files of them that arrive late.
    done: ImportedBundles,
    /// The limit on files without a trusted signature, because anyone may send any number of them.
    unsigned: UnsignedQuota,
    /// The files of this round that have no trusted signature and are beyond the limit.
    junk: Vec<Junk>,
    /// The digests of files that were read to find volumes.
    digests: Digests,
    outcomes: Vec<BundleOutcome>,
    heartbeats: Vec<heartbeat::HeartbeatResult>,
    errors: Vec<Error>,
    /// Whether files have been added since the round began.
    more: bool,
    /// The volumes that are not named like their heads.
    renamed: RenamedVolumes,
    progress: &'w dyn Progress,
}

/// Imports bundles that arrive in a directory.
#[derive(Clone)]
pub struct Watcher {
    options: WatchOptions,
}

impl Watcher {
    /// Creates a watcher with these options. They are validated when it runs.
    #[must_use]
    pub fn new(options: WatchOptions) -> Self {
        Watcher { options }
    }

    /// Imports bundles that arrive in the directory. Runs until the process ends, or with `once` until all files have
    /// been handled.
    ///
    /// # Errors
    /// If no key is trusted, or the directory cannot be watched. Failures of bundles are in the report.
    pub fn run(&self, progress: &dyn Progress) -> Result<WatchReport, Error> {
        let importer = Importer::new(self.options.import.clone());
        let done = watch(&self.options, &importer, progress);
        match &done {
            Err(error) => importer.note_no_start(error, progress),
            // Each import wrote its own result. The metrics of the run have the worst one.
            Ok(report) => {
                if let Some(worst) = gravest(&report.errors) {
                    importer.write_metrics(RunNews::Ended(Err(worst)), progress);
                }
            }
        }
        done
    }
}

/// Returns the keys that are trusted at the moment.
fn keyring(options: &WatchOptions) -> Result<Keyring, TrustError> {
    let import = &options.import;
    Keyring::load(&import.trust)?.requiring(import.min_signers, Some(import.acceptance.stream.as_str()))
}

fn watch(options: &WatchOptions, importer: &Importer, progress: &dyn Progress) -> Result<WatchReport, Error> {
    // Errors in the setup are reported at the start and not when the first bundle arrives.
    keyring(options)?;
    check_places(&options.import)?;
    let inbox = Inbox::open(&options.inbox)?;
    let (waited, done) = (WaitingTimes::load(inbox.own()), ImportedBundles::load(inbox.own()));
    let (unsigned, junk) = (UnsignedQuota::load(inbox.own()), Vec::new());
    let (seen, outcomes, heartbeats, errors, more, digests) = Default::default();
    let mut watcher = Watch {
        options,
        importer: importer.clone(),
        inbox,
        seen,
        waited,
        done,
        unsigned,
        junk,
        digests,
        outcomes,
        heartbeats,
        errors,
        more,
        renamed: RenamedVolumes::default(),
        progress,
    };
    importer.write_metrics(RunNews::Started, progress);
    progress.info(&format!("Watching {} …", escape_line(&options.inbox.display().to_string())));
    for error in watcher.inbox.stuck() {
        progress.warn(&format!(
            "{error}. Remove the leftover files in {}/.trivy-ferry manually.",
            escape_line(&options.inbox.display().to_string())
        ));
    }
    loop {
        let at_rest = watcher.round()?;
        if options.once && at_rest {
            return Ok(watcher.report());
        }
        let pause = if options.once { options.settle.min(options.interval) } else { options.interval };
        std::thread::sleep(pause.duration().unsigned_abs());
    }
}

impl Watch<'_> {
    /// Looks at the inbox once. Returns whether all files there have settled.
    fn round(&mut self) -> Result<bool, Error> {
        if self.inbox.is_replaced() {
            self.inbox = Inbox::open(&self.options.inbox)?;
        }
        match self.inbox.begin_look() {
            0 => {}
            _ if self.options.once => {}
            count => {
                let sets = format_count(count, "file set");
                let inbox = escape_line(&self.shown());
                self.progress.info(&format!("cannot put back {sets} into {inbox} yet; retrying"));
            }
        }
        let mut there = match Inputs::read_with_digests(&self.inbox.directories(), &self.digests) {
            Ok(there) => there,
            // A share may be unavailable for a while.
            Err(error) if !self.options.once => {
                let error = error.restated(&self.inbox.place().display().to_string(), &self.shown());
                self.progress.info(&format!("{error}; retrying"));
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let settled = self.link(&mut there);
        if self.more {
            // Files were put back from quarantine. The next round judges them together with the new ones.
            return Ok(false);
        }
        let sets = sets_of(&there);
        let names: BTreeSet<&String> = sets.iter().map(|(key, _)| key).collect();
        self.seen.retain(|key, _| names.contains(key));
        self.waited.tick(sets.iter().map(|(key, _)| key.as_str()));
        let (mut due, at_rest) = self.look_at(sets);
        self.sort(&there, &mut due);
        for (key, files) in due {
            // A failure with one bundle must not end the watch. It is retried, like a failed target.
            if let Err(error) = self.deal_with(&there, &key, &files) {
                let retry = Todo::TryAt(Instant::now() + self.inbox_pause());
                let error = error.restated(&self.inbox.place().display().to_string(), &self.shown());
                self.wait(&there, &key, &escape(&error.to_string()), retry, Some(error));
            }
        }
        self.put_away(&there);
        if let Err(error) = self.give_up(&there) {
            self.say(&format!("{error}. {}", error.hint()));
            self.errors.push(error);
        }
        if let Some(more) = self.unsigned.take_untold(clock::now()) {
            let files = format_count(usize::try_from(more).unwrap_or(usize::MAX), "more file");
            let why = format!("{files}: not a bundle, or not signed by a trusted key");
            self.log(None, Event::Rejected, &why, true);
        }
        self.unsigned.save(self.inbox.own());
        self.waited.save(self.inbox.own());
        if !self.options.once {
            // They were printed already, and there is no report at the end.
            self.errors.clear();
        }
        Ok(at_rest && settled && !self.more)
    }

    /// Assigns renamed volumes to their heads, and puts back bundles from quarantine for which volumes have arrived.
    /// Returns whether no file that may be such a volume is about to settle.
    fn link(&mut self, there: &mut Inputs) -> bool {
        self.more = false;
        let settle = self.options.settle.duration().unsigned_abs();
        let keyring = keyring(self.options).ok();
        self.renamed.link(there, keyring.as_ref(), settle);
        if there.may_be_volumes().next().is_none() {
            return true;
        }
        let (quarantine, keyring) = match (self.inbox.quarantine(None), keyring) {
            (Ok(Some(quarantine)), Some(keyring)) if !quarantine.bundles.is_empty() => (quarantine, keyring),
            (Err(error), _) => {
                self.say(&format!("{error}. {}", error.hint()));
                return true;
            }
            // Bundles in the inbox may wait for such a volume.
            _ => return there.bundles.is_empty() || self.renamed.is_settled(),
        };
        for found in self.renamed.continued(&quarantine.files(), &keyring, &self.digests) {
            if !self.done.has(found.identity) && !self.bring_back(&quarantine, found.directories, &found.name)
            {
                self.renamed.compare_again();
            }
        }
        self.renamed.is_settled()
    }

    /// Puts some bundles from quarantine back into the inbox. Returns whether any file was put back.
    fn bring_back(&mut self, from: &Quarantine, which: BTreeSet<usize>, name: &str) -> bool {
        match self.inbox.bring_back(from, which.iter().filter_map(|index| from.bundles.get(*index))) {
            Ok(true) => {
                self.say(&format!("back         {}: more files of it have arrived", escape(name)));
                self.more = true;
                true
            }
            Ok(false) => false,
            // The files in the inbox may be sufficient.
            Err(error) => {
                self.say(&format!("{error}. {}", error.hint()));
                false
            }
        }
    }

    /// Looks at all files. Returns the settled sets of files that are due, and whether all files have settled.
    fn look_at(&mut self, sets: Vec<(String, Vec<PathBuf>)>) -> (Vec<(String, Vec<PathBuf>)>, bool) {
        let settle = self.options.settle.duration().unsigned_abs();
        let (mut due, mut at_rest) = (Vec::new(), true);
        for (key, files) in sets {
            // A directory is not a bundle, even if it has the name of one.
            if files.iter().all(|file| file.is_dir() && !file.is_symlink()) {
                continue;
            }
            let look = look(&files);
            let known = self.seen.get(&key);
            let Some(seen) = known.filter(|seen| seen.look == look) else {
                let seen = SeenBundle::changed(look, known);
                self.seen.insert(key, seen);
                at_rest = false;
                continue;
            };
            if seen.since.elapsed() < settle {
                at_rest = false;
                continue;
            }
            let is_due = match &seen.todo {
                Todo::Try => true,
                Todo::Wait => false,
                Todo::TryAt(moment) | Todo::JudgeAt(moment) => Instant::now() >= *moment,
            };
            if is_due {
                due.push((key, files));
            }
        }
        (due, at_rest)
    }

    /// Returns the pause before the retry of a failed rename in the inbox: until the next look, because other programs
    /// usually have a file open only for a short time.
    fn inbox_pause(&self) -> Duration {
        self.options.interval.duration().unsigned_abs().min(RETRY_PAUSE)
    }

    /// Returns the path of the inbox as the user gave it.
    fn shown(&self) -> String {
        self.inbox.path().display().to_string()
    }

    /// Sorts bundles by creation time, the oldest first, so that none counts as a rollback. Bundles without a trusted
    /// signature come last, because their dates mean nothing and they may take a long time.
    fn sort(&self, there: &Inputs, due: &mut [(String, Vec<PathBuf>)]) {
        if due.len() < 2 {
            return;
        }
        let keyring = keyring(self.options).unwrap_or_default();
        due.sort_by_cached_key(|(key, _)| {
            let created = there.trusted_heads(key, &keyring).next().map(|signed| signed.payload().created);
            (created.is_none(), created.or_else(|| named_date(key)), key.clone())
        });
    }

    /// Imports a settled bundle, or records the reason why it waits.
    fn deal_with(&mut self, there: &Inputs, key: &str, files: &[PathBuf]) -> Result<(), Error> {
        if there.heartbeats_named(key).next().is_some() {
            return self.hear(there, key, files);
        }
        let keyring = keyring(self.options)?;
        let Sorted { portion, trusted, lacks, junk } = Sorted::of(there, key, &keyring);
        if let Some(seen) = self.seen.get_mut(key) {
            seen.trusted = trusted;
        }
        let files = portion.files(files);
        // The next round handles the other files of this name.
        self.more |= !matches!(portion, Portion::All);
        if let Some(error) = junk {
            let now = clock::now();
            if !self.unsigned.has_room(now) {
                self.junk.push(Junk { key: key.to_owned(), files: files.to_vec(), error });
                return Ok(());
            }
            self.unsigned.name(now);
        }
        let incomplete = lacks.as_ref().is_some_and(BundleError::is_incomplete);
        if incomplete && self.is_late_or_back(there, key, files)? {
            return Ok(());
        }
        // A copy that was interrupted may be resumed.
        let unfinished = lacks.as_ref().is_some_and(|error| error.is_incomplete() || error.is_short());
        if let Some(error) = lacks
            && unfinished
            && there.parity(key).is_empty()
        {
            let place = format!("{}/", self.inbox.place().display());
            self.wait(there, key, &error.to_string().replace(&place, ""), Todo::Wait, None);
            return Ok(());
        }
        let stray = matches!(portion, Portion::Stray(_));
        let holds_no_bundle =
            stray || UnverifiedBundle::open(&first(there, key)).is_err_and(|error| !error.is_usage());
        let taken = self.inbox.take(files)?;
        if trusted {
            self.say(&format!("importing    {}", escape(key)));
        }
        let tried = ImportAttempt::import(&self.importer, &taken, &self.shown());
        let Some(outcome) = tried.outcome(unfinished, holds_no_bundle) else {
            // If this fails, the files are put back later. The error of the import is more important.
            if let Err(error) = self.inbox.put_back(&taken) {
                self.say(&format!("{error}. {}", error.hint()));
            }
            self.wait_after(there, key, tried);
            return Ok(());
        };
        if outcome == Disposition::Processed {
            self.remember(key, tried.first_bundle, &taken)?;
        }
        // Repairs are reported, because they are the first sign of a failing link.
        for repaired in &tried.repaired {
            self.say(&format!("repaired     {}: {}", escape(key), escape(repaired)));
        }
        let ImportAttempt { category, why, errors, details, .. } = tried;
        let kept = self.keep(key, &taken, BundleVerdict { outcome, category, why, errors, stray, details });
        kept.or_else(|error| self.inbox.put_back(&taken).and(Err(error)))
    }

    /// Handles incomplete files if they belong to a known bundle: removes files of an imported
    /// bundle, and puts a bundle in quarantine back into the inbox. Returns whether it did either.
    fn is_late_or_back(&mut self, there: &Inputs, key: &str, files: &[PathBuf]) -> Result<bool, Error> {
        if self.done.has_all(there, key) {
            self.say(&format!("late         {}: removed files that are no longer needed", escape(key)));
            let taken = self.inbox.take(files)?;
            self.seen.remove(key);
            self.inbox.discard(taken)?;
            return Ok(true);
        }
        let named = self.inbox.quarantine(Some(&escape(key))).map(|quarantine| {
            let all = |quarantine: &Quarantine| (0..quarantine.bundles.len()).collect();
            quarantine.is_some_and(|quarantine| self.bring_back(&quarantine, all(&quarantine), key))
        });
        let found = || -> Result<bool, Error> {
            if named? {
                return Ok(true);
            }
            // Its volumes may be there under other names.
            let Some(quarantine) = self.inbox.quarantine(None)? else { return Ok(false) };
            let keyring = keyring(self.options)?;
            let holding = lacking_in(&quarantine.files(), there, key, &keyring, &self.digests);
            Ok(self.bring_back(&quarantine, holding, key))
        };
        Ok(found().unwrap_or_else(|error| {
            // The files in the inbox may be sufficient.
            self.say(&format!("{error}. {}", error.hint()));
            false
        }))
    }

    /// Leaves a bundle in the inbox if it could not be imported.
    fn wait_after(&mut self, there: &Inputs, key: &str, tried: ImportAttempt) {
        // An incomplete bundle may still become complete, so this is not a failure yet.
        let lacks = matches!(tried.category, Some(Category::Verification | Category::Incomplete));
        let failed = tried.errors.into_iter().next().filter(|_| !lacks);
        let todo = match tried.category {
            Some(Category::Rejected) => Todo::JudgeAt(Instant::now() + RECHECK_PAUSE),
            _ if lacks => Todo::Wait,
            _ => Todo::TryAt(Instant::now() + RETRY_PAUSE),
        };
        self.wait(there, key, &tried.why.unwrap_or_default(), todo, failed);
    }

    /// Records an imported bundle, and puts back volumes that do not belong to it.
    fn remember(
        &mut self,
        key: &str,
        bundle: Option<(Digest, Vec<Volume>)>,
        taken: &TakenFiles,
    ) -> Result<(), Error> {
        let Some((identity, volumes)) = bundle else { return Ok(()) };
        let imported = ImportedBundle { key: key.to_owned(), identity, volumes };
        for file in self.inbox.files(taken)? {
            let number = parse_name(&name_of(&file)).and_then(|(_, number)| number.index());
            let is_beyond = number.is_some_and(|index| index >= imported.volumes.len());
            if is_beyond && !imported.volumes.iter().any(|volume| self.digests.is(&file, volume)) {
                self.inbox.release(taken, &file)?;
            }
        }
        self.done.add(imported);
        self.done.save(self.inbox.own());
        Ok(())
    }

    /// Records a heartbeat and removes its file. The file is kept if a clock caused its rejection, because the clock
    /// may be corrected.
    fn hear(&mut self, there: &Inputs, key: &str, files: &[PathBuf]) -> Result<(), Error> {
        let again = self.seen.get(key).is_some_and(|seen| matches!(seen.todo, Todo::JudgeAt(_)));
        // The next round handles a bundle of this name.
        self.more |= !there.all(key).is_empty();
        let taken = self.inbox.take(files)?;
        let mut rows = Vec::new();
        for file in self.inbox.files(&taken)? {
            let now = clock::now();
            let has_room = self.unsigned.has_room(now);
            match heartbeat::receive(&self.options.import, &file, has_room, again) {
                Ok(row) if row.unsigned && !has_room => self.unsigned.count(1),
                Ok(row) => {
                    if row.unsigned {
                        self.unsigned.name(now);
                    }
                    rows.push(row);
                }
                Err(error) => return self.inbox.put_back(&taken).and(Err(error)),
            }
        }
        let limit = self.options.give_up_after.duration().unsigned_abs();
        if rows.iter().any(|row| row.by_clock) && self.waited.of(key) < limit {
            self.inbox.put_back(&taken)?;
            let why = rows.iter().find_map(|row| row.why.clone()).unwrap_or_default();
            self.wait(there, key, &why, Todo::JudgeAt(Instant::now() + RECHECK_PAUSE), None);
            // `wait` has printed the reason.
            rows.retain(|row| !row.by_clock);
        } else {
            self.seen.remove(key);
            self.inbox.discard(taken)?;
        }
        for row in rows {
            self.say(&row.summary());
            if row.heard.is_some() {
                self.importer.write_metrics(RunNews::None, self.progress);
            }
            if self.options.once {
                self.heartbeats.push(row);
            }
        }
        Ok(())
    }

    /// Leaves a bundle in the inbox, and records the reason and the next action.
    fn wait(&mut self, there: &Inputs, key: &str, why: &str, todo: Todo, failed: Option<Error>) {
        let heartbeats: Vec<PathBuf> = there.heartbeats_named(key).cloned().collect();
        let files = if heartbeats.is_empty() { there.all(key) } else { heartbeats };
        let told = self.seen.get(key).is_some_and(|seen| seen.why == why);
        let has_failed = failed.is_some();
        if !told {
            self.say(&format!("waits        {}", with_name(&escape(key), &escape(why))));
        }
        if let Some(seen) = self.seen.get_mut(key) {
            // Putting the files back must not count as a change.
            seen.look = look(&files);
            why.clone_into(&mut seen.why);
            seen.todo = todo;
            seen.failed = failed;
        }
        if has_failed && !told {
            self.hook(key, "failed", Path::new(""));
        }
    }

    /// Quarantines the files of `junk` together, with one reason.
    fn put_away(&mut self, there: &Inputs) {
        /// The maximum number of names per directory.
        const TOGETHER: usize = 1000;
        let mut junk = std::mem::take(&mut self.junk);
        while !junk.is_empty() {
            let mut some: Vec<Junk> = junk.drain(..junk.len().min(TOGETHER)).collect();
            let files: Vec<PathBuf> = some.iter().flat_map(|junk| junk.files.iter().cloned()).collect();
            let count = files.len();
            let names: Vec<String> = some.iter().map(|junk| escape(&junk.key)).collect();
            match self.put_away_together(&files, &names, &some[0].error) {
                Ok(()) => {
                    self.unsigned.count(count);
                    for Junk { key, .. } in &some {
                        self.seen.remove(key);
                        self.waited.forget(key);
                    }
                    self.errors.push(some.swap_remove(0).error.into());
                }
                Err(error) => {
                    let why = escape(&error.to_string());
                    for Junk { key, .. } in &some {
                        self.wait(there, key, &why, Todo::TryAt(Instant::now() + self.inbox_pause()), None);
                    }
                    self.errors.push(error);
                }
            }
        }
    }

    /// Quarantines some files of `junk`.
    fn put_away_together(
        &mut self,
        files: &[PathBuf],
        names: &[String],
        example: &BundleError,
    ) -> Result<(), Error> {
        let inbox = format!("{}/", self.inbox.place().display());
        let why = escape(&format!("such as: {}", example.to_string().replace(&inbox, "")));
        let bundle = format!("{} that no trusted key signed", format_count(files.len(), "file"));
        let category = Category::Verification;
        let reason = Reason {
            outcome: Disposition::Quarantined,
            bundle: bundle.clone(),
            exit_code: category.exit_code(),
            at: clock::now(),
            errors: vec![serde_json::json!({ "error": why })],
            stray: true,
            details: Details::Unsigned { bundles: names },
        };
        let taken = self.inbox.take(files)?;
        let kept = self.inbox.keep(&taken, "unsigned", &reason, self.options.keep_quarantined);
        let kept = kept.or_else(|error| self.inbox.put_back(&taken).and(Err(error)))?;
        self.say(&format!("{:<12} {bundle}, {why}", "quarantined"));
        self.hook(&bundle, "quarantined", &kept);
        if self.options.once {
            let (outcome, why) = (Disposition::Quarantined, Some(why));
            let exit_code = category.exit_code();
            self.outcomes.push(BundleOutcome { bundle, outcome, exit_code, why, reason: kept });
        }
        Ok(())
    }

    /// Quarantines bundles that have waited too long.
    fn give_up(&mut self, there: &Inputs) -> Result<(), Error> {
        let overdue = overdue(there.keys(), &self.seen, &self.waited, self.options);
        let mut first = Ok(());
        for Overdue { key, trusted, waited, why } in overdue {
            let lacks = self.seen.get(&key).map(|seen| escape(&seen.why)).unwrap_or_default();
            let taken = match self.inbox.take(&there.all(&key)) {
                Ok(taken) => taken,
                Err(error) => {
                    first = first.and(Err(error));
                    continue;
                }
            };
            let never = || BundleError::NeverComplete { bundle: key.clone(), why: lacks.clone() }.into();
            let judged = self.seen.get_mut(&key).and_then(|seen| seen.failed.take());
            let error = judged.unwrap_or_else(never);
            let (category, details) = (Some(error.category()), Details::given_up(why, waited));
            let why = format!("{why}: {lacks}");
            let (outcome, said, errors) = (Disposition::Quarantined, Some(why.clone()), vec![error]);
            let verdict = BundleVerdict { outcome, category, why: said, errors, stray: false, details };
            let kept = self.keep(&key, &taken, verdict);
            match kept.or_else(|error| self.inbox.put_back(&taken).and(Err(error))) {
                Ok(()) if trusted => self.log(Some(&key), Event::GivenUp, &why, false),
                Ok(()) if self.unsigned.has_room(clock::now()) => {
                    self.unsigned.name(clock::now());
                    self.log(Some(&key), Event::GivenUp, &why, true);
                }
                Ok(()) => self.unsigned.count(1),
                // If one cannot be quarantined, the others still are.
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Writes a line to the log for files that no import has logged. They are quarantined even if this fails.
    fn log(&self, key: Option<&str>, event: Event, why: &str, unsigned: bool) {
        let import = &self.options.import;
        let stream = import.acceptance.stream.as_str();
        let entry = LogEntry::new(clock::now(), event, stream).because(why);
        let entry = LogEntry { bundle: key.map(escape), unsigned, ..entry };
        let state = StateDir::open(import.state_dir.as_deref(), Side::Import);
        if let Err(error) = state.and_then(|state| state.log()?.append(&[entry])) {
            self.say(&format!("{error}. {}", error.hint()));
        }
    }

    /// Moves a processed or rejected bundle to its directory.
    fn keep(&mut self, key: &str, taken: &TakenFiles, verdict: BundleVerdict<'_>) -> Result<(), Error> {
        let said = verdict.summary(key);
        let BundleVerdict { outcome, category, why, errors, stray, details } = verdict;
        let most = match outcome {
            Disposition::Processed => self.options.keep_processed,
            Disposition::Quarantined => self.options.keep_quarantined,
        };
        let exit_code = category.map_or(0, Category::exit_code);
        let reason = Reason {
            outcome,
            bundle: escape(key),
            exit_code,
            at: clock::now(),
            errors: errors_as_json(&errors),
            stray,
            details,
        };
        // An import does not log files that are not bundles.
        if outcome == Disposition::Quarantined && category == Some(Category::Usage) {
            self.log(Some(key), Event::Rejected, why.as_deref().unwrap_or_default(), true);
        }
        let kept = self.inbox.keep(taken, &file_name(key), &reason, most)?;
        self.seen.remove(key);
        self.waited.forget(key);
        self.say(&said);
        // Processed bundles have errors, too, if installed data has expired or is too old.
        self.errors.extend(errors);
        self.hook(key, outcome.as_str(), &kept);
        if self.options.once {
            let bundle = key.to_owned();
            self.outcomes.push(BundleOutcome { bundle, outcome, exit_code, why, reason: kept });
        }
        Ok(())
    }

    /// Runs the operator's command. Its failure does not change the outcome.
    fn hook(&mut self, key: &str, result: &str, reason: &Path) {
        let Some(command) = &self.options.exec_outcome else { return };
        let environment = [
            ("TRIVY_FERRY_RESULT", result.to_owned()),
            ("TRIVY_FERRY_BUNDLE", escape(key)),
            ("TRIVY_FERRY_REASON", reason.display().to_string()),
        ];
        if let Err(error) = hook::hook(command, "the bundle has been handled", false, &environment) {
            self.say(&format!("{error}. {}", error.hint()));
            self.errors.push(error);
        }
    }

    fn say(&self, text: &str) {
        self.progress.info(&format!("{} {text}", format_second(clock::now())));
    }

    fn report(self) -> WatchReport {
        let mut errors = self.errors;
        let mut waiting = Vec::new();
        for (bundle, seen) in self.seen {
            waiting.push(WaitingBundle {
                since: self.waited.of(&bundle).as_secs(),
                why: escape(&seen.why),
                bundle,
            });
            errors.extend(seen.failed);
        }
        WatchReport { outcomes: self.outcomes, waiting, heartbeats: self.heartbeats, errors }
    }
}
