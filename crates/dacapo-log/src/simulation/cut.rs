//! What a power cut leaves of a disk: of all that was not synced, whatever chance decides.

use std::collections::BTreeMap;

use super::random::Random;
use crate::disk::{NameChange, SECTOR_BYTES, State};

const SECTORS_PER_PAGE: usize = 8;

/// What becomes of a sector that was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Old,
    New,
    Zero,
    /// Bytes of chance.
    Garbage,
    /// What another file holds, or held, at the same place.
    Stale,
    /// So many bytes of the new content, then the old.
    Torn(usize),
    /// So many bytes of the old content, then the new.
    TornBackwards(usize),
}

/// How a power cut picks fates.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    /// Nothing reached the disk.
    AllOld,
    /// Everything did.
    AllNew,
    /// Everything but this one, counted over all files.
    OneLost(usize),
    /// Everything before this one, and nothing behind it.
    Until(usize),
    /// So many of ten did.
    Mixed(u64),
}

/// What power cuts have done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Toll {
    pub(crate) sectors_lost: u64,
    pub(crate) sectors_torn: u64,
    pub(crate) sectors_stale: u64,
    pub(crate) names_lost: u64,
}

impl Toll {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sectors_lost += other.sectors_lost;
        self.sectors_torn += other.sectors_torn;
        self.sectors_stale += other.sectors_stale;
        self.names_lost += other.names_lost;
    }
}

/// One power cut.
pub(crate) struct Cut<'a> {
    pub(crate) random: Random,
    pub(crate) toll: &'a mut Toll,
}

/// A file that may have kept its name: what the disk holds for certain, and what was written.
struct Survivor {
    certain: Vec<u8>,
    written: Vec<u8>,
}

impl Cut<'_> {
    /// Names and contents of the files that are there afterwards.
    pub(crate) fn survivors(&mut self, state: &State) -> BTreeMap<String, Vec<u8>> {
        let names = self.surviving_names(state);
        let mut files: BTreeMap<String, Survivor> = BTreeMap::new();
        for (name, inode) in names {
            // A name that came back may stand for a file of which nothing else is left.
            let Some(inode) = state.files.get(&inode) else {
                continue;
            };
            let (mut certain, mut written) = (inode.durable.clone(), inode.content());
            let len = match self.random.below(3) {
                0 => certain.len(),
                1 => written.len(),
                _ => {
                    let (short, long) = (
                        certain.len().min(written.len()),
                        certain.len().max(written.len()),
                    );
                    short + self.random.index(long - short + 1)
                }
            };
            certain.resize(len, 0);
            written.resize(len, 0);
            files.insert(name, Survivor { certain, written });
        }
        self.settle(state, &mut files);
        files
            .into_iter()
            .map(|(name, file)| (name, file.written))
            .collect()
    }

    /// Changes of names survive in order up to some point, or each for itself.
    fn surviving_names(&mut self, state: &State) -> BTreeMap<String, u64> {
        let mut names = state.durable_names.clone();
        let in_order = self.random.one_in(2);
        let kept = self.random.index(state.changes.len() + 1);
        let rate = *self.random.pick(&[0, 5, 10]);
        for (i, change) in state.changes.iter().enumerate() {
            let survives = match in_order {
                true => i < kept,
                false => self.random.below(10) < rate,
            };
            if !survives {
                self.toll.names_lost += 1;
                continue;
            }
            match change {
                NameChange::Create(name, inode) => {
                    names.insert(name.clone(), *inode);
                }
                NameChange::Rename(from, to, inode) => {
                    if names.get(from) == Some(inode) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *inode);
                }
                NameChange::Remove(name) => {
                    names.remove(name);
                }
            }
        }
        names
    }

    /// Leaves of every sector in doubt what the weather leaves, in `written`.
    fn settle(&mut self, state: &State, files: &mut BTreeMap<String, Survivor>) {
        let doubtful: Vec<(String, usize)> = files
            .iter()
            .flat_map(|(name, file)| {
                let sectors = 0..file.written.len().div_ceil(SECTOR_BYTES);
                let differs = |&i: &usize| sector(&file.certain, i) != sector(&file.written, i);
                sectors.filter(differs).map(|i| (name.clone(), i))
            })
            .collect();
        let n = doubtful.len().max(1);
        let weather = match self.random.below(10) {
            0 => Weather::AllOld,
            1 => Weather::AllNew,
            2 | 3 => Weather::OneLost(self.random.index(n)),
            4 | 5 => Weather::Until(self.random.index(n)),
            _ => Weather::Mixed(self.random.below(11)),
        };
        let whole_pages = self.random.one_in(4);
        let others: Vec<Vec<u8>> = state
            .attic
            .iter()
            .cloned()
            .chain(files.values().map(|file| file.written.clone()))
            .collect();
        let mut last: Option<(&str, usize, Fate)> = None;
        for (nth, (name, i)) in doubtful.iter().enumerate() {
            let page = i / SECTORS_PER_PAGE;
            let fate = match last {
                Some((file, before, fate)) if whole_pages && file == name && before == page => fate,
                _ => self.fate(weather, nth),
            };
            last = Some((name, page, fate));
            let file = files.get_mut(name).expect("listed above");
            let left = self.outcome(fate, &others, file, *i);
            let start = i * SECTOR_BYTES;
            file.written[start..start + left.len()].copy_from_slice(&left);
        }
    }

    fn fate(&mut self, weather: Weather, nth: usize) -> Fate {
        let arrives = match weather {
            Weather::AllOld => return Fate::Old,
            Weather::AllNew => return Fate::New,
            Weather::Until(last) if nth > last => return Fate::Old,
            Weather::Until(last) => nth < last,
            Weather::OneLost(lost) => nth != lost,
            Weather::Mixed(rate) => self.random.below(10) < rate,
        };
        if arrives {
            return Fate::New;
        }
        match self.random.below(12) {
            0..5 => Fate::Old,
            5 | 6 => Fate::Zero,
            7 => Fate::Garbage,
            8 | 9 => Fate::Stale,
            10 => Fate::Torn(1 + self.random.index(SECTOR_BYTES - 1)),
            _ => Fate::TornBackwards(1 + self.random.index(SECTOR_BYTES - 1)),
        }
    }

    fn outcome(&mut self, fate: Fate, others: &[Vec<u8>], file: &Survivor, i: usize) -> Vec<u8> {
        let (old, new) = (sector(&file.certain, i), sector(&file.written, i));
        let joined = |cut: usize, head: &[u8], tail: &[u8]| {
            let cut = cut.min(head.len());
            [&head[..cut], &tail[cut..]].concat()
        };
        self.toll.sectors_lost += u64::from(fate != Fate::New);
        match fate {
            Fate::Old => old.to_vec(),
            Fate::New => new.to_vec(),
            Fate::Zero => vec![0; new.len()],
            Fate::Garbage => self.random.bytes(new.len()),
            Fate::Stale => {
                self.toll.sectors_stale += 1;
                let other: &Vec<u8> = self.random.pick(others);
                let mut bytes = sector(other, i).to_vec();
                bytes.resize(new.len(), 0);
                bytes
            }
            Fate::Torn(cut) => {
                self.toll.sectors_torn += 1;
                joined(cut, new, old)
            }
            Fate::TornBackwards(cut) => {
                self.toll.sectors_torn += 1;
                joined(cut, old, new)
            }
        }
    }
}

fn sector(bytes: &[u8], i: usize) -> &[u8] {
    let end = ((i + 1) * SECTOR_BYTES).min(bytes.len());
    bytes.get(i * SECTOR_BYTES..end).unwrap_or_default()
}
