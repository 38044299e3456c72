//! The records of one topic in one segment: ascending numbers, in few bits.
//!
//! The first and the last one are known. Those between them are Golomb-Rice codes (Rice, Plaunt: Adaptive
//! variable-length coding, 1971) of the gaps. A parameter fits a mean gap, and that is known too: so many
//! numbers between two. Where another one fits better, or no gap is short, the codes begin with that.

/// How the gaps are written.
#[derive(Clone, Copy)]
struct Code {
    /// What is taken from each gap.
    least: u32,
    /// Bits of the rest that are stored as they are.
    plain: u32,
}

/// How many bits it takes to say how many bits are plain, how many the least gap has, and no more.
const PLAIN_BITS: u32 = 5;
const LEAST_BITS: u32 = 6;

impl Code {
    /// What is to be expected of so many numbers between these two.
    fn expected(count: u32, first: u32, last: u32) -> Self {
        let mean = last.saturating_sub(first) / (count - 1).max(1);
        Self {
            least: 0,
            plain: mean.max(1).ilog2(),
        }
    }

    /// The best one for these gaps.
    fn fitted(gaps: impl Iterator<Item = u32> + Clone) -> Self {
        let least = gaps.clone().min().unwrap_or(0);
        let (count, sum) = gaps.clone().fold((0, 0), |(count, sum), gap| {
            (count + 1, sum + u64::from(gap - least))
        });
        let mean = sum / u64::max(count, 1);
        let highest = (mean.max(1).ilog2() + 1).min((1 << PLAIN_BITS) - 1);
        let all = (0..=highest).rev().map(|plain| Self { least, plain });
        let bits = |code: &Self| code.bits(gaps.clone());
        all.min_by_key(bits).expect("0 is one")
    }

    fn bits(self, gaps: impl Iterator<Item = u32>) -> u64 {
        let of_one =
            |gap: u32| u64::from((gap - self.least) >> self.plain) + 1 + u64::from(self.plain);
        gaps.map(of_one).sum()
    }

    fn least_bits(self) -> u32 {
        u32::BITS - self.least.leading_zeros()
    }
}

/// The bytes of the numbers between the first and the last of `numbers`: ascending, without repetition.
pub(crate) fn encode_postings(numbers: &[u32], into: &mut Vec<u8>) {
    let &[first, _, .., last] = numbers else {
        return;
    };
    let between = &numbers[..numbers.len() - 1];
    if between.len() < 2 {
        return;
    }
    let gaps = between
        .windows(2)
        .map(|pair| pair[1].checked_sub(pair[0] + 1).expect("ascending"));
    let count = u32::try_from(numbers.len()).expect("each is another number of 32 bits");
    let mut bits = BitWriter {
        into,
        word: 0,
        filled: 0,
    };
    let (expected, fitted) = (
        Code::expected(count, first, last),
        Code::fitted(gaps.clone()),
    );
    let to_say_it = u64::from(PLAIN_BITS + LEAST_BITS + fitted.least_bits());
    let code = match fitted.bits(gaps.clone()) + to_say_it < expected.bits(gaps.clone()) {
        true => {
            bits.put(1, 1);
            bits.put(fitted.plain.into(), PLAIN_BITS);
            bits.put(fitted.least_bits().into(), LEAST_BITS);
            bits.put(fitted.least.into(), fitted.least_bits());
            fitted
        }
        false => {
            bits.put(0, 1);
            expected
        }
    };
    for gap in gaps {
        let gap = gap - code.least;
        // As many zeros as the gap has multiples, a one, and the rest.
        let mut zeros = gap >> code.plain;
        while zeros > 63 {
            bits.put(0, 63);
            zeros -= 63;
        }
        bits.put(1 << zeros, zeros + 1);
        bits.put(u64::from(gap) & ((1 << code.plain) - 1), code.plain);
    }
    bits.finish();
}

/// All numbers, the first and the last one included; `None` where these are not the bytes of `count`
/// numbers between them.
pub(crate) fn decode_postings(bytes: &[u8], count: u32, first: u32, last: u32) -> Option<Vec<u32>> {
    let between = match count {
        0 => return Some(Vec::new()),
        1 => return (first == last).then(|| vec![first]),
        count => count - 2,
    };
    let span = last.checked_sub(first).filter(|&span| span > between)?;
    // No more than the bytes can hold, whatever `count` says.
    let mut numbers = Vec::with_capacity((count as usize).min(bytes.len() * 8 + 2));
    numbers.push(first);
    if between > 0 {
        let mut bits = Bits {
            bytes,
            word: 0,
            filled: 0,
        };
        let code = bits.code(count, first, last)?;
        let mut previous = first;
        for _ in 0..between {
            let multiples = bits.zeros(span >> code.plain)?;
            let gap = (multiples << code.plain | bits.take(code.plain)?).checked_add(code.least)?;
            let number = previous.checked_add(gap)?.checked_add(1)?;
            if number >= last {
                return None;
            }
            numbers.push(number);
            previous = number;
        }
    }
    numbers.push(last);
    Some(numbers)
}

