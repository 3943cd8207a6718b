//! Finds out which files in the inputs belong together: bundles, their volumes and their parity, by their names
//! and, if these were changed, by what is in them. All other files are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::parity::{self, ParityFile};
use crate::bundle::volumes::{self, Volume, VolumeNumber, beside};
use crate::bundle::{
    BundleError, Heartbeat, MANIFEST, Payload, SignedBundle, UnverifiedBundle, VerifiedBundle, begins_with,
};
use crate::error::Error;
use crate::intake::namesakes::{Digests, Look};
use crate::intake::renamed::{MAX_PARITY, RenamedFiles, Search};
use crate::trust::keyring::Keyring;
use crate::util::text::{escape, parse_stamp};

/// A file that was skipped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SkippedFile {
    /// Its name.
    pub name: String,
    /// Why it was skipped.
    pub why: String,
}

/// What lies there.
#[derive(Default)]
pub(crate) struct Inputs {
    /// What may be a bundle or the head of one, in the order of the names.
    pub(crate) bundles: Vec<PathBuf>,
    /// What is none of our business.
    pub(crate) ignored: SkippedFiles,
    /// Heartbeats, which are ignored by all but `watch`.
    pub(crate) heartbeats: Vec<PathBuf>,
    /// Whether all of it is one file that the user named: whatever is wrong with it is said.
    pub(crate) is_one_file: bool,
    /// What belongs together, by the bundle's name.
    sets: BTreeMap<String, FileSet>,
    /// How many files are in them.
    files: usize,
    /// How many of them have no head here.
    strays: usize,
    /// How many files of unknown names were looked into.
    sniffed: usize,
    look: Look,
    /// Files whose names say nothing.
    renamed: RenamedFiles,
    /// Other files beside a bundle that was named, among which are its volumes if they were renamed.
    beside: RenamedFiles,
    /// Whether renamed volumes were put to their heads, so that no others are looked for.
    is_linked: bool,
}

/// A volume that has another name than its head.
pub(crate) struct LinkedVolume {
    /// The bundle's name.
    pub(crate) key: String,
    pub(crate) number: VolumeNumber,
    pub(crate) path: PathBuf,
}

/// The most bundles and heads that are looked at together.
const MAX_HEADS: usize = 10_000;
/// The most files: heads, volumes and parity.
const MAX_FILES: usize = 20_000;
/// The most bundles of which parts are here and no head.
const MAX_STRAYS: usize = 1_000;
/// The most heartbeats.
const MAX_HEARTBEATS: usize = 1_000;
/// The most files of unknown names into which is looked for how they begin.
const MAX_RENAMED: usize = 4_096;
/// How names end that programs give to a file while they still write it.
const UNFINISHED: &[&str] =
    &[".partial", ".part", ".filepart", ".tmp", ".temp", ".crdownload", ".download", ".upload", ".uploading"];
/// What is said of a file whose name says nothing.
const NOT_NAMED: &str = "not named .tar";
/// What is said of a heartbeat where no heartbeats are read.
const HEARTBEAT: &str = "a heartbeat, which `watch` reads";

/// In which order the files of folders are taken: what belongs to a head comes before what does not, so
/// that junk crowds out no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Heads,
    /// Volumes and parity of a head that is here.
    Parts,
    /// The same of none.
    Strays,
}

/// Files that were skipped: the first of them by name, and the number of the others. A directory may hold
/// more than anybody would read.
#[derive(Default)]
pub(crate) struct SkippedFiles {
    named: Vec<SkippedFile>,
    more: usize,
}

impl SkippedFiles {
    /// How many are named.
    const MAX: usize = 100;

    /// Adds one.
    pub(crate) fn add(&mut self, ignored: SkippedFile) {
        self.named.push(ignored);
        if self.named.len() > 2 * Self::MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.named.sort_by(|a, b| a.name.cmp(&b.name));
        self.more += self.named.len().saturating_sub(Self::MAX);
        self.named.truncate(Self::MAX);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.named.len() + self.more
    }

    /// Those that are worth a remark. A public key lies beside the bundle on the medium of every first trip.
    pub(crate) fn remarks(self) -> Vec<SkippedFile> {
        let mut list = self.list();
        list.retain(|file| file.why != NOT_NAMED || !file.name.to_lowercase().ends_with(".pub"));
        list
    }

    /// All of them as a list, of which the last entry may stand for many.
    pub(crate) fn list(mut self) -> Vec<SkippedFile> {
        self.cut();
        if self.more > 0 {
            self.named.push(SkippedFile {
                name: format!("{} more", self.more),
                why: "not named here, because they are many".into(),
            });
        }
        self.named
    }
}

