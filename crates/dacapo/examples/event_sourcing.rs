//! State that is rebuilt from its events: accounts, and the transfers between them.
//!
//! The events are the truth. A snapshot is the state behind some event, with that place: a restart
//! loads it and replays only what came after. Delete it, and everything is replayed. Run it several
//! times.
//!
//! ```text
//! cargo run -p dacapo --example event_sourcing [DIR]
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use dacapo::{Checkpoint, Epoch, Offset, ReplayChannel, Start};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Event {
    Opened { account: String },
    Deposited { account: String, amount: u64 },
}

/// What the events amount to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Accounts(BTreeMap<String, u64>);

impl Accounts {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Opened { account } => drop(self.0.entry(account).or_default()),
            Event::Deposited { account, amount } => {
                *self.0.entry(account).or_default() += amount;
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    accounts: Accounts,
    /// The next event that is not in it, and the epoch: with it, the log notices if a power cut has
    /// undone events that the snapshot has seen.
    offset: u64,
    epoch: u64,
}

impl Snapshot {
    fn load(path: &Path) -> Option<Self> {
        // A snapshot that is damaged, or not there, costs a replay.
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn store(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, path)?; // the old one or the new one, and never half of it
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join("dacapo-accounts"),
        PathBuf::from,
    );
    let events = ReplayChannel::<Event>::open(&dir)?;
    let path = dir.join("snapshot.json");

    let (mut accounts, start) = match Snapshot::load(&path) {
        Some(snapshot) => {
            let (offset, epoch) = (Offset::new(snapshot.offset), Epoch::new(snapshot.epoch));
            println!("snapshot before event {offset}");
            let start = Start::Resume(Checkpoint { offset, epoch });
            (snapshot.accounts, start)
        }
        None => (Accounts::default(), Start::Oldest),
    };
    let receiver = events.receiver_at(start);
    let mut replayed = 0;
    while let Some(event) = receiver.try_receive()? {
        accounts.apply(event);
        replayed += 1;
    }
    println!("replayed {replayed} events: {accounts:?}");

    let sender = events.sender();
    for account in ["ada", "grace"] {
        let account = || account.to_owned();
        sender.send_batch(&[
            Event::Opened { account: account() },
            Event::Deposited {
                account: account(),
                amount: 10,
            },
        ])?; // both or none
    }
    while let Some(event) = receiver.try_receive()? {
        accounts.apply(event);
    }
    println!("now {accounts:?}");

    // What the snapshot has seen has to be as safe as the snapshot.
    events.log().sync()?;
    let Checkpoint { offset, epoch } = receiver.checkpoint();
    let (offset, epoch) = (offset.get(), epoch.get());
    Snapshot {
        accounts,
        offset,
        epoch,
    }
    .store(&path)
}
