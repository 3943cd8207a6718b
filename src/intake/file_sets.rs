//! Finds the files in the inputs that belong together: bundles, their volumes and their parity, by their names
//! and, if these were changed, by their content. All other files are skipped. Signatures are checked elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::bundle::parity::{self, ParityFile};
use crate::bundle::volumes::{self, Volume, VolumeNumber, beside};
use crate::bundle::{
    BundleError, Heartbeat, MANIFEST, Payload, SignedBundle, UnverifiedBundle, VerifiedBundle, begins_with,
};
use crate::error::Error;
use crate::intake::namesakes::{Digests, Look};
use crate::intake::renamed::{MAX_PARITY, RenamedFiles, Search};
use crate::intake::skipped::{NOT_NAMED, SkippedFile, SkippedFiles};
use crate::trust::keyring::Keyring;
use crate::util::text::{escape, parse_stamp};

/// The files in the inputs.
#[derive(Default)]
pub(crate) struct Inputs {
    /// Possible bundles and heads, in the order of their names.
    pub(crate) bundles: Vec<PathBuf>,
    /// Files that do not belong to a bundle.
    pub(crate) ignored: SkippedFiles,
    /// Heartbeats, which only `watch` reads.
    pub(crate) heartbeats: Vec<PathBuf>,
    /// Whether the input is one file that the user named, so that any problem with it is an error.
    pub(crate) is_one_file: bool,
    /// The files that belong together, by the name of the bundle.
    sets: BTreeMap<String, FileSet>,
    /// The number of files in `sets`.
    files: usize,
    /// The number of sets without a head.
    strays: usize,
    /// The number of files with unknown names whose beginning was read.
    sniffed: usize,
    look: Look,
    /// Files with unknown names.
    renamed: RenamedFiles,
    /// Other files beside a named bundle. Its volumes are among them if they were renamed.
    beside: RenamedFiles,
    /// Whether renamed volumes were assigned to their heads already, so that no others are searched for.
    is_linked: bool,
}

/// A volume that has another name than its head.
pub(crate) struct LinkedVolume {
    /// The name of the bundle.
    pub(crate) key: String,
    pub(crate) number: VolumeNumber,
    pub(crate) path: PathBuf,
}

/// The limit of bundles and heads that are read at once.
const MAX_HEADS: usize = 10_000;
/// The limit of files: heads, volumes and parity.
const MAX_FILES: usize = 20_000;
/// The limit of bundles without a head.
const MAX_STRAYS: usize = 1_000;
/// The limit of heartbeats.
const MAX_HEARTBEATS: usize = 1_000;
/// The limit of files with unknown names whose beginning is read.
const MAX_RENAMED: usize = 4_096;
/// The suffixes that programs give to files that they are still writing.
const UNFINISHED: &[&str] =
    &[".partial", ".part", ".filepart", ".tmp", ".temp", ".crdownload", ".download", ".upload", ".uploading"];
/// The reason for skipping a heartbeat.
const HEARTBEAT: &str = "a heartbeat, which `watch` reads";

/// The passes over the files of directories. Files of a head are first, so that other files cannot use up the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Heads,
    /// Volumes and parity of a head that was found.
    Parts,
    /// Volumes and parity without a head.
    Strays,
}

/// The files of one bundle.
#[derive(Default)]
struct FileSet {
    /// The bundle, or its head.
    first: Vec<PathBuf>,
    /// Volumes after a head.
    volumes: BTreeMap<VolumeNumber, Vec<PathBuf>>,
    parity: Vec<PathBuf>,
}

impl FileSet {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.volumes.is_empty() && self.parity.is_empty()
    }
}

impl Inputs {
    /// Reads directories, and named files with the files that belong to them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the only input is a volume or a parity file, or this user may not read a directory;
    /// [`Error::Unexpected`] if a directory cannot be read for another reason.
    pub(crate) fn read(inputs: &[PathBuf]) -> Result<Self, Error> {
        Inputs::read_with_digests(inputs, &Digests::default())
    }