/// The files of one bundle.
#[derive(Default)]
struct FileSet {
    /// The whole, or the head.
    first: Vec<PathBuf>,
    /// Volumes behind a head.
    volumes: BTreeMap<VolumeNumber, Vec<PathBuf>>,
    parity: Vec<PathBuf>,
}

impl FileSet {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.volumes.is_empty() && self.parity.is_empty()
    }
}

impl Inputs {
    /// Looks through folders, and takes files with what belongs to them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the only input is a part of a bundle, or a directory may not be read by this
    /// user; [`Error::Unexpected`] if a directory cannot be read for another reason.
    pub(crate) fn read(inputs: &[PathBuf]) -> Result<Self, Error> {
        Inputs::read_with_digests(inputs, &Digests::default())
    }

    /// The same, for who looks again and again: what was read before is remembered.
    ///
    /// # Errors
    /// The errors of [`Inputs::read`].
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
                    "Name its head, whose name ends in .tar.000, or the folder in which all of it lies.",
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

    /// Takes what has its turn in a folder. Whoever may put files there can put any number: what is looked
    /// at together is bounded, and the rest is named and counted.
    fn read_directory(&mut self, directory: &Path, turn: Turn) -> Result<(), Error> {
        let failed = || {
            |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::PermissionDenied => Error::usage(
                    format!("the folder {} may not be read by this user", directory.display()),
                    "Run the command as a user who may, or mount the medium for this one.",
                ),
                _ => Error::unexpected(format!("reading the folder {}", directory.display()))(error),
            }
        };
        for entry in fs::read_dir(directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if turn == Turn::Heads && Heartbeat::is_named(&name) && self.heartbeats.len() < MAX_HEARTBEATS {
                self.heartbeats.push(entry.path());
            }
            match why_skipped(&name) {
                // It may have been renamed on its way.
                Some(NOT_NAMED) if turn == Turn::Heads && entry.file_type().is_ok_and(|it| it.is_file()) => {
                    self.take_renamed(entry.path());
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

    /// Takes a file whose name says nothing: a head, a heartbeat, or what may be a volume.
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
            let why = "there are too many files to look at it with the others".into();
            return self.ignored.add(SkippedFile { name: escape(&name_of(&path)), why });
        }
        self.strays += usize::from(turn == Turn::Strays && is_new());
        self.take(path);
    }

    /// Takes what belongs to a bundle that was named, and nothing else that lies there.
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

    /// Puts parity that has another name than its head to that head: it says of which bundle it is. A head that cannot
    /// be read is known by its length.
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
            // Those of the right length first: few have to be read.
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

    /// Puts a bundle together.
    ///
    /// # Errors
    /// [`BundleError::Volumes`] if a volume is missing, cannot be opened, or has another length than was
    /// signed.
    pub(crate) fn complete(&self, signed: SignedBundle) -> Result<VerifiedBundle, BundleError> {
        let find = self.volumes_of(signed.path(), signed.payload());
        signed.with_volumes(&find)
    }

    /// Where the volumes of a bundle lie. Of one that lies there more than once, the one is taken that was signed:
    /// anybody may put another beside it, in a folder of their own or with another case of its letters.
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
            // One of its name and length is compared later, byte by byte, unless another may have come for it.
            let is_likely = |path: &&PathBuf| {
                has_length(path, volume) && (!search.has_size_of(volume) || self.look.is(path, volume))
            };
            named.as_ref().filter(is_likely).cloned().or_else(renamed).or(named)
        }
    }

    fn search(&self, volumes: usize) -> Search<'_> {
        self.renamed.search(volumes, &self.look, self.misnamed().cloned())
    }

    /// Volumes that may belong to a head of another name: those without one, and what is named like a bundle, since a
    /// gateway may have put a name's end behind the number.
    fn misnamed(&self) -> impl Iterator<Item = &PathBuf> {
        let strays = self.sets.values().filter(|set| set.first.is_empty());
        strays.flat_map(|set| set.volumes.values().flatten()).chain(&self.bundles)
    }

    /// The files that may be volumes under another name than that of their head.
    pub(crate) fn may_be_volumes(&self) -> impl Iterator<Item = &PathBuf> {
        self.renamed.files().iter().chain(self.misnamed())
    }

    /// Finds volumes that have other names than their heads, by what trusted keys signed. Only the `usable` files are
    /// looked at, and of bundles that have a volume in common the newest gets it.
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

    /// Puts these volumes to their heads. From then on no others are looked for.
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

    /// The volumes of a bundle that are not there.
    pub(crate) fn lacking(&self, signed: &SignedBundle) -> Vec<(VolumeNumber, Volume)> {
        let find = self.volumes_of(signed.path(), signed.payload());
        let volumes = signed.payload().volumes.iter().enumerate();
        let numbered = volumes.filter_map(|(index, volume)| Some((VolumeNumber::at(index)?, *volume)));
        numbered
            .filter(|(number, volume)| !find(*number).is_some_and(|path| has_length(&path, volume)))
            .collect()
    }

    /// The heartbeats of a name.
    pub(crate) fn heartbeats_named(&self, name: &str) -> impl Iterator<Item = &PathBuf> {
        self.heartbeats
            .iter()
            .filter(move |file| file.file_name().is_some_and(|of| of.to_string_lossy() == name))
    }

    /// The files of unknown names that are no volumes of what was completed.
    pub(crate) fn not_named(&self) -> impl Iterator<Item = SkippedFile> {
        let skipped = |path: &PathBuf| {
            let is_parity = self.renamed.parity().contains(path);
            let why = if is_parity { "parity of a bundle whose head is not here" } else { NOT_NAMED };
            SkippedFile { name: escape(&name_of(path)), why: why.into() }
        };
        self.renamed.unused().map(skipped)
    }

    /// Whether a file is a volume of what was completed, though its name is another.
    pub(crate) fn is_renamed_volume(&self, path: &Path) -> bool {
        self.renamed.is_used(path) || self.beside.is_used(path)
    }

    /// The files of unknown names that may be volumes.
    pub(crate) fn like_volumes(&self) -> impl Iterator<Item = &PathBuf> {
        self.renamed.like_volumes()
    }

    /// What trusted keys signed among the wholes and heads of a bundle that lie there.
    pub(crate) fn trusted_heads(&self, key: &str, keyring: &Keyring) -> impl Iterator<Item = SignedBundle> {
        let open = move |head| UnverifiedBundle::open(head).and_then(|head| head.signed(keyring)).ok();
        self.heads(key).iter().filter_map(move |head| open(head))
    }

    /// The files that are this bundle's: its head, its volumes, and parity that says so.
    pub(crate) fn own(&self, key: &str, bundle: &VerifiedBundle) -> Vec<PathBuf> {
        let volume = self.volumes_of(bundle.path(), bundle.payload());
        let volumes =
            (0..bundle.payload().volumes.len()).filter_map(|index| volume(VolumeNumber::at(index)?));
        let is_its =
            |path: &&PathBuf| ParityFile::open(path).is_ok_and(|parity| parity.bundle() == bundle.identity());
        let parity = self.parity(key).iter().filter(is_its).cloned();
        std::iter::once(bundle.path().to_path_buf()).chain(volumes).chain(parity).collect()
    }

    /// Reads what is there of a bundle of which volumes are missing, and names those that are damaged as well.
    pub(crate) fn bad_volumes(&self, head: &Path, keyring: &Keyring) -> Option<BundleError> {
        let signed = UnverifiedBundle::open(head).and_then(|head| head.signed(keyring)).ok()?;
        signed.bad_volumes(&self.volumes_of(signed.path(), signed.payload()))
    }

    /// The paths of a bundle's files, where they have these lengths in bytes: of the only one, or of the
    /// head and the volumes behind it. `None` for those that are not there.
    pub(crate) fn files(&self, key: &str, lengths: &[u64]) -> Vec<Option<PathBuf>> {
        let set = self.sets.get(key);
        let is_head = |path: &&PathBuf| volumes::parse_name(&name_of(path)).is_some() == (lengths.len() > 1);
        let first: Vec<PathBuf> =
            set.map_or_else(Vec::new, |set| set.first.iter().filter(is_head).cloned().collect());
        let behind = |index| set?.volumes.get(&VolumeNumber::at(index)?).map(Vec::as_slice);
        let all = |index: usize| index.checked_sub(1).map_or(Some(&first[..]), behind);
        lengths.iter().enumerate().map(|(index, length)| best(all(index)?, *length)).collect()
    }

    /// As [`Inputs::files`], of what a trusted key signed: where a head is there whose files have these lengths.
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

    /// The names of the bundles of which something lies there.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// What lies there of a bundle, the whole or the heads first.
    pub(crate) fn all(&self, key: &str) -> Vec<PathBuf> {
        let Some(set) = self.sets.get(key) else { return Vec::new() };
        let behind = set.volumes.values().flatten();
        set.first.iter().chain(behind).chain(&set.parity).cloned().collect()
    }

    /// The wholes or heads of a bundle that lie there.
    pub(crate) fn heads(&self, key: &str) -> &[PathBuf] {
        self.sets.get(key).map_or(&[], |set| &set.first)
    }

    /// The parity files of a bundle.
    pub(crate) fn parity(&self, key: &str) -> &[PathBuf] {
        self.sets.get(key).map_or(&[], |set| &set.parity)
    }

    /// The bundles that have parity here.
    pub(crate) fn with_parity(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().filter(|(_, set)| !set.parity.is_empty()).map(|(key, _)| key.as_str())
    }

    /// What lies there of a bundle's volumes behind the head.
    pub(crate) fn volumes(&self, key: &str) -> impl Iterator<Item = (VolumeNumber, &Path)> {
        let volumes = self.sets.get(key).into_iter().flat_map(|set| &set.volumes);
        volumes.flat_map(|(number, paths)| paths.iter().map(|path| (*number, path.as_path())))
    }

    /// Whether all that lies there of a bundle's volumes behind the head are these.
    pub(crate) fn has_only(&self, key: &str, volumes: &[Volume]) -> bool {
        let of = |number: VolumeNumber| volumes.get(number.index()?);
        // What a look at the length tells needs no reading.
        self.volumes(key).all(|(number, path)| of(number).is_some_and(|volume| has_length(path, volume)))
            && self
                .volumes(key)
                .all(|(number, path)| of(number).is_some_and(|volume| self.look.is(path, volume)))
    }

    /// What is wrong with a bundle of which there are parts, and neither the whole nor the head.
    pub(crate) fn headless_one(&self, key: &str) -> Option<BundleError> {
        self.sets.get(key).and_then(without_head)
    }

    /// Bundles of which there are parts, and neither the whole nor the head.
    pub(crate) fn headless(&self) -> impl Iterator<Item = (&str, BundleError)> {
        let is_used = |set: &FileSet| {
            let mut volumes = set.volumes.values().flatten().peekable();
            volumes.peek().is_some() && volumes.all(|volume| self.is_renamed_volume(volume))
        };
        let missed = self.sets.iter().filter(move |(_, set)| !is_used(set));
        missed.filter_map(|(key, set)| Some((key.as_str(), without_head(set)?)))
    }
}

