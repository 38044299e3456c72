//! A directory as it is, in another place: what a power cut, or a copy by hand, leaves of a log.

use std::fs;
use std::path::Path;

/// Copies those files and directories whose names are wanted, directories whole.
pub(crate) fn copy(from: &Path, to: &Path, wanted: fn(&str) -> bool) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !wanted(&name) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target, |_| true);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
