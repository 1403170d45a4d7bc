//! A small file system of its own, for tests that need a disk to be full or read-only.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted tmpfs; unmounted when it is dropped.
pub struct Tmpfs {
    directory: tempfile::TempDir,
}

impl Tmpfs {
    /// Mounts one of `mib` MiB. `None` where this process may not mount: that needs root.
    pub fn mount(mib: u32) -> Option<Tmpfs> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "fleetproof-test"], directory.path());
        mounted.then(|| Tmpfs { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Nothing can be written from now on.
    pub fn make_read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], self.path()), "what was mounted can be mounted anew");
    }

    /// Takes all the room that is left; gives it back when the returned file is removed.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut filler = File::create(&path).expect("an empty file has room");
        for piece in [64 << 10, 1] {
            while filler.write_all(&vec![0; piece]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: what a failed test has left open must not keep it.
        let _unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    Command::new("mount").args(arguments).arg(at).output().is_ok_and(|output| output.status.success())
}
