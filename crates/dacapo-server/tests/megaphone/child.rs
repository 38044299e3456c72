//! A server in a process of its own, which can be killed: this test program, run again.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dacapo_log::Log;
use dacapo_server::megaphone::{self, MegaphoneConfig};
use tokio::net::TcpListener;

const ORDERS: &str = "DACAPO_MEGAPHONE_CHILD";
/// What the child says once it listens, behind whatever its test harness says.
const READY: &str = "child> ready";

pub(crate) struct ServerProcess(Child);

impl ServerProcess {
    /// Serves the log in `dir`, and listens when this returns.
    pub(crate) fn start(dir: &Path, port: u16) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "child::serves"])
            .env(ORDERS, format!("{port}\n{}", dir.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let mut lines = stdout.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains(READY)),
            "the server did not start"
        );
        Self(process)
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        assert_eq!(
            self.0.wait().unwrap().signal(),
            Some(9),
            "it ended by itself"
        );
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child. Of no test by itself.
#[test]
fn serves() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    // It ends with its parent.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let (port, dir) = orders.split_once('\n').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = MegaphoneConfig {
            // Reads end as they should between two kills, and break off with them.
            read_duration: Duration::from_millis(50),
            expire_after: None,
            ..MegaphoneConfig::default()
        };
        let app = megaphone::router(Log::open(dir).unwrap(), config).unwrap();
        let address = format!("127.0.0.1:{port}");
        let listener = TcpListener::bind(address).await.unwrap();
        println!("{READY}");
        std::io::stdout().flush().unwrap();
        axum::serve(listener, app).await.unwrap();
    });
}
