//! Addresses: who has one can write to its channel, or read it, and nothing else gives that right.
//!
//! `AGENT.p.X` is a producer's, `AGENT.c.X` a consumer's. `X` is the channel's random name of 16 bytes
//! and 32 bytes of HMAC-SHA-256 over all of the address, in base64url: 64 characters, each bit of which
//! counts. So neither can be turned into the other without a key, and a proxy routes by what stands
//! before the first dot.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use crate::keys::{self, Key, Keys, SIGNATURE_BYTES};

const ID_BYTES: usize = 16;
const SEALED_BYTES: usize = ID_BYTES + SIGNATURE_BYTES;
const SEALED_CHARS: usize = SEALED_BYTES / 3 * 4;
const _: () = assert!(
    SEALED_BYTES.is_multiple_of(3),
    "no bit of an address is without meaning"
);

/// The longest name of an agent, in bytes.
pub(crate) const AGENT_BYTES_MAX: usize = 64;

/// A channel's name: random, and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId([u8; ID_BYTES]);

/// What an address is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Consumer,
}

/// An address that one of the keys has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) role: Role,
    pub(crate) id: ChannelId,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressError {
    Malformed,
    /// It looks like one, and no key of this server has signed it.
    Foreign,
}

impl ChannelId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id)?;
        Ok(Self(id))
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        keys::parse_hex(text).map(Self)
    }

    /// What the ids of its messages begin with.
    pub(crate) fn half(self) -> u64 {
        let (half, _) = self.0.split_first_chunk().expect("16 bytes hold 8");
        u64::from_le_bytes(*half)
    }

    #[cfg(test)]
    pub(crate) const fn new(id: [u8; ID_BYTES]) -> Self {
        Self(id)
    }
}

/// In hexadecimal digits.
impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Role {
    fn letter(self) -> &'static str {
        match self {
            Self::Producer => "p",
            Self::Consumer => "c",
        }
    }
}

impl Address {
    /// Writes it out, for clients of `agent`.
    pub(crate) fn sealed(self, agent: &str, key: &Key) -> String {
        let letter = self.role.letter();
        let mut sealed = [0; SEALED_BYTES];
        sealed[..ID_BYTES].copy_from_slice(&self.id.0);
        sealed[ID_BYTES..].copy_from_slice(&signature(key, agent, letter, &self.id.0));
        format!("{agent}.{letter}.{}", URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Reads an address, of any agent, that one of the keys has signed.
    pub(crate) fn open(text: &str, keys: &Keys) -> Result<Self, AddressError> {
        let mut parts = text.splitn(3, '.');
        let (Some(agent), Some(letter), Some(sealed)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(AddressError::Malformed);
        };
        let role = match letter {
            "p" => Role::Producer,
            "c" => Role::Consumer,
            _ => return Err(AddressError::Malformed),
        };
        if !is_agent(agent) || sealed.len() != SEALED_CHARS {
            return Err(AddressError::Malformed);
        }
        let mut bytes = [0; SEALED_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(sealed, &mut bytes) {
            Ok(SEALED_BYTES) => {}
            _ => return Err(AddressError::Malformed),
        }
        let (id, sent) = bytes.split_first_chunk().expect("48 bytes hold 16");
        // All keys are tried, whichever fits: how long it takes tells nothing.
        let is_signed = keys.iter().fold(subtle::Choice::from(0), |found, key| {
            found | signature(key, agent, letter, id).ct_eq(sent)
        });
        match bool::from(is_signed) {
            true => Ok(Self {
                role,
                id: ChannelId(*id),
            }),
            false => Err(AddressError::Foreign),
        }
    }
}

/// Whether an agent can have this name: letters, digits, `-` and `_`, and no dots.
pub(crate) fn is_agent(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=AGENT_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn signature(key: &Key, agent: &str, letter: &str, id: &[u8; ID_BYTES]) -> [u8; SIGNATURE_BYTES] {
    // No name of an agent has a dot: no two addresses have the same bytes signed.
    let parts: [&[u8]; 6] = [
        b"dacapo megaphone address\0",
        agent.as_bytes(),
        b".",
        letter.as_bytes(),
        b".",
        id,
    ];
    key.sign(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ChannelId = ChannelId([7; 16]);

    fn key(byte: u8) -> Key {
        Key::new([byte; 32])
    }

    fn sealed(role: Role, key: &Key) -> String {
        Address { role, id: ID }.sealed("agent-1", key)
    }

    #[test]
    fn an_address_is_read_back_by_whoever_has_its_key() {
        let keys = Keys::new(key(1), [key(2)]);
        for role in [Role::Producer, Role::Consumer] {
            for signer in [key(1), key(2)] {
                let text = sealed(role, &signer);
                assert_eq!(Address::open(&text, &keys), Ok(Address { role, id: ID }));
                assert!(text.starts_with("agent-1."), "{text}");
            }
            let other = sealed(role, &key(3));
            assert_eq!(Address::open(&other, &keys), Err(AddressError::Foreign));
        }
    }

    #[test]
    fn a_producers_address_cannot_be_turned_into_the_consumers() {
        let keys = Keys::new(key(1), []);
        let (producer, consumer) = (
            sealed(Role::Producer, &key(1)),
            sealed(Role::Consumer, &key(1)),
        );
        let turned = producer.replacen(".p.", ".c.", 1);
        assert_ne!(turned, consumer);
        assert_eq!(Address::open(&turned, &keys), Err(AddressError::Foreign));
    }

    #[test]
    fn ten_thousand_mutations_of_addresses_are_all_refused() {
        let keys = Keys::new(key(1), [key(2)]);
        let mut random = 0x5eed_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        for round in 0..10_000 {
            let role = [Role::Producer, Role::Consumer][round % 2];
            let original = sealed(role, &key(1)).into_bytes();
            let mut mutant = original.clone();
            for _ in 0..=next(3) {
                let at = next(mutant.len());
                match next(4) {
                    0 => mutant[at] = u8::try_from(next(256)).unwrap(),
                    1 => mutant.insert(at, b"aA0-_.=/%"[next(9)]),
                    2 if mutant.len() > 1 => drop(mutant.remove(at)),
                    _ => mutant[at] ^= 1 << next(8),
                }
            }
            let mutant = String::from_utf8_lossy(&mutant).into_owned();
            if mutant.as_bytes() != original {
                assert!(Address::open(&mutant, &keys).is_err(), "{mutant}");
            }
        }
    }

    #[test]
    fn each_bit_of_an_address_counts() {
        let keys = Keys::new(key(1), []);
        let text = sealed(Role::Consumer, &key(1));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let mutant = String::from_utf8(bytes).unwrap();
                assert!(Address::open(&mutant, &keys).is_err(), "{mutant}");
            }
        }
    }

    #[test]
    fn texts_of_no_address_are_malformed() {
        let keys = Keys::new(key(1), []);
        let long = format!("{}.c.{}", "a".repeat(65), "A".repeat(64));
        for text in [
            "",
            ".",
            "..",
            "a",
            "a.c",
            "a.c.",
            ".c.AAAA",
            "a.x.AAAA",
            "ü.c.AAAA",
            &long,
        ] {
            assert_eq!(
                Address::open(text, &keys),
                Err(AddressError::Malformed),
                "{text}"
            );
        }
    }
}
