//! Tokens that stand in a file, with what each may do.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::AuthError;
use super::rights::{Grant, Grants, Right};

/// The SHA-256 of a token: the token itself is not kept.
pub(super) type Hash = [u8; 32];

/// Known tokens, and what each is good for.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<(Hash, Grants)>);

impl Tokens {
    /// The tokens of a file: one a line, `TOKEN RIGHTS [PREFIX]`. Several lines of one token add up.
    pub(super) fn load(path: &Path) -> Result<Self, AuthError> {
        let text = fs::read_to_string(path).map_err(|source| AuthError::Io {
            path: path.to_owned(),
            source,
        })?;
        let mut tokens = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (token, grant) = parse(line).ok_or_else(|| AuthError::Line {
                path: path.to_owned(),
                line: index + 1,
            })?;
            tokens.add(token, grant);
        }
        match tokens.0.is_empty() {
            true => Err(AuthError::Empty {
                path: path.to_owned(),
            }),
            false => Ok(tokens),
        }
    }

    /// One token.
    pub(super) fn of(token: &str, grants: Grants) -> Self {
        Self(vec![(hash(token.as_bytes()), grants)])
    }

    fn add(&mut self, token: &str, grant: Grant) {
        let hash = hash(token.as_bytes());
        match self.0.iter_mut().find(|(known, _)| *known == hash) {
            Some((_, grants)) => grants.add(grant),
            None => self.0.push((hash, Grants::from([grant]))),
        }
    }

    /// What the token of this hash is good for, in a time that does not tell which one it is.
    pub(super) fn find(&self, hash: &Hash) -> Option<&Grants> {
        let mut found = None;
        for (known, grants) in &self.0 {
            if bool::from(known.ct_eq(hash)) {
                found = Some(grants);
            }
        }
        found
    }
}

pub(super) fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

fn parse(line: &str) -> Option<(&str, Grant)> {
    let mut words = line.split_whitespace();
    let (token, rights) = (words.next()?, words.next()?);
    let prefix = words.next().unwrap_or_default();
    if words.next().is_some() {
        return None;
    }
    let rights = rights.split(',').map(|right| match right {
        "read" => Some(Right::Read),
        "append" => Some(Right::Append),
        "admin" => Some(Right::Admin),
        _ => None,
    });
    let rights: Vec<Right> = rights.collect::<Option<_>>()?;
    Some((token, Grant::of_prefix(prefix, rights)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Tokens, AuthError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        fs::write(&file, text).unwrap();
        Tokens::load(&file)
    }

    #[test]
    fn the_lines_of_one_token_add_up() {
        let tokens =
            load("# who may\na read rooms/\n\n  a\tread,append users/\nb admin\n").unwrap();
        let a = tokens.find(&hash(b"a")).unwrap();
        assert!(a.allow(Right::Read, "rooms/1") && a.allow(Right::Append, "users/1"));
        assert!(!a.allow(Right::Append, "rooms/1") && !a.allow(Right::Admin, "users/1"));
        assert!(tokens.find(&hash(b"b")).unwrap().allow(Right::Admin, "x"));
        for unknown in ["", "c", "aa", "# who may", "#"] {
            assert!(
                tokens.find(&hash(unknown.as_bytes())).is_none(),
                "{unknown}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_line_and_not_quoted() {
        for line in ["s3cret", "s3cret raed", "s3cret read a b", "s3cret read,"] {
            let error = load(&format!("a read\n{line}\n")).unwrap_err();
            assert!(matches!(error, AuthError::Line { line: 2, .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
        assert!(matches!(load("# none\n"), Err(AuthError::Empty { .. })));
        assert!(matches!(
            Tokens::load(Path::new("/nowhere")),
            Err(AuthError::Io { .. })
        ));
    }
}
