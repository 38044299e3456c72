//! What a directory lies on, and what that means for the figures.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The filesystem of a directory.
pub(crate) struct Filesystem {
    /// As the kernel calls it: "ext4".
    pub(crate) kind: String,
    /// What is mounted: "/dev/sda1".
    pub(crate) source: String,
    /// What the user may still store.
    pub(crate) free_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Disk,
    Memory,
    CopyOnWrite,
    Network,
    Layered,
}

impl Filesystem {
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let space = rustix::fs::statvfs(dir)?;
        let mounts = fs::read("/proc/self/mountinfo")?;
        let (kind, source) = mount_of(&mounts, &dir.canonicalize()?)
            .unwrap_or_else(|| ("unknown".to_owned(), "an unknown device".to_owned()));
        Ok(Self {
            kind,
            source,
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }

    /// What to know of it before believing a figure; nothing for a plain disk.
    pub(crate) fn remark(&self) -> Option<String> {
        let kind = &self.kind;
        Some(match nature(kind) {
            Nature::Disk => return None,
            Nature::Memory => format!(
                "{kind} is memory: the durable figures are no disk's, and a power cut takes it all."
            ),
            Nature::CopyOnWrite => format!(
                "{kind} writes every block to a new place: no block is overwritten, also where the \
                 disk's own time is measured."
            ),
            Nature::Network => format!(
                "{kind} is a network's: the durable figures are those of the network and the server, \
                 and what the server keeps in memory does not survive its power cut."
            ),
            Nature::Layered => format!(
                "{kind} lies on another filesystem, as in a container: to measure the disk that a log \
                 is to be on, name a directory of its volume."
            ),
        })
    }
}

fn nature(kind: &str) -> Nature {
    match kind {
        "tmpfs" | "ramfs" => Nature::Memory,
        "btrfs" | "zfs" | "bcachefs" => Nature::CopyOnWrite,
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" | "afs" | "lustre"
        | "gfs2" | "ocfs2" | "fuse.sshfs" | "fuse.glusterfs" | "fuse.ceph" | "fuse.s3fs"
        | "fuse.rclone" => Nature::Network,
        "overlay" | "aufs" | "ecryptfs" | "fuse.mergerfs" | "fuse.fuse-overlayfs" => {
            Nature::Layered
        }
        _ => Nature::Disk,
    }
}

/// Kind and source of what is mounted at `path`: of the mount point that is nearest to it, and of
/// several mounts there, the last one.
fn mount_of(mountinfo: &[u8], path: &Path) -> Option<(String, String)> {
    let mut found: Option<(PathBuf, String, String)> = None;
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let Some((point, kind, source)) = parse(line) else {
            continue;
        };
        let nearest = found.as_ref().map_or(Path::new(""), |(point, ..)| point);
        if path.starts_with(&point) && point.as_os_str().len() >= nearest.as_os_str().len() {
            found = Some((point, kind, source));
        }
    }
    found.map(|(_, kind, source)| (kind, source))
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda1 rw`
fn parse(line: &[u8]) -> Option<(PathBuf, String, String)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = unescaped(fields.nth(4)?);
    fields.by_ref().find(|&field| field == b"-")?;
    let mut text = || Some(String::from_utf8_lossy(&unescaped(fields.next()?)).into_owned());
    let (kind, source) = (text()?, text()?);
    let point = PathBuf::from(std::ffi::OsStr::from_bytes(&point));
    Some((point, kind, source))
}

/// The kernel writes spaces, tabs, newlines and backslashes as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        let digits = behind
            .first_chunk::<3>()
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /data rw - tmpfs none rw,size=1g
23 21 0:21 / /data rw master:2 propagate_from:3 - btrfs /dev/vdb1 rw,subvol=/
24 23 0:22 / /data/on\\040a\\134network rw - nfs4 server:/export rw
25 21 0:23 / /database rw - xfs /dev/vdc rw
";

    fn mounted(path: &str) -> (String, String) {
        mount_of(MOUNTS, Path::new(path)).unwrap()
    }

    #[test]
    fn a_path_is_on_the_nearest_mount_and_the_last_one_there() {
        assert_eq!(mounted("/home/me").0, "ext4");
        assert_eq!(
            mounted("/data/log"),
            ("btrfs".to_owned(), "/dev/vdb1".to_owned())
        );
        assert_eq!(mounted("/database").1, "/dev/vdc");
        assert_eq!(mounted("/data/on a\\network/log").1, "server:/export");
        assert_eq!(mount_of(b"", Path::new("/")), None);
        assert_eq!(mount_of(b"\n21 1\n - \n", Path::new("/")), None);
    }

    #[test]
    fn only_what_is_no_plain_disk_is_remarked_upon() {
        let remark = |kind: &str| {
            let filesystem = Filesystem {
                kind: kind.to_owned(),
                source: String::new(),
                free_bytes: 0,
            };
            filesystem.remark()
        };
        assert_eq!(remark("ext4"), None);
        assert_eq!(remark("xfs"), None);
        for (kind, says) in [
            ("tmpfs", "memory"),
            ("zfs", "new place"),
            ("nfs4", "network"),
            ("overlay", "container"),
        ] {
            let remark = remark(kind).unwrap();
            assert!(
                remark.starts_with(kind) && remark.contains(says),
                "{remark}"
            );
        }
    }
}
