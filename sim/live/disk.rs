//! The disk under a run: room enough at its start, and a watch over it while it goes on.
//!
//! Store, configurations and the embedded broker's log lie in a temporary directory; the result and the logs of bridge
//! and registry in the directory of the run. A pipeline whose disk is full waits and retries, as it must, and nothing can
//! be said of it: the run ends, invalid, rather than wait for its bounds and blame the system under test.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};

use crate::run::RunError;

/// Free space without which nothing is started: what the write-ahead log of the embedded store alone may keep (64 MiB). A
/// longer run needs more, how much only it can tell: that is what the watch is for.
const LEAST_FREE_BYTES: u64 = 64 << 20;

/// What has to be writable at any time. A result file takes less, so it can be written though the run has ended for want
/// of room, unless the disk is filled to the last byte.
const RESERVE_BYTES: u64 = 1 << 20;

/// Time between two looks at the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks in a row that find no room, until the run is given up: the pipeline's retries bridge that long without harm, and
/// something else on the machine may give the room back.
const FULL_LOOKS: u32 = 5;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("nothing could be written to {directory} for {lasted:?}")]
pub(super) struct Full {
    directory: PathBuf,
    lasted: Duration,
    source: io::Error,
}

/// Whether a run finds room where its temporary files and its results, in `out`, are to go. `out` need not exist.
///
/// # Errors
/// [`RunError::NoRoom`] where there is too little.
pub fn room_for(out: &Path) -> Result<(), RunError> {
    has_room(&std::env::temp_dir())?;
    has_room(out)
}

/// The same of one directory.
pub(super) fn has_room(directory: &Path) -> Result<(), RunError> {
    let free = free_bytes(existing(directory)).map_err(|error| {
        let looking = format!("looking for free space in {}", directory.display());
        RunError::Harness(anyhow::Error::new(error).context(looking))
    })?;
    match free < LEAST_FREE_BYTES {
        true => Err(RunError::NoRoom { directory: directory.to_owned(), free, needed: LEAST_FREE_BYTES }),
        false => Ok(()),
    }
}

/// Ends when one of `directories` has had no room for too long, and says which and why.
pub(super) async fn ran_full(directories: [PathBuf; 2]) -> Full {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        ticks.tick().await;
        let looked_at = directories.clone();
        let looked = tokio::task::spawn_blocking(move || look(looked_at)).await;
        match looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(()) => looks = 0,
            Err((directory, source)) => {
                looks += 1;
                if looks == FULL_LOOKS {
                    return Full { directory, lasted: LOOK_EVERY * FULL_LOOKS, source };
                }
            }
        }
    }
}

fn look(directories: [PathBuf; 2]) -> Result<(), (PathBuf, io::Error)> {
    for directory in directories {
        takes(&directory, RESERVE_BYTES).map_err(|error| (directory, error))?;
    }
    Ok(())
}

/// Whether `directory` takes a file of so many bytes, which has no name and is gone at once. Asking for the bytes sees
/// what free space does not tell: quotas, and a file system that has become read-only.
fn takes(directory: &Path, bytes: u64) -> io::Result<()> {
    let file = tempfile::tempfile_in(directory)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes.cast_signed()) {
        // Not every file system can: then its own figure has to do.
        Err(Errno::EOPNOTSUPP) if free_bytes(directory)? < bytes => Err(Errno::ENOSPC.into()),
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an unprivileged process may still take.
fn free_bytes(directory: &Path) -> nix::Result<u64> {
    let stat = statvfs(directory)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// The nearest directory above `path`, or itself, that is there.
fn existing(path: &Path) -> &Path {
    let there = path.ancestors().find(|above| above.exists());
    // Above a relative path there is the empty one, which stands for the current directory.
    there.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_looked_for_where_a_directory_will_be_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("not/yet/there");
        assert_eq!(existing(&deep), directory.path());
        assert_eq!(existing(Path::new("not/yet/there")), Path::new("."));
        assert_eq!(
            free_bytes(existing(Path::new("not/yet/there"))).is_ok(),
            free_bytes(Path::new(".")).is_ok(),
            "a relative path lies in the current directory"
        );
    }

    #[test]
    fn a_directory_takes_what_it_has_room_for_and_no_more_and_keeps_nothing_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        takes(directory.path(), RESERVE_BYTES).expect("there is room for a test");
        assert!(takes(directory.path(), 1 << 60).is_err(), "no disk has an exbibyte free");
        assert!(takes(&directory.path().join("gone"), 1).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }
}
