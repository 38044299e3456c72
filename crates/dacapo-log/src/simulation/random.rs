//! Where a simulation's decisions come from: a seed, or the bytes that a fuzzer made up.

/// splitmix64 (Steele, Lea and Flood: Fast splittable pseudorandom number generators, 2014), behind
/// a script that may be empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Random {
    script: std::collections::VecDeque<u8>,
    state: u64,
}

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            script: std::collections::VecDeque::new(),
            state: seed,
        }
    }

    /// Decides as the bytes say, one byte a decision, and after the last one by chance.
    pub(crate) fn scripted(script: &[u8]) -> Self {
        Self {
            script: script.iter().copied().collect(),
            state: 0,
        }
    }

    /// Another source of decisions, itself decided by this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self::seeded(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let choice = match self.script.pop_front() {
            // Spread over the whole range, so that a byte can choose far ends too.
            Some(byte) if end > 256 => u64::from(byte) * (end / 256),
            Some(byte) => byte.into(),
            None => self.next(),
        };
        choice % end
    }

    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("below a usize")
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .collect();
        bytes.truncate(len);
        bytes
    }
}