    /// Reads inputs like [`Inputs::read`], and keeps the digests of files for the next call.
    ///
    /// # Errors
    /// [`Error::Usage`] if the only input is a volume or a parity file, or this user may not read a directory;
    /// [`Error::Unexpected`] if a directory cannot be read for another reason.
    pub(crate) fn read_with_digests(inputs: &[PathBuf], digests: &Digests) -> Result<Self, Error> {
        let mut found = Inputs { look: Look::with(digests), ..Inputs::default() };
        let is_directory = |input: &&PathBuf| fs::metadata(input).is_ok_and(|metadata| metadata.is_dir());
        let (directories, files): (Vec<&PathBuf>, Vec<&PathBuf>) = inputs.iter().partition(is_directory);
        for turn in [Turn::Heads, Turn::Parts, Turn::Strays] {
            for directory in &directories {
                found.read_directory(directory, turn)?;
            }
        }
        for input in files {
            if let ([_], Some(part)) = (inputs, part(input)) {
                return Err(Error::usage(
                    format!("{} is {part} of a bundle", input.display()),
                    "Name its head volume, which ends in .tar.000, or the directory that holds all its files.",
                ));
            } else {
                found.take(input.clone());
                found.take_beside(input);
            }
        }
        found.link_parity();
        found.is_one_file = directories.is_empty() && found.bundles.len() == 1;
        found.bundles.sort();
        Ok(found)
    }

