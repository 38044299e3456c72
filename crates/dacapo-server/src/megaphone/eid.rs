//! The ids of messages: 23 letters and digits, the same however often a message is read.
//!
//! One is `m`, eleven characters of the channel's name, and eleven of the message's offset in the log,
//! in base 62 with leading zeros. So a message keeps its id for good, no two have the same, and those of
//! a channel are in the order of their bytes.

use dacapo_log::Offset;

use super::address::ChannelId;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// How many digits 64 bits take.
const NUMBER_CHARS: usize = 11;
const EID_CHARS: usize = 1 + 2 * NUMBER_CHARS;

pub(crate) fn encode(id: ChannelId, offset: Offset) -> String {
    let mut eid = String::with_capacity(EID_CHARS);
    eid.push('m');
    push_number(&mut eid, id.half());
    push_number(&mut eid, offset.get());
    eid
}

/// The offset of a message; `None` of what is no id of a message of this channel.
pub(crate) fn decode(id: ChannelId, eid: &str) -> Option<Offset> {
    let numbers = eid.strip_prefix('m')?;
    let (half, offset) = numbers.split_at_checked(NUMBER_CHARS)?;
    if parse_number(half)? != id.half() {
        return None;
    }
    parse_number(offset).map(Offset::new)
}

fn push_number(text: &mut String, mut number: u64) {
    let mut digits = [b'0'; NUMBER_CHARS];
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(number % 62).expect("below 62");
        *digit = DIGITS[index];
        number /= 62;
    }
    text.extend(digits.map(char::from));
}

fn parse_number(text: &str) -> Option<u64> {
    if text.len() != NUMBER_CHARS {
        return None;
    }
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = DIGITS.iter().position(|&digit| digit == byte)?;
        number
            .checked_mul(62)?
            .checked_add(u64::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ChannelId = ChannelId::new([0xff; 16]);

    #[test]
    fn an_id_is_23_letters_and_digits_and_tells_the_offset() {
        for offset in [0, 1, 61, 62, 1 << 40, u64::MAX].map(Offset::new) {
            let eid = encode(ID, offset);
            assert_eq!(eid.len(), 23, "{eid}");
            assert!(
                eid.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{eid}"
            );
            assert_eq!(decode(ID, &eid), Some(offset));
        }
    }

    #[test]
    fn ids_of_a_channel_are_in_the_order_of_their_messages() {
        let eids: Vec<_> = (0..10_000).map(|n| encode(ID, Offset::new(n))).collect();
        assert!(eids.is_sorted());
    }

    #[test]
    fn ids_of_other_channels_and_other_texts_are_none() {
        let other = encode(ChannelId::new([1; 16]), Offset::new(5));
        let long = format!("{}0", encode(ID, Offset::new(5)));
        let beyond = format!("{}zzzzzzzzzzz", &encode(ID, Offset::ZERO)[..12]);
        for eid in [
            "",
            "m",
            "ümlaut",
            "m0000000000000000000000",
            &other,
            &long,
            &beyond,
        ] {
            assert_eq!(decode(ID, eid), None, "{eid}");
        }
    }
}
