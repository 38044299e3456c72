//! Keys that addresses and tokens are signed with, in a file that stays across restarts.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const SIGNATURE_BYTES: usize = 32;

/// One key, and a name for it that tells nothing about it.
#[derive(Clone)]
pub(crate) struct Key {
    secret: [u8; KEY_BYTES],
    tag: KeyTag,
}

/// Which key something was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyTag(pub(crate) u32);

/// The first one signs, all verify. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Vec<Key>);

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It cannot be read or made.
    #[error("cannot use the key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than its owner can read it, or change it.
    #[error("the key file {} has mode {mode:03o}, and others can use the keys; chmod 600 it, and put a new key first", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A line is no key. The line itself is not shown.
    #[error("line {line} of the key file {} is no key of 64 hexadecimal digits", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
    },
    /// It holds no key.
    #[error("the key file {} holds no key; remove it to have one made, which makes all that was signed invalid", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness for a new key.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Key {
    pub(crate) fn new(secret: [u8; KEY_BYTES]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"dacapo megaphone key\0")
            .chain_update(secret)
            .finalize();
        let tag = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Self {
            secret,
            tag: KeyTag(tag),
        }
    }

    pub(crate) fn tag(&self) -> KeyTag {
        self.tag
    }

    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
        sign(&self.secret, parts)
    }
}

/// HMAC-SHA-256 of the parts, one behind the other.
pub(crate) fn sign(secret: &[u8], parts: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Without the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl Keys {
    #[cfg(test)]
    pub(crate) fn new(first: Key, others: impl IntoIterator<Item = Key>) -> Self {
        Self(std::iter::once(first).chain(others).collect())
    }

    /// Reads the file; makes it, with one random key, if it is not there.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, KeysError> {
        match load(path) {
            Err(KeysError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                load(path)
            }
            loaded => loaded,
        }
    }

    pub(crate) fn signer(&self) -> &Key {
        &self.0[0]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The key of this tag, or the one that signs where it was taken out.
    pub(crate) fn tagged(&self, tag: KeyTag) -> &Key {
        self.iter()
            .find(|key| key.tag == tag)
            .unwrap_or(self.signer())
    }
}

fn load(path: &Path) -> Result<Keys, KeysError> {
    let failed = |source| KeysError::Io {
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_hex(line) {
            Some(secret) => keys.push(Key::new(secret)),
            None => {
                return Err(KeysError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                });
            }
        }
    }
    if keys.is_empty() {
        return Err(KeysError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(Keys(keys))
}

/// Makes the file whole, for its owner only, and durable: what it signs is given out right away.
fn create(path: &Path) -> Result<(), KeysError> {
    let failed = |source| KeysError::Io {
        path: path.to_owned(),
        source,
    };
    let mut secret = [0; KEY_BYTES];
    getrandom::fill(&mut secret).map_err(KeysError::Random)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    // Mode 0600 from the beginning.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let text = format!(
        "# Keys, one a line: the first signs, all verify.\n{}\n",
        hex(&secret)
    );
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed),
        // Another process was faster; its key is the one.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let made = Keys::load_or_create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let loaded = Keys::load_or_create(&path).unwrap();
        assert_eq!(loaded.signer().secret, made.signer().secret);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_first_key_signs_and_all_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let text = format!("# newest\n{}\n\n{}\n", "0a".repeat(32), "B1".repeat(32));
        write_for_owner(&path, &text);
        let keys = Keys::load_or_create(&path).unwrap();
        assert_eq!(keys.signer().secret, [0x0a; 32]);
        let secrets: Vec<_> = keys.iter().map(|key| key.secret).collect();
        assert_eq!(secrets, [[0x0a; 32], [0xb1; 32]]);
        let second = keys.iter().nth(1).unwrap().tag();
        assert_eq!(keys.tagged(second).secret, [0xb1; 32]);
    }

    #[test]
    fn a_key_file_that_cannot_be_trusted_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        write_for_owner(&path, &format!("{}\nnot a key\n", "0a".repeat(32)));
        let error = Keys::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeysError::Line { line: 2, .. }), "{error}");
        assert!(!error.to_string().contains("not a key"));

        write_for_owner(&path, "# nothing\n");
        let error = Keys::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeysError::Empty { .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, KeysError::Exposed { mode: 0o640, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = Key::new([0xab; 32]);
        assert!(!format!("{key:?}").contains("171"), "{key:?}");
    }

    fn write_for_owner(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
