//! Chooses a directory with enough room for each file. This module depends on lengths and file
//! systems, but not on bundles.

use std::io;
use std::path::{Path, PathBuf};

use crate::util::fs;

/// The maximum size of a file on FAT, in bytes (Microsoft's FAT32 specification, section 6.2:
/// `DIR_FileSize`).
pub(crate) const FAT_MOST: u64 = u32::MAX as u64;

/// Returns a directory for each file of these lengths, in order: the next directory if one is full. `there`
/// bytes are already in the first one. If there is not enough room, returns the number of free bytes.
pub(crate) fn place<'f>(
    directories: &'f [PathBuf],
    lengths: &[u64],
    there: u64,
) -> Result<Result<Vec<&'f Path>, u64>, (PathBuf, io::Error)> {
    let room = |directory: &'f PathBuf| {
        fs::free(directory)
            .map(|free| (directory.as_path(), free))
            .map_err(|error| (directory.clone(), error))
    };
    let mut rooms: Vec<(&Path, u64)> = directories.iter().map(room).collect::<Result<_, _>>()?;
    let all = rooms.iter().map(|(_, free)| *free).fold(0, u64::saturating_add);
    if let Some((_, free)) = rooms.first_mut() {
        *free = free.saturating_add(there);
    }
    let mut placed = Vec::new();
    let mut rooms = rooms.into_iter();
    let mut room = rooms.next();
    for length in lengths {
        while let Some((_, free)) = room
            && free < *length
        {
            room = rooms.next();
        }
        let Some((directory, free)) = &mut room else { return Ok(Err(all)) };
        *free -= length;
        placed.push(*directory);
    }
    Ok(Ok(placed))
}

/// Whether a directory is on a FAT file system, with any driver. exFAT does not count, because it holds large
/// files.
pub(crate) fn is_fat(directory: &Path) -> bool {
    let Ok(stat) = rustix::fs::statfs(directory) else { return false };
    // `MSDOS_SUPER_MAGIC` and `FUSE_SUPER_MAGIC` (statfs(2)).
    stat.f_type == 0x4d44
        || stat.f_type == 0x6573_5546
            && std::fs::canonicalize(directory).is_ok_and(|directory| {
                let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
                let mounts = String::from_utf8_lossy(&mounts);
                type_of(&directory, &mounts)
                    .is_some_and(|kind| kind.contains("fat") && !kind.contains("exfat"))
            })
}

/// The type of a directory's file system (proc_pid_mountinfo(5)).
fn type_of<'m>(directory: &Path, mounts: &'m str) -> Option<&'m str> {
    let mount = |line: &'m str| {
        let (fields, rest) = line.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?.replace("\\040", " ");
        Some((point, rest.split(' ').next()?))
    };
    // If two mounts are at one place, the later one is visible.
    let over = mounts.lines().filter_map(mount).filter(|(point, _)| directory.starts_with(point));
    over.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fat_is_recognized_with_any_driver() {
        let mounts = "22 1 0:1 / / rw - ext4 /dev/root rw\n\
                      42 22 0:39 / /media/old rw,nosuid - fuse.fusefat fusefat rw,user_id=0\n\
                      43 22 7:0 / /media/new rw - fuseblk /dev/loop0 rw\n\
                      44 22 7:1 / /media/my\\040stick rw shared:1 - vfat /dev/sda1 rw\n";
        let kind = |directory: &str| type_of(Path::new(directory), mounts);
        assert_eq!(kind("/home/ann"), Some("ext4"));
        assert_eq!(kind("/media/old/bundles"), Some("fuse.fusefat"));
        assert_eq!(kind("/media/older"), Some("ext4"), "a name with the same beginning");
        assert_eq!(kind("/media/new"), Some("fuseblk"));
        assert_eq!(kind("/media/my stick"), Some("vfat"));
    }

    #[test]
    fn files_are_placed_in_directories_with_room() {
        let dir = tempfile::tempdir().unwrap();
        let directories = [dir.path().to_path_buf(), dir.path().to_path_buf()];
        let placed = place(&directories, &[1, 2, 3], 0).unwrap().unwrap();
        assert_eq!(placed, [dir.path(); 3]);
        let all = crate::util::fs::free(dir.path()).unwrap();
        assert!(place(&directories, &[all * 2], 0).unwrap().is_err(), "a file is not divided");
        assert_eq!(place(&directories, &[all / 4 * 3; 2], 0).unwrap().unwrap().len(), 2);
    }
}