    /// Adds the files of a directory that belong to this pass. Another user may have put any number of files there,
    /// so the number of files is limited, and the others are counted as skipped.
    fn read_directory(&mut self, directory: &Path, turn: Turn) -> Result<(), Error> {
        let failed = || {
            |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::PermissionDenied => Error::usage(
                    format!("this user may not read the directory {}", directory.display()),
                    "Run the command as a user who can read it, or mount the medium for this user.",
                ),
                _ => Error::unexpected(format!("reading the directory {}", directory.display()))(error),
            }
        };
        for entry in fs::read_dir(directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if turn == Turn::Heads && Heartbeat::is_named(&name) && self.heartbeats.len() < MAX_HEARTBEATS {
                self.heartbeats.push(entry.path());
            }
            let is_file = || entry.file_type().is_ok_and(|it| it.is_file());
            match why_skipped(&name) {
                // It may be a file of a bundle that was renamed.
                Some(NOT_NAMED) if turn == Turn::Heads && is_file() => self.take_renamed(entry.path()),
                Some(NOT_NAMED) if turn == Turn::Heads => {
                    let is_directory = entry.file_type().is_ok_and(|it| it.is_dir());
                    let why = if is_directory { "a directory" } else { "not a regular file" };
                    self.ignored.add(SkippedFile { name: escape(&name), why: why.into() });
                }
                Some(why) if turn == Turn::Heads => {
                    self.ignored.add(SkippedFile { name: escape(&name), why: why.into() });
                }
                None if self.turn_of(&entry.path()) == turn => self.take_if_room(entry.path(), turn),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds a file with an unknown name: a head, a heartbeat, or a possible volume.
    fn take_renamed(&mut self, path: PathBuf) {
        self.sniffed += 1;
        let is_looked_into = self.sniffed <= MAX_RENAMED;
        if is_looked_into && begins_with(&path, MANIFEST) {
            return self.take_if_room(path, Turn::Heads);
        }
        let name = name_of(&path);
        if is_looked_into && self.heartbeats.len() < MAX_HEARTBEATS && Heartbeat::begins(&path) {
            self.ignored.add(SkippedFile { name: escape(&name), why: HEARTBEAT.into() });
            return self.heartbeats.push(path);
        }
        if !self.renamed.add(path) {
            self.ignored.add(SkippedFile { name: escape(&name), why: NOT_NAMED.into() });
        }
    }

    fn turn_of(&self, path: &Path) -> Turn {
        let has_head =
            || key(path).and_then(|key| self.sets.get(&key)).is_some_and(|set| !set.first.is_empty());
        match part(path) {
            None => Turn::Heads,
            Some(_) if has_head() => Turn::Parts,
            Some(_) => Turn::Strays,
        }
    }

    fn take_if_room(&mut self, path: PathBuf, turn: Turn) {
        let is_new = || key(&path).is_some_and(|key| !self.sets.contains_key(&key));
        let has_room = match turn {
            Turn::Heads => self.bundles.len() < MAX_HEADS,
            Turn::Parts => self.files < MAX_FILES,
            Turn::Strays => self.files < MAX_FILES && (self.strays < MAX_STRAYS || !is_new()),
        };
        if !has_room {
            let why = "too many files in the inputs".into();
            return self.ignored.add(SkippedFile { name: escape(&name_of(&path)), why });
        }
        self.strays += usize::from(turn == Turn::Strays && is_new());
        self.take(path);
    }

    /// Adds only those files beside a named bundle that belong to it.
    fn take_beside(&mut self, bundle: &Path) {
        let directory = bundle.parent().filter(|directory| !directory.as_os_str().is_empty());
        let Ok(entries) = fs::read_dir(directory.unwrap_or(Path::new("."))) else { return };
        for path in entries.flatten().map(|entry| bundle.with_file_name(entry.file_name())) {
            if part(&path).is_some() && key(&path) == key(bundle) {
                self.take(path);
            } else if why_skipped(&name_of(&path)).is_none_or(|why| why == NOT_NAMED) && path != bundle {
                self.beside.add(path);
            }
        }
    }

    /// Assigns parity files with another name than their head to that head, by the identity of the bundle in them.
    /// A head that cannot be read is recognized by its length.
    fn link_parity(&mut self) {
        let renamed = self.renamed.parity().iter().chain(self.beside.parity());
        let headless = self.sets.values().filter(|set| set.first.is_empty()).flat_map(|set| &set.parity);
        let loose: Vec<PathBuf> = renamed.chain(headless).take(MAX_PARITY).cloned().collect();
        let mut identities = BTreeMap::new();
        for path in loose {
            let Ok(parity) = ParityFile::open(&path) else { continue };
            let length = parity.shape().files().first().copied();
            let has_length = |head: &Path| fs::metadata(head).ok().map(|metadata| metadata.len()) == length;
            let mut is_its = |head: &&PathBuf| {
                let has_room = identities.len() < MAX_PARITY || identities.contains_key(*head);
                let read = || UnverifiedBundle::open(head).ok().map(|head| head.identity());
                has_room
                    && match identities.entry((*head).clone()).or_insert_with(read) {
                        Some(identity) => *identity == parity.bundle(),
                        None => has_length(head),
                    }
            };
            // Heads with the right length are tried first, so that few have to be read.
            let (likely, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
                self.bundles.iter().partition(|head| has_length(head));
            let head = likely.into_iter().chain(others).find(|head| is_its(head)).and_then(|head| key(head));
            let Some(head) = head else { continue };
            self.sets.values_mut().for_each(|set| set.parity.retain(|other| *other != path));
            self.sets.retain(|_, set| !set.is_empty());
            self.renamed.uses(&path);
            self.sets.entry(head).or_default().parity.push(path);
        }
    }

    fn take(&mut self, path: PathBuf) {
        let Some(key) = key(&path) else { return };
        let name = name_of(&path);
        self.files += 1;
        let set = self.sets.entry(key).or_default();
        if parity::parse_name(&name).is_some() {
            set.parity.push(path);
        } else if let Some((_, number)) =
            volumes::parse_name(&name).filter(|(_, number)| *number != VolumeNumber::HEAD)
        {
            set.volumes.entry(number).or_default().push(path);
        } else {
            set.first.push(path.clone());
            self.bundles.push(path);
        }
    }

    /// Finds the volumes of a bundle.
    ///
    /// # Errors
    /// [`BundleError::Volumes`] if a volume is missing, cannot be opened, or has a wrong length.
    pub(crate) fn complete(&self, signed: SignedBundle) -> Result<VerifiedBundle, BundleError> {
        let find = self.volumes_of(signed.path(), signed.payload());
        signed.with_volumes(&find)
    }

    /// Returns a function that finds the volumes of a bundle. If several files have the name of a volume, it chooses
    /// the genuine one: anyone may add another, in another directory or with other letter case.
    fn volumes_of<'i>(
        &'i self,
        head: &Path,
        payload: &Payload,
    ) -> impl Fn(VolumeNumber) -> Option<PathBuf> + use<'i> {
        let set = key(head).and_then(|key| self.sets.get(&key));
        let (volumes, head) = (payload.volumes.clone(), head.to_path_buf());
        let wanted = if self.is_linked { 0 } else { volumes.len() };
        let search = self.search(wanted);
        let beside_it = self.beside.search(volumes.len(), &self.look, std::iter::empty());
        move |number| {
            let volume = volumes.get(number.index()?)?;
            let expected = beside(&head, number);
            let named = set.and_then(|set| set.volumes.get(&number));
            let named = named.and_then(|paths| self.look.right(expected.as_deref(), paths, volume));
            let renamed = || {
                let (number, any) = (number.to_string(), |_: &Path| true);
                search.find(&number, volume, &any).or_else(|| beside_it.find(&number, volume, &any))
            };
            // A file with its name and length is enough here, because its digest is compared later. If a renamed file
            // has the same length, the digest decides now.
            let is_likely = |path: &&PathBuf| {
                has_length(path, volume) && (!search.has_size_of(volume) || self.look.is(path, volume))
            };
            named.as_ref().filter(is_likely).cloned().or_else(renamed).or(named)
        }
    }

    fn search(&self, volumes: usize) -> Search<'_> {
        self.renamed.search(volumes, &self.look, self.misnamed().cloned())
    }

