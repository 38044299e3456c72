//! `dacapo serve`: a log over HTTP, by each of the protocols of the crate `dacapo-server`.
//!
//! Here: what is asked for, and an orderly end. Which faces there are is in `faces`.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use dacapo_log::{Compaction, Log, Topic};
use dacapo_server::connections::Server;
use dacapo_server::metrics::Metrics;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::UsageError;
use crate::amounts::{parse_bytes, parse_duration};

mod door;
mod faces;
mod security;

use faces::{Face, Faces};
use security::{Security, SecurityArgs};

/// Serve a log over HTTP: Durable Streams, realtime events, Phoenix channels, Megaphone's channels
///
/// What one of these appends, the others replay and follow: a stream, the topic of a Phoenix channel
/// and the realtime events are topics of the one log. What is acknowledged survives a power cut, and
/// readers see nothing that does not. Topics that begin with `__` are the server's own.
///
/// Ends with SIGINT or SIGTERM: appends are finished, reads that wait are answered, clients are told to
/// come back, the log is closed. SIGHUP reads the files of tokens and
/// keys and the certificate again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo serve log
  dacapo serve log --listen 0.0.0.0:4437 --token-file tokens \\
    --tls-certificate certificate.pem --tls-key key.pem
  curl -X PUT -H 'Content-Type: text/plain' http://127.0.0.1:4437/v1/stream/notes
  curl -X POST -H 'Content-Type: text/plain' -d hello http://127.0.0.1:4437/v1/stream/notes
  curl http://127.0.0.1:4437/v1/stream/notes
  curl -N 'http://127.0.0.1:4437/v1/stream/notes?offset=-1&live=sse'

  curl -N 'http://127.0.0.1:4437/v1/events?from=oldest'

/v1/stream/ has the streams, /v1/events and /ws the realtime events, which are the records of one topic
of JSON, /socket the Phoenix channels, and /create, /read/, /write/ and so on Megaphone's. /health is for
whoever looks whether it runs.

/metrics is for Prometheus; with tokens, it takes one with the right to read all topics.

A file of tokens has one a line, TOKEN RIGHTS [PREFIX]: rights are read, append and admin, with commas
between, and a prefix limits them to topics whose names begin with it. A token is said as
`Authorization: Bearer TOKEN`, and by phoenix.js as authToken. For an EventSource or a WebSocket of a
browser, which cannot send it, POST /v1/url-tokens {\"topic\":\"notes\",\"rights\":[\"read\"]} yields one for
?access_token=, good for a minute and one topic.")]
pub(crate) struct Args {
    /// The log's directory; created if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4437")]
    listen: SocketAddr,

    #[command(flatten)]
    security: SecurityArgs,

    /// By which protocols it is served, with commas between
    #[arg(long, value_name = "FACES", value_delimiter = ',', num_args = 1..,
          default_value = "streams,realtime,phoenix,megaphone")]
    faces: Vec<Face>,

    /// The topic whose records are the realtime events
    #[arg(long, value_name = "TOPIC", default_value = "events")]
    realtime_topic: Topic,

    /// Let scripts of any web site use the streams
    #[arg(long)]
    cors: bool,

    /// How long a long-poll waits for data
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    long_poll_timeout: Duration,

    /// After how long a response of server-sent events ends, for the client to come back
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    sse_duration: Duration,

    /// The largest body of a request
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = parse_bytes)]
    body_bytes_max: u64,

    /// How much one read returns; the last message may go beyond it
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_bytes)]
    page_bytes_max: u64,

    /// Cut off clients with whom nothing was exchanged for so long; longer than --long-poll-timeout
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    idle_timeout: Duration,

    /// How often all streams are looked at, for those whose time is over
    ///
    /// One that is asked for is deleted at once; the others give their space back then.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    sweep_interval: Duration,

    /// How long responses on their way may take once it is to end
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,

    /// The size of a segment file once the log has grown: 16K to 1G; an append fits into one
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_bytes)]
    segment_bytes_max: u64,

    /// The form of the log lines on standard error
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_form: LogForm,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.security.check(args.listen)?;
    if args.idle_timeout <= args.long_poll_timeout {
        let refused = "--idle-timeout must be longer than --long-poll-timeout".to_owned();
        return Err(UsageError(refused).into());
    }
    log_to_stderr(args.log_form);
    allow_many_connections();
    let log = Log::options()
        .segment_bytes_max(args.segment_bytes_max)
        // Of Megaphone's channels, the newest record is the state.
        .topic_limit("__mp/c/", 1)
        .topic_limit("__mp/told/", 1)
        .compaction(Compaction::default())
        .open(&args.dir)?;
    // Behind the log, whose directory it may be that keys are in.
    let security = args.security.load(&args.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(args, &log, &security));
    // Whoever still reads is cut off.
    runtime.shutdown_background();
    let closed = log.close();
    served?;
    closed.context("cannot close the log")?;
    tracing::info!("closed");
    Ok(crate::OK)
}

async fn serve(args: &Args, log: &Log, security: &Security) -> anyhow::Result<()> {
    // Before anybody can know that it runs.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.listen))?;
    let address = listener.local_addr()?;
    let metrics = Metrics::default();
    let (faces, app) = Faces::open(args, log, security, &metrics)?;
    let server = Server::new(listener)
        .config(args.security.connections(args.idle_timeout))
        .counted_in(&metrics);
    let server = match &security.tls {
        Some(tls) => server.tls(tls.clone()),
        None => server,
    };
    let mut server = std::pin::pin!(server.serve(app, faces.ending()));
    let scheme = if security.tls.is_some() {
        "https"
    } else {
        "http"
    };

    tracing::info!(%address, dir = %args.dir.display(), next = %log.next_offset(), "serving");
    // For those who asked for any free port, and who wait until it runs.
    crate::print(format!("Listening on {scheme}://{address}\n"))?;
    loop {
        tokio::select! {
            () = &mut server => anyhow::bail!("the server ended"),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
            _ = signals.hangup.recv() => {
                security.reload();
                faces.tokens_were_read_again();
            }
        }
    }
    tracing::info!("shutting down");
    let ending = async { tokio::join!(faces.end(), server).1 };
    match tokio::time::timeout(args.grace, ending).await {
        Ok(()) => Ok(()),
        Err(_) => {
            tracing::warn!(grace = ?args.grace, "clients that still read are cut off");
            Ok(())
        }
    }
}

/// Those that end the server, and the one that has it read its tokens again.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Each connection is a descriptor, of which a process may often have no more than 1,024 unless it asks.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, at_most = ?limit.current, "the limit on open files stays");
    }
}

fn log_to_stderr(form: LogForm) {
    let colours = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(colours);
    match form {
        LogForm::Text => lines.init(),
        LogForm::Json => lines.json().init(),
    }
}
