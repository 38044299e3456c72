//! The records of one topic in one segment: ascending numbers, in few bits.
//!
//! Golomb-Rice codes (Rice, Plaunt: Adaptive variable-length coding, 1971) of the gaps between them. A
//! parameter fits a mean gap, and that is known: so many numbers, spread over so many.

/// Bits of a gap that are stored as they are.
fn plain_bits(count: u32, span: u32) -> u32 {
    (span / count.max(1)).max(1).ilog2()
}

/// The bytes of `numbers`: ascending, without repetition, and below `span`.
pub(crate) fn encode_postings(numbers: &[u32], span: u32, into: &mut Vec<u8>) {
    let count = u32::try_from(numbers.len()).expect("each is another number of 32 bits");
    let plain = plain_bits(count, span);
    let (mut word, mut filled) = (0_u64, 0);
    let mut put = |mut bits: u64, mut len: u32| {
        while len > 0 {
            let room = (64 - filled).min(len);
            word |= (bits & (u64::MAX >> (64 - room))) << filled;
            filled += room;
            bits = bits.checked_shr(room).unwrap_or(0);
            len -= room;
            if filled == 64 {
                into.extend_from_slice(&word.to_le_bytes());
                (word, filled) = (0, 0);
            }
        }
    };
    let mut least = 0;
    for &number in numbers {
        let gap = number.checked_sub(least).expect("ascending");
        // As many zeros as the gap has multiples, a one, and the rest.
        let mut zeros = gap >> plain;
        while zeros > 63 {
            put(0, 63);
            zeros -= 63;
        }
        put(1 << zeros, zeros + 1);
        put(u64::from(gap) & ((1 << plain) - 1), plain);
        least = number + 1;
    }
    let bytes = usize::try_from(filled.div_ceil(8)).expect("at most 8");
    into.extend_from_slice(&word.to_le_bytes()[..bytes]);
}

/// The numbers; `None` where these are not the bytes of `count` numbers below `span`.
pub(crate) fn decode_postings(bytes: &[u8], count: u32, span: u32) -> Option<Vec<u32>> {
    let plain = plain_bits(count, span);
    let mut bits = Bits {
        bytes,
        word: 0,
        filled: 0,
    };
    // No more than the bytes can hold, whatever `count` says.
    let mut numbers = Vec::with_capacity((count as usize).min(bytes.len() * 8));
    let mut least = 0_u32;
    for _ in 0..count {
        let multiples = bits.zeros(span >> plain)?;
        let gap = multiples << plain | bits.take(plain)?;
        let number = least.checked_add(gap).filter(|&number| number < span)?;
        numbers.push(number);
        least = number + 1;
    }
    Some(numbers)
}

struct Bits<'a> {
    bytes: &'a [u8],
    word: u64,
    filled: u32,
}

impl Bits<'_> {
    /// Sees to at least 56 bits, if there are as many.
    fn fill(&mut self) {
        while self.filled <= 56
            && let Some((&byte, rest)) = self.bytes.split_first()
        {
            self.word |= u64::from(byte) << self.filled;
            self.filled += 8;
            self.bytes = rest;
        }
    }

    fn drop(&mut self, bits: u32) {
        self.word = self.word.checked_shr(bits).unwrap_or(0);
        self.filled -= bits;
    }

    /// The number of zeros before the next one: `most` at the most.
    fn zeros(&mut self, most: u32) -> Option<u32> {
        let mut zeros = 0;
        loop {
            self.fill();
            let run = self.word.trailing_zeros().min(self.filled);
            zeros += run;
            if zeros > most || self.filled == 0 {
                return None;
            }
            if run < self.filled {
                self.drop(run + 1);
                return Some(zeros);
            }
            self.drop(run);
        }
    }

    /// The next `len` bits, at most 31, as a number.
    fn take(&mut self, len: u32) -> Option<u32> {
        self.fill();
        let bits = u32::try_from(self.word & ((1 << len) - 1)).expect("at most 31 bits");
        (len <= self.filled).then(|| {
            self.drop(len);
            bits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(numbers: &[u32], span: u32) -> usize {
        let mut bytes = vec![];
        encode_postings(numbers, span, &mut bytes);
        let count = u32::try_from(numbers.len()).unwrap();
        assert_eq!(decode_postings(&bytes, count, span).unwrap(), numbers);
        assert_eq!(decode_postings(&bytes, count + 9, span), None);
        bytes.len()
    }

    #[test]
    fn what_was_encoded_comes_back() {
        round_trip(&[0], 1);
        round_trip(&[u32::MAX - 1], u32::MAX);
        round_trip(&[0, u32::MAX - 1], u32::MAX);
        round_trip(&[5, 6, 7, 1 << 20, (1 << 20) + 1, (1 << 29) - 1], 1 << 29);
        round_trip(&(0..1000).collect::<Vec<_>>(), 1000);
        round_trip(&(0..1000).map(|n| n * n).collect::<Vec<_>>(), 1_000_000);
    }

    #[test]
    fn one_record_in_ten_thousand_takes_less_than_two_bytes() {
        // Spread as if by chance.
        let mut at = 0_u64;
        let numbers: Vec<u32> = std::iter::from_fn(|| {
            at += 1 + (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 20_000;
            u32::try_from(at).ok().filter(|&n| n < 50_000_000)
        })
        .collect();
        let bytes = round_trip(&numbers, 50_000_000);
        assert!(bytes < 2 * numbers.len(), "{bytes} for {}", numbers.len());
    }

    #[test]
    fn other_bytes_are_refused_or_read_as_other_numbers() {
        let mut bytes = vec![];
        encode_postings(&[3, 70, 900], 1000, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Some(numbers) = decode_postings(&flipped, 3, 1000) {
                assert!(numbers.is_sorted() && numbers[2] < 1000);
            }
        }
        assert_eq!(decode_postings(&[], u32::MAX, 7), None);
        assert_eq!(decode_postings(&[0; 100], 2, u32::MAX), None);
    }
}