    /// Returns files that may be volumes of a head with another name: volumes without a head, and files named like a
    /// bundle, because a gateway may have appended `.tar` to the name of a volume.
    fn misnamed(&self) -> impl Iterator<Item = &PathBuf> {
        let strays = self.sets.values().filter(|set| set.first.is_empty());
        strays.flat_map(|set| set.volumes.values().flatten()).chain(&self.bundles)
    }

    /// Returns the files that may be volumes of a head with another name.
    pub(crate) fn may_be_volumes(&self) -> impl Iterator<Item = &PathBuf> {
        self.renamed.files().iter().chain(self.misnamed())
    }

    /// Finds volumes that have other names than their heads, by the payloads that trusted keys signed. Only the
    /// `usable` files are read. If bundles share a volume, it is assigned to the newest.
    pub(crate) fn find_links(&self, keyring: &Keyring, usable: &BTreeSet<PathBuf>) -> Vec<LinkedVolume> {
        let (mut links, mut linked) = (Vec::new(), BTreeSet::new());
        if usable.is_empty() {
            return links;
        }
        let in_volumes = |signed: &SignedBundle| !signed.payload().volumes.is_empty();
        let mut heads = Vec::new();
        for key in self.keys() {
            let signed = self.trusted_heads(key, keyring).filter(in_volumes);
            heads.extend(signed.map(|signed| (signed.payload().created, key, signed.path().to_path_buf())));
        }
        heads.sort_by(|a, b| b.cmp(a));
        for (_, key, head) in heads {
            let Ok(signed) = UnverifiedBundle::open(&head).and_then(|head| head.signed(keyring)) else {
                continue;
            };
            let search = self.search(signed.payload().volumes.len());
            for (index, volume) in signed.payload().volumes.iter().enumerate() {
                let is_free = |path: &Path| usable.contains(path) && !linked.contains(path);
                let Some(number) = VolumeNumber::at(index) else { break };
                if let Some(path) = search.find(&number.to_string(), volume, &is_free) {
                    linked.insert(path.clone());
                    links.push(LinkedVolume { key: key.to_owned(), number, path });
                }
            }
        }
        links
    }

