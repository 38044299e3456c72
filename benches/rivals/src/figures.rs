//! What a run has measured, as it is kept beside the plots, so that the report can be drawn again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::contestants::{Contestant, Place};
use crate::ground::median;
use crate::machine::Machine;
use crate::work::Work;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    /// The day, in UTC.
    pub(crate) date: String,
    pub(crate) minutes: u64,
    pub(crate) rounds: u32,
    /// The arguments that were given, as typed.
    pub(crate) arguments: String,
    /// Rivals that the program was built without.
    pub(crate) left_out: Vec<String>,
    pub(crate) works: Vec<WorkFigures>,
}

/// All that was measured of one kind of work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkFigures {
    pub(crate) work: String,
    pub(crate) entries: Vec<Entry>,
}

/// One contestant in one kind of work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) contestant: String,
    pub(crate) version: String,
    /// Operations a second, one for each round.
    pub(crate) rates: Vec<f64>,
    /// The records of a pass: fewer than usual for one that takes long.
    pub(crate) records: u64,
    /// Why there is a rate less, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

impl Figures {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| {
            format!(
                "cannot read {}; a run without --redraw writes it",
                path.display()
            )
        })?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no figures of this version", path.display()))
    }

    /// A contestant or a work that is not in this program.
    pub(crate) fn unknown(&self) -> Option<&str> {
        let work = self.works.iter().find(|figures| figures.work().is_none());
        let mut entries = self.works.iter().flat_map(|figures| &figures.entries);
        let entry = entries.find(|entry| Contestant::find(&entry.contestant).is_none());
        let work = work.map(|figures| figures.work.as_str());
        work.or(entry.map(|entry| entry.contestant.as_str()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl WorkFigures {
    /// The work, if this version still knows it.
    pub(crate) fn work(&self) -> Option<&'static Work> {
        Work::find(&self.work)
    }

    /// Those that were measured, fastest first, with who they are.
    pub(crate) fn ranked(&self) -> Vec<(&Entry, &'static Contestant)> {
        let known = |entry| {
            let entry: &Entry = entry;
            let contestant = Contestant::find(&entry.contestant)?;
            (!entry.rates.is_empty()).then_some((entry, contestant))
        };
        let mut ranked: Vec<_> = self.entries.iter().filter_map(known).collect();
        ranked.sort_by(|(a, _), (b, _)| b.median().total_cmp(&a.median()));
        ranked
    }

    /// The fastest of those in this place.
    pub(crate) fn best(&self, place: Place) -> Option<(&Entry, &'static Contestant)> {
        let ranked = self.ranked();
        ranked
            .into_iter()
            .find(|(_, contestant)| contestant.place == place)
    }
}

impl Entry {
    /// # Panics
    /// Where nothing was measured.
    pub(crate) fn median(&self) -> f64 {
        median(&mut self.rates.clone())
    }

    /// The slowest and the fastest round.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let slowest = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let fastest = self.rates.iter().copied().fold(0.0, f64::max);
        (slowest, fastest)
    }
}