struct BitWriter<'a> {
    into: &'a mut Vec<u8>,
    word: u64,
    filled: u32,
}

impl BitWriter<'_> {
    /// Writes the `len` lowest bits.
    fn put(&mut self, mut bits: u64, mut len: u32) {
        while len > 0 {
            let room = (64 - self.filled).min(len);
            self.word |= (bits & (u64::MAX >> (64 - room))) << self.filled;
            self.filled += room;
            bits = bits.checked_shr(room).unwrap_or(0);
            len -= room;
            if self.filled == 64 {
                self.into.extend_from_slice(&self.word.to_le_bytes());
                (self.word, self.filled) = (0, 0);
            }
        }
    }

    fn finish(self) {
        let bytes = usize::try_from(self.filled.div_ceil(8)).expect("at most 8");
        self.into
            .extend_from_slice(&self.word.to_le_bytes()[..bytes]);
    }
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

    /// How the gaps are written, as they begin.
    fn code(&mut self, count: u32, first: u32, last: u32) -> Option<Code> {
        if self.take(1)? == 0 {
            return Some(Code::expected(count, first, last));
        }
        let plain = self.take(PLAIN_BITS)?;
        let least_bits = self.take(LEAST_BITS).filter(|&bits| bits <= u32::BITS)?;
        let least = self.take(least_bits)?;
        Some(Code { least, plain })
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

    /// The next `len` bits, at most 32, as a number.
    fn take(&mut self, len: u32) -> Option<u32> {
        self.fill();
        let bits = u32::try_from(self.word & ((1 << len) - 1)).expect("at most 32 bits");
        (len <= self.filled).then(|| {
            self.drop(len);
            bits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], numbers: &[u32]) -> Option<Vec<u32>> {
        let count = u32::try_from(numbers.len()).unwrap();
        let (first, last) = (*numbers.first().unwrap(), *numbers.last().unwrap());
        decode_postings(bytes, count, first, last)
    }

    /// How many bytes they take.
    fn round_trip(numbers: &[u32]) -> usize {
        let mut bytes = vec![];
        encode_postings(numbers, &mut bytes);
        assert_eq!(decoded(&bytes, numbers).unwrap(), numbers);
        bytes.len()
    }

    #[test]
    fn what_was_encoded_comes_back() {
        assert_eq!(round_trip(&[0]), 0);
        assert_eq!(round_trip(&[u32::MAX - 1]), 0);
        assert_eq!(round_trip(&[0, u32::MAX - 1]), 0);
        round_trip(&[0, 1, u32::MAX - 1]);
        round_trip(&[0, u32::MAX - 2, u32::MAX - 1]);
        round_trip(&[5, 6, 7, 1 << 20, (1 << 20) + 1, (1 << 29) - 1]);
        round_trip(&(0..1000).collect::<Vec<_>>());
        round_trip(&(0..1000).map(|n| n * n).collect::<Vec<_>>());
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
        let bytes = round_trip(&numbers);
        assert!(bytes < 2 * numbers.len(), "{bytes} for {}", numbers.len());
    }

    #[test]
    fn records_in_turn_take_a_bit_each() {
        let in_turn: Vec<u32> = (0..1000).map(|n| 7 + n * 10_000).collect();
        let bytes = round_trip(&in_turn);
        assert!(bytes <= 1000 / 8 + 5, "{bytes}");
    }

    #[test]
    fn numbers_that_cannot_lie_between_the_ends_are_refused() {
        assert_eq!(decode_postings(&[], 1, 3, 4), None);
        assert_eq!(decode_postings(&[], 2, 4, 4), None);
        assert_eq!(decode_postings(&[], 2, 4, 3), None);
        assert_eq!(decode_postings(&[0xFF; 9], 4, 0, 2), None);
        assert_eq!(decode_postings(&[], 3, 0, 7), None);
        assert_eq!(decode_postings(&[], u32::MAX, 0, u32::MAX), None);
        assert_eq!(decode_postings(&[0; 100], 3, 0, u32::MAX), None);
        // A least gap of 63 bits.
        assert_eq!(decode_postings(&[0xC1, 0xFF, 0xFF, 0xFF], 3, 0, 100), None);
    }

    #[test]
    fn other_bytes_are_refused_or_read_as_other_numbers() {
        let (as_expected, fitted) = ([3, 70, 200, 900], [3, 403, 803, 1203, 1603, 2003, 2403]);
        for numbers in [&as_expected[..], &fitted] {
            let mut bytes = vec![];
            encode_postings(numbers, &mut bytes);
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Some(read) = decoded(&flipped, numbers) {
                    assert!(read.is_sorted_by(|a, b| a < b), "{read:?}");
                    assert_eq!(read.len(), numbers.len());
                    assert_eq!(read.last(), numbers.last());
                }
            }
        }
    }
}