    /// Assigns these volumes to their heads. After that, no other renamed volumes are searched for.
    pub(crate) fn link_volumes(&mut self, links: &[LinkedVolume]) {
        self.is_linked = true;
        for LinkedVolume { key: of, number, path } in links {
            if let Some(before) = key(path)
                && let Some(set) = self.sets.get_mut(&before)
            {
                set.first.retain(|other| other != path);
                set.volumes.values_mut().for_each(|paths| paths.retain(|other| other != path));
                set.volumes.retain(|_, paths| !paths.is_empty());
                if set.is_empty() {
                    self.sets.remove(&before);
                }
            }
            self.bundles.retain(|other| other != path);
            self.renamed.uses(path);
            self.sets.entry(of.clone()).or_default().volumes.entry(*number).or_default().push(path.clone());
        }
    }

    /// Returns the missing volumes of a bundle.
    pub(crate) fn lacking(&self, signed: &SignedBundle) -> Vec<(VolumeNumber, Volume)> {
        let find = self.volumes_of(signed.path(), signed.payload());
        let volumes = signed.payload().volumes.iter().enumerate();
        let numbered = volumes.filter_map(|(index, volume)| Some((VolumeNumber::at(index)?, *volume)));
        numbered
            .filter(|(number, volume)| !find(*number).is_some_and(|path| has_length(&path, volume)))
            .collect()
    }

    /// Returns the heartbeats with this name.
    pub(crate) fn heartbeats_named(&self, name: &str) -> impl Iterator<Item = &PathBuf> {
        self.heartbeats
            .iter()
            .filter(move |file| file.file_name().is_some_and(|of| of.to_string_lossy() == name))
    }

    /// Returns the files with unknown names that are not volumes of a completed bundle.
    pub(crate) fn not_named(&self) -> impl Iterator<Item = SkippedFile> {
        let skipped = |path: &PathBuf| {
            let is_parity = self.renamed.parity().contains(path);
            let why = if is_parity { "parity of a bundle whose head is missing" } else { NOT_NAMED };
            SkippedFile { name: escape(&name_of(path)), why: why.into() }
        };
        self.renamed.unused().map(skipped)
    }

    /// Whether a file with another name is a volume of a completed bundle.
    pub(crate) fn is_renamed_volume(&self, path: &Path) -> bool {
        self.renamed.is_used(path) || self.beside.is_used(path)
    }

    /// Returns the files with unknown names that may be volumes.
    pub(crate) fn like_volumes(&self) -> impl Iterator<Item = &PathBuf> {
        self.renamed.like_volumes()
    }

    /// Returns the bundles and heads with this name that trusted keys signed.
    pub(crate) fn trusted_heads(&self, key: &str, keyring: &Keyring) -> impl Iterator<Item = SignedBundle> {
        let open = move |head| UnverifiedBundle::open(head).and_then(|head| head.signed(keyring)).ok();
        self.heads(key).iter().filter_map(move |head| open(head))
    }

    /// Returns the files of this bundle: its head, its volumes, and the parity with its identity.
    pub(crate) fn own(&self, key: &str, bundle: &VerifiedBundle) -> Vec<PathBuf> {
        let volume = self.volumes_of(bundle.path(), bundle.payload());
        let volumes =
            (0..bundle.payload().volumes.len()).filter_map(|index| volume(VolumeNumber::at(index)?));
        let is_its =
            |path: &&PathBuf| ParityFile::open(path).is_ok_and(|parity| parity.bundle() == bundle.identity());
        let parity = self.parity(key).iter().filter(is_its).cloned();
        std::iter::once(bundle.path().to_path_buf()).chain(volumes).chain(parity).collect()
    }

    /// Reads the existing volumes of an incomplete bundle, and returns an error that names the damaged ones too.
    pub(crate) fn bad_volumes(&self, head: &Path, keyring: &Keyring) -> Option<BundleError> {
        let signed = UnverifiedBundle::open(head).and_then(|head| head.signed(keyring)).ok()?;
        signed.bad_volumes(&self.volumes_of(signed.path(), signed.payload()))
    }

