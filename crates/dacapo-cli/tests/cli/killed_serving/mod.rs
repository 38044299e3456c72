//! `dacapo serve` killed again and again, under clients that go on by themselves.
//!
//! By hand, for more kills, and for those of a run that failed:
//!
//! ```text
//! DACAPO_KILLS=20 DACAPO_KILLS_SEED=7 cargo test --release -p dacapo-cli --test cli killed_serving
//! ```

mod megaphone;
mod phoenix;
mod streams;

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;

use crate::process::tell;
use crate::server::Server;

/// Far more than anything takes: what takes longer hangs.
const HANGS: Duration = Duration::from_secs(50);

/// A server, killed and started again on the same directory.
struct Victim {
    dir: TempDir,
    options: &'static [&'static str],
    server: Server,
    random: fastrand::Rng,
    seed: u64,
    life: watch::Sender<Life>,
    acknowledged: watch::Sender<u64>,
    is_over: watch::Sender<bool>,
}

/// One run of the server; each has an address of its own.
#[derive(Clone, Copy, Debug)]
struct Life {
    number: u64,
    address: SocketAddr,
}

/// What each client knows of the run.
#[derive(Clone)]
struct Storm {
    lives: watch::Receiver<Life>,
    acknowledged: watch::Sender<u64>,
    is_over: watch::Receiver<bool>,
}

impl Victim {
    fn start(options: &'static [&'static str]) -> Self {
        let seed = by_hand("DACAPO_KILLS_SEED", fastrand::u64(..1_000_000));
        // Shown when the test fails.
        println!("DACAPO_KILLS_SEED={seed}");
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("log"), options);
        let life = Life {
            number: 0,
            address: server.address(),
        };
        Self {
            dir,
            options,
            server,
            random: fastrand::Rng::with_seed(seed),
            seed,
            life: watch::channel(life).0,
            acknowledged: watch::channel(0).0,
            is_over: watch::channel(false).0,
        }
    }

    fn storm(&self) -> Storm {
        Storm {
            lives: self.life.subscribe(),
            acknowledged: self.acknowledged.clone(),
            is_over: self.is_over.subscribe(),
        }
    }

    /// Kills it as often as the run is long, each time when up to so many more are acknowledged, and tells
    /// the clients to come to an end.
    async fn storm_through(&mut self, acknowledged_max: u64) {
        for kill in 1..=kills() {
            let enough = *self.acknowledged.borrow() + self.random.u64(..acknowledged_max);
            let mut acknowledged = self.acknowledged.subscribe();
            let acknowledged = acknowledged.wait_for(|&count| count >= enough);
            let come = tokio::time::timeout(HANGS, acknowledged).await;
            assert!(
                come.is_ok(),
                "kill {kill}, {}: {} acknowledged, and no more",
                self.seed_text(),
                *self.acknowledged.borrow()
            );
            self.restart();
        }
        self.is_over.send_replace(true);
    }

    fn restart(&mut self) {
        self.server.kill_and_wait();
        self.server = Server::start(&self.dir.path().join("log"), self.options);
        let address = self.server.address();
        self.life.send_modify(|life| {
            *life = Life {
                number: life.number + 1,
                address,
            }
        });
    }

    fn seed_text(&self) -> String {
        format!("DACAPO_KILLS_SEED={}", self.seed)
    }

    /// Says what the run has covered.
    fn tell(&self, what: impl Display) {
        let acknowledged = *self.acknowledged.borrow();
        tell(format_args!(
            "{} kills of dacapo serve, {}: {acknowledged} acknowledged, none lost; {what}",
            kills(),
            self.seed_text()
        ));
    }
}

impl Storm {
    fn life(&mut self) -> Life {
        *self.lives.borrow_and_update()
    }

    /// Waits until a life is over in which a client has lost its connection.
    async fn after(&mut self, life: Life, lost: impl Display) {
        let next = self.lives.wait_for(|now| now.number > life.number);
        let come = tokio::time::timeout(HANGS, next).await;
        assert!(
            come.is_ok(),
            "life {} of the server goes on, and a client was cut off: {lost}",
            life.number
        );
    }

    fn acknowledge(&self) {
        self.acknowledged.send_modify(|count| *count += 1);
    }

    fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }
}

/// What a client waits for.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let come = tokio::time::timeout(HANGS, what).await;
    come.expect("a client waits for what never comes")
}

fn kills() -> u64 {
    by_hand("DACAPO_KILLS", 3)
}

/// A number that the environment may give, for the long form of a test.
fn by_hand<T: FromStr>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).map_or(otherwise, |value| match value.parse() {
        Ok(number) => number,
        Err(_) => panic!("{variable} is {value:?}, and no number"),
    })
}
