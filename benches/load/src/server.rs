//! The servers that can be put under load, and how each of them is asked for the same thing.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::http::Connection;
use crate::process::Process;

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `dacapo serve`
    Dacapo,
    /// nginx with nchan, which keeps messages in memory
    Nchan,
    /// The crate `durable-streams`, Electric's server
    DurableStreams,
}

/// A server that answers.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// `None` of one that runs elsewhere.
    pub(crate) process: Option<Process>,
    _started: Option<Started>,
}

/// A server of our own: killed with all its processes, and its files deleted, at the end.
struct Started {
    group: Pid,
    _child: Child,
    _dir: TempDir,
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that has ended by itself has said why when it was asked.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// Where the programs are, and where their files shall be.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) dacapo: PathBuf,
    pub(crate) nginx: PathBuf,
    pub(crate) durable_streams: PathBuf,
    /// `None` for where temporary files are.
    pub(crate) dir: Option<PathBuf>,
}

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);

impl Server {
    pub(crate) fn running(address: SocketAddr, pid: Option<u32>) -> Self {
        Self {
            kind: Kind::Dacapo,
            address,
            process: pid.map(Process),
            _started: None,
        }
    }

    /// Starts one with nothing in it, and returns once it answers.
    pub(crate) async fn start(kind: Kind, programs: &Programs) -> anyhow::Result<Self> {
        let dir = match &programs.dir {
            Some(parent) => tempfile::tempdir_in(parent)?,
            None => tempfile::tempdir()?,
        };
        let address = free_address()?;
        let (mut command, program) = match kind {
            Kind::Dacapo => (dacapo(dir.path(), address, programs), &programs.dacapo),
            Kind::Nchan => (nchan(dir.path(), address, programs)?, &programs.nginx),
            Kind::DurableStreams => (
                durable_streams(dir.path(), address, programs),
                &programs.durable_streams,
            ),
        };
        let lines = dir.path().join("lines");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(File::create(&lines)?))
            .stderr(Stdio::from(File::options().append(true).open(&lines)?))
            // Its workers are killed with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.with_context(|| {
            format!(
                "cannot start {}; see --help for where it is looked for",
                program.display()
            )
        })?;
        let pid = child.id().context("it has ended already")?;
        let group = Pid::from_raw(i32::try_from(pid)?).context("its id is 0")?;
        let answers = async {
            loop {
                if let Some(status) = child.try_wait()? {
                    bail!("it ended with {status}");
                }
                if Connection::open(address).await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let answered = tokio::time::timeout(START_MAX, answers).await;
        if let Err(error) = answered.context("it does not listen").flatten() {
            let said = fs::read_to_string(&lines).unwrap_or_default();
            return Err(error.context(format!("{} does not start: {said}", program.display())));
        }
        Ok(Self {
            kind,
            address,
            process: Some(Process(pid)),
            _started: Some(Started {
                group,
                _child: child,
                _dir: dir,
            }),
        })
    }

    /// Where messages of a topic are sent to, with POST.
    pub(crate) fn append_path(&self, topic: &str) -> String {
        match self.kind {
            Kind::Dacapo | Kind::DurableStreams => format!("/v1/stream/{topic}"),
            Kind::Nchan => format!("/publish/{topic}"),
        }
    }

    /// Where server-sent events come from that are sent from now on.
    pub(crate) fn follow_path(&self, topic: &str) -> String {
        match self.kind {
            Kind::Dacapo | Kind::DurableStreams => {
                format!("/v1/stream/{topic}?offset=now&live=sse")
            }
            Kind::Nchan => format!("/follow/{topic}"),
        }
    }

    /// Where server-sent events come from, from the first one on.
    pub(crate) fn replay_path(&self, topic: &str) -> String {
        match self.kind {
            Kind::Dacapo | Kind::DurableStreams => format!("/v1/stream/{topic}?offset=-1&live=sse"),
            Kind::Nchan => format!("/replay/{topic}"),
        }
    }

    /// Whether one request can bring many messages, and many can be read as one page.
    pub(crate) fn has_batches(&self) -> bool {
        self.kind != Kind::Nchan
    }

    /// Makes a topic, where that is asked for.
    pub(crate) async fn create(&self, topic: &str) -> anyhow::Result<()> {
        if self.kind == Kind::Nchan {
            return Ok(());
        }
        let mut connection = Connection::open(self.address).await?;
        // The type is said by a body; `[]` is none.
        let path = self.append_path(topic);
        connection
            .ask(Method::PUT, &path, Bytes::from_static(b"[]"))
            .await?;
        Ok(())
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?)
}

fn dacapo(dir: &Path, address: SocketAddr, programs: &Programs) -> Command {
    let mut command = Command::new(&programs.dacapo);
    command.arg("serve").arg(dir.join("log"));
    command.arg("--listen").arg(address.to_string());
    // Nothing ends while it is measured.
    command.args(["--connections-max", "30000", "--sse-duration", "1h"]);
    command.args(["--idle-timeout", "2h"]);
    command
}

fn durable_streams(dir: &Path, address: SocketAddr, programs: &Programs) -> Command {
    let mut command = Command::new(&programs.durable_streams);
    command.arg("--data-dir").arg(dir.join("data"));
    command.arg("--host").arg(address.ip().to_string());
    command.arg("--port").arg(address.port().to_string());
    command.args(["--durability", "wal"]);
    command
}

fn nchan(dir: &Path, address: SocketAddr, programs: &Programs) -> anyhow::Result<Command> {
    let module = "/usr/lib/nginx/modules/ngx_nchan_module.so";
    let config = dir.join("nginx.conf");
    let text = format!(
        "load_module {module};
user root;
daemon off;
worker_processes auto;
worker_rlimit_nofile 30000;
pid {dir}/pid;
error_log stderr;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    client_body_temp_path {dir}/bodies;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 1024m;
    nchan_message_buffer_length 1000000;
    nchan_message_timeout 1h;
    server {{
        listen {address};
        location ~ ^/publish/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
        }}
        location ~ ^/follow/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_subscriber_first_message newest;
            nchan_channel_id $1;
        }}
        location ~ ^/replay/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_subscriber_first_message oldest;
            nchan_channel_id $1;
        }}
    }}
}}
",
        dir = dir.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(&programs.nginx);
    command.arg("-c").arg(config).arg("-e").arg("stderr");
    Ok(command)
}