    /// Returns the paths of the files of a bundle, preferably with these lengths in bytes: the only file, or the
    /// head and its volumes. `None` for missing files.
    pub(crate) fn files(&self, key: &str, lengths: &[u64]) -> Vec<Option<PathBuf>> {
        let set = self.sets.get(key);
        let is_head = |path: &&PathBuf| volumes::parse_name(&name_of(path)).is_some() == (lengths.len() > 1);
        let first: Vec<PathBuf> =
            set.map_or_else(Vec::new, |set| set.first.iter().filter(is_head).cloned().collect());
        let behind = |index| set?.volumes.get(&VolumeNumber::at(index)?).map(Vec::as_slice);
        let all = |index: usize| index.checked_sub(1).map_or(Some(&first[..]), behind);
        lengths.iter().enumerate().map(|(index, length)| best(all(index)?, *length)).collect()
    }

    /// Returns the same as [`Inputs::files`], but for a bundle that a trusted key signed. `None` if no head was found
    /// that lists these lengths.
    pub(crate) fn trusted_files(
        &self,
        key: &str,
        keyring: &Keyring,
        lengths: &[u64],
    ) -> Option<Vec<Option<PathBuf>>> {
        let has_lengths = |signed: &SignedBundle| {
            let payload = signed.payload();
            let behind = payload.volumes.iter().map(|volume| volume.size);
            std::iter::once(payload.head_length()).chain(behind).eq(lengths.iter().copied())
        };
        let signed = self.trusted_heads(key, keyring).find(has_lengths)?;
        let volume = self.volumes_of(signed.path(), signed.payload());
        let behind = (0..lengths.len().saturating_sub(1)).map(|index| volume(VolumeNumber::at(index)?));
        Some(std::iter::once(Some(signed.path().to_path_buf())).chain(behind).collect())
    }

    /// Returns the names of the bundles that have files in the inputs.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// Returns the files of a bundle, the bundles and heads first.
    pub(crate) fn all(&self, key: &str) -> Vec<PathBuf> {
        let Some(set) = self.sets.get(key) else { return Vec::new() };
        let behind = set.volumes.values().flatten();
        set.first.iter().chain(behind).chain(&set.parity).cloned().collect()
    }

    /// Returns the bundles and heads with this name.
    pub(crate) fn heads(&self, key: &str) -> &[PathBuf] {
        self.sets.get(key).map_or(&[], |set| &set.first)
    }

    /// Returns the parity files of a bundle.
    pub(crate) fn parity(&self, key: &str) -> &[PathBuf] {
        self.sets.get(key).map_or(&[], |set| &set.parity)
    }

    /// Returns the names of the bundles with parity files.
    pub(crate) fn with_parity(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().filter(|(_, set)| !set.parity.is_empty()).map(|(key, _)| key.as_str())
    }

    /// Returns the volumes of a bundle after the head.
    pub(crate) fn volumes(&self, key: &str) -> impl Iterator<Item = (VolumeNumber, &Path)> {
        let volumes = self.sets.get(key).into_iter().flat_map(|set| &set.volumes);
        volumes.flat_map(|(number, paths)| paths.iter().map(|path| (*number, path.as_path())))
    }

    /// Whether all found volumes of a bundle are among these.
    pub(crate) fn has_only(&self, key: &str, volumes: &[Volume]) -> bool {
        let of = |number: VolumeNumber| volumes.get(number.index()?);
        // A wrong length is found without reading.
        self.volumes(key).all(|(number, path)| of(number).is_some_and(|volume| has_length(path, volume)))
            && self
                .volumes(key)
                .all(|(number, path)| of(number).is_some_and(|volume| self.look.is(path, volume)))
    }

    /// Returns the error for a bundle if its head is missing.
    pub(crate) fn headless_one(&self, key: &str) -> Option<BundleError> {
        self.sets.get(key).and_then(without_head)
    }