/// What is wrong with parts that have no head.
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

/// Of several files the one with this length, else the first.
fn best(paths: &[PathBuf], length: u64) -> Option<PathBuf> {
    let fits = |path: &&PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.len() == length);
    paths.iter().find(fits).or(paths.first()).cloned()
}

/// The last part of a path.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a file is that is a part of a bundle, and not the whole or the head.
fn part(path: &Path) -> Option<String> {
    let name = name_of(path);
    let volume = volumes::parse_name(&name).filter(|(_, number)| *number != VolumeNumber::HEAD);
    let parity = || parity::parse_name(&name).map(|_| "parity".to_owned());
    volume.map(|(_, number)| format!("volume {number}")).or_else(parity)
}

/// The name of the bundle that a file belongs to, in small letters as FAT compares them.
pub(crate) fn key(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let bundle = parity::parse_name(&name).or(volumes::parse_name(&name).map(|(of, _)| of.to_owned()));
    Some(bundle.unwrap_or(name))
}

/// The date in a name as `export` gives it: `STREAM-YYYYMMDDthhmmssz.tar`.
pub(crate) fn named_date(key: &str) -> Option<Timestamp> {
    let (_, date) = key.strip_suffix(".tar")?.rsplit_once('-')?;
    parse_stamp(date)
}

/// Why a file's name says that it is no bundle. `name (1).tar`, as browsers make it, is fine.
pub(crate) fn why_skipped(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    if name.starts_with("._") {
        Some("left by macOS")
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

/// Whether a file is as long as a volume.
fn has_length(path: &Path, volume: &Volume) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.len() == volume.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_date_where_nothing_else_does() {
        let wanted = "2026-11-21T09:15:00Z".parse().unwrap();
        assert_eq!(named_date("default-20261121t091500z.tar"), Some(wanted));
        assert_eq!(named_date("a-b-20261121t091500z.tar"), Some(wanted));
        for none in ["default.tar", "default-20261121.tar", "default-20261121t091500z.par.001", ""] {
            assert_eq!(named_date(none), None, "{none}");
        }
    }

    #[test]
    fn names_tell_what_is_none_of_our_business() {
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
