//! System calls whose errors say what they were about.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::CursorError;

pub(super) fn open_or_create(path: &Path) -> Result<File, CursorError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    options
        .open(path)
        .map_err(|e| CursorError::io("open", path, e))
}

/// The whole file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CursorError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
            Err(CursorError::damaged(path, "it is a directory and no file"))
        }
        Err(e) => Err(CursorError::io("read", path, e)),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), CursorError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| CursorError::io("sync", dir, e))
}

/// Makes all files of a directory and of those in it durable, and their names.
pub(super) fn sync_tree(dir: &Path) -> Result<(), CursorError> {
    let failed = |e| CursorError::io("sync", dir, e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|e| CursorError::io("sync", &path, e))?;
        }
    }
    sync_dir(dir)
}

/// Puts a file or directory aside, under its name, ".damaged-" and the first number that is free.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf, CursorError> {
    let to = free_name_beside(path)?;
    fs::rename(path, &to).map_err(|e| CursorError::io("put aside", path, e))?;
    Ok(to)
}

/// Gives a file a second name to be kept under, as [`put_aside`] would; the first one stays.
pub(super) fn keep_aside(path: &Path) -> Result<(), CursorError> {
    let to = free_name_beside(path)?;
    fs::hard_link(path, &to)
        .or_else(|_| fs::copy(path, &to).map(|_| ()))
        .map_err(|e| CursorError::io("put aside", path, e))
}

fn free_name_beside(path: &Path) -> Result<PathBuf, CursorError> {
    for number in 1u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        match fs::symlink_metadata(&name) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(name.into()),
            Err(e) => return Err(CursorError::io("look for", Path::new(&name), e)),
        }
    }
    unreachable!("no directory has so many names")
}
