//! Small filesystems of a test's own, mounted until dropped. Takes root, `mount` and `mkfs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FallocateFlags;

/// A filesystem, and the directory that it is mounted on.
pub(crate) struct Mounted {
    at: PathBuf,
    image: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn tmpfs(size: &str) -> Option<Self> {
        Self::mount(|at, _| {
            let size = format!("size={size}");
            run("mount", &["-t", "tmpfs", "-o", &size, "dacapo-test", at])
        })
    }

    /// A filesystem in a file, made by `mkfs`.
    pub(crate) fn in_file(mkfs: &str, flags: &[&str], size: &str) -> Option<Self> {
        Self::mount(|at, image| {
            run("truncate", &["-s", size, image])
                && run(mkfs, &[flags, &[image]].concat())
                && run("mount", &["-o", "loop", image, at])
        })
    }

    pub(crate) fn ext4(size: &str) -> Option<Self> {
        Self::in_file("mkfs.ext4", &["-q", "-F", "-m", "0"], size)
    }

    fn mount(mount: impl FnOnce(&str, &str) -> bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (at, image) = (dir.path().join("mounted"), dir.path().join("image"));
        fs::create_dir(&at).unwrap();
        mount(at.to_str().unwrap(), image.to_str().unwrap()).then_some(Self {
            at,
            image,
            _dir: dir,
        })
    }

    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Mounts it anew with other options; false if the kernel refuses.
    pub(crate) fn remount(&self, options: &str) -> bool {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.at.to_str().unwrap()])
    }

    /// Takes a filesystem that lies in a file off and puts it on again, as a reboot does.
    pub(crate) fn unmount_and_mount(&self) {
        let (at, image) = (self.at.to_str().unwrap(), self.image.to_str().unwrap());
        assert!(run("umount", &[at]), "somebody still uses {at}");
        assert!(run("mount", &["-o", "loop", image, at]));
    }

    /// Makes the last blocks of an ext4, which it keeps for its own use, usable for files too.
    pub(crate) fn give_up_reserve(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mine = |line: &&str| line.split(' ').nth(1) == self.at.to_str();
        let line = mounts.lines().find(mine).expect("it is mounted");
        let device = line.split(' ').next().and_then(|d| d.strip_prefix("/dev/"));
        let reserve = format!("/sys/fs/ext4/{}/reserved_clusters", device.unwrap());
        fs::write(reserve, "0").unwrap();
    }

    pub(crate) fn free_blocks(&self) -> u64 {
        rustix::fs::statvfs(&self.at).unwrap().f_bfree
    }

    /// Fills the file `ballast` until so many blocks are free, as far as that can be had; returns
    /// how many are.
    pub(crate) fn leave_free(&self, ballast: &Path, blocks: u64) -> u64 {
        let file = File::create(ballast).unwrap();
        let block_bytes = rustix::fs::statvfs(&self.at).unwrap().f_frsize;
        let mut ballast_blocks = 0;
        // The ballast's own metadata takes blocks too, so that it may take a few steps.
        for _ in 0..8 {
            let free = self.free_blocks();
            if free > blocks {
                let bytes = (free - blocks) * block_bytes;
                let from = ballast_blocks * block_bytes;
                if rustix::fs::fallocate(&file, FallocateFlags::empty(), from, bytes).is_err() {
                    break;
                }
                ballast_blocks += free - blocks;
            } else if free < blocks {
                ballast_blocks -= blocks - free;
                file.set_len(ballast_blocks * block_bytes).unwrap();
            } else {
                break;
            }
        }
        self.free_blocks()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a child of a test that failed may still be there.
        run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

/// Whether a program ran and succeeded.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}