    /// Returns the bundles whose head is missing.
    pub(crate) fn headless(&self) -> impl Iterator<Item = (&str, BundleError)> {
        let is_used = |set: &FileSet| {
            let mut volumes = set.volumes.values().flatten().peekable();
            volumes.peek().is_some() && volumes.all(|volume| self.is_renamed_volume(volume))
        };
        let missed = self.sets.iter().filter(move |(_, set)| !is_used(set));
        missed.filter_map(|(key, set)| Some((key.as_str(), without_head(set)?)))
    }
}

/// Returns the error for a set of files without a head.
fn without_head(set: &FileSet) -> Option<BundleError> {
    if !set.first.is_empty() {
        return None;
    }
    let parts = set.volumes.values().flatten().chain(&set.parity);
    let one = parts.clone().next()?;
    let name = name_of(one);
    let bundle = parity::parse_name(&name).or(volumes::parse_name(&name).map(|(of, _)| of.to_owned()))?;
    let path = one.with_file_name(volumes::name(&bundle, VolumeNumber::HEAD));
    Some(BundleError::NoHead { path, parts: parts.count() })
}

/// Returns the first file with this length, else the first.
fn best(paths: &[PathBuf], length: u64) -> Option<PathBuf> {
    let fits = |path: &&PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.len() == length);
    paths.iter().find(fits).or(paths.first()).cloned()
}

/// Returns the last component of a path.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Describes a file whose name is that of a volume after a head, or of a parity file.
fn part(path: &Path) -> Option<String> {
    let name = name_of(path);
    let volume = volumes::parse_name(&name).filter(|(_, number)| *number != VolumeNumber::HEAD);
    let parity = || parity::parse_name(&name).map(|_| "parity".to_owned());
    volume.map(|(_, number)| format!("volume {number}")).or_else(parity)
}

/// Returns the name of the bundle that a file belongs to, in lower case because FAT ignores case.
pub(crate) fn key(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let bundle = parity::parse_name(&name).or(volumes::parse_name(&name).map(|(of, _)| of.to_owned()));
    Some(bundle.unwrap_or(name))
}

/// Returns the date in a name that `export` chose: `STREAM-YYYYMMDDthhmmssz.tar`.
pub(crate) fn named_date(key: &str) -> Option<Timestamp> {
    let (_, date) = key.strip_suffix(".tar")?.rsplit_once('-')?;
    parse_stamp(date)
}

/// Returns the reason to skip a file because of its name. `name (1).tar`, as browsers write it, is accepted.
pub(crate) fn why_skipped(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    if name.starts_with("._") {
        Some("metadata of macOS")
    } else if UNFINISHED.iter().any(|end| lower.ends_with(end)) {
        Some("an unfinished copy or export")
    } else if name.starts_with('.') {
        Some("hidden")
    } else if Heartbeat::is_named(name) {
        Some(HEARTBEAT)
    } else if !lower.ends_with(".tar")
        && volumes::parse_name(name).is_none()
        && parity::parse_name(name).is_none()
    {
        Some(NOT_NAMED)
    } else {
        None
    }
}

/// Whether a file has the length of a volume.
fn has_length(path: &Path, volume: &Volume) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.len() == volume.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_parsed_from_the_name() {
        let wanted = "2026-11-21T09:15:00Z".parse().unwrap();
        assert_eq!(named_date("default-20261121t091500z.tar"), Some(wanted));
        assert_eq!(named_date("a-b-20261121t091500z.tar"), Some(wanted));
        for none in ["default.tar", "default-20261121.tar", "default-20261121t091500z.par.001", ""] {
            assert_eq!(named_date(none), None, "{none}");
        }
    }

    #[test]
    fn files_are_skipped_by_their_names() {
        for name in
            ["a.tar", "default-20261121t091500z (1).tar", "A.TAR", "a.tar.000", "A.TAR.017", "a.par.001"]
        {
            assert_eq!(why_skipped(name), None, "{name}");
        }
        for name in [
            "._a.tar",
            "a.tar.partial",
            "a.tar.filepart",
            "a.tar.000.TMP",
            ".hidden.tar",
            "System Volume Information",
            "a.zip",
        ] {
            assert!(why_skipped(name).is_some(), "{name}");
        }
    }
}
