//! `dacapo serve`: a log over HTTP, by each of the protocols of the crate `dacapo-server`.
//!
//! Here: what is asked for, and an orderly end. Which faces there are is in `faces`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Context;
use clap::ArgMatches;
use dacapo_log::{Compaction, Log};
use dacapo_server::auth::Tokens;
use dacapo_server::connections::Bounded;
use dacapo_server::metrics::Metrics;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod door;
mod faces;
mod layers;
mod settings;

use faces::Faces;
use layers::Layers;
pub(crate) use settings::Args;
use settings::LogFormat;

/// With what the command line and the environment say.
pub(crate) fn run(given: &ArgMatches) -> anyhow::Result<ExitCode> {
    let layers = Layers::resolve(given)?;
    let args = &layers.args;
    args.check()?;
    if args.print_config {
        crate::print(layers.to_toml())?;
        return Ok(crate::OK);
    }
    log_to_stderr(args);
    for variable in layers::unknown_variables() {
        tracing::warn!(variable, "no setting has this name");
    }
    allow_many_connections();
    let tokens = args.token_file.as_ref().map(Tokens::load).transpose()?;
    let log = Log::options()
        .segment_bytes_max(args.segment_bytes_max)
        // Of Megaphone's channels, the newest record is the state.
        .topic_limit("__mp/c/", 1)
        .topic_limit("__mp/told/", 1)
        .compaction(Compaction::default())
        .open(args.dir.as_ref().expect("checked above"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(args, &log, tokens));
    // Whoever still reads is cut off.
    runtime.shutdown_background();
    let closed = log.close();
    served?;
    closed.context("cannot close the log")?;
    tracing::info!("closed");
    Ok(crate::OK)
}

async fn serve(args: &Args, log: &Log, tokens: Option<Tokens>) -> anyhow::Result<()> {
    // Before anybody can know that it runs.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.listen))?;
    let address = listener.local_addr()?;
    let metrics = Metrics::default();
    let (faces, app) = Faces::open(args, log, tokens.as_ref(), &metrics)?;
    let ended = faces.ending().cancelled_owned();
    let listener = Bounded::new(listener, args.connections_max)
        .counted_in(&metrics)
        .idle_max(args.idle_timeout);
    // As it is, all routes would be copied for each connection.
    let app = app.into_make_service();
    let server = axum::serve(listener, app).with_graceful_shutdown(ended);
    let mut server = std::pin::pin!(std::future::IntoFuture::into_future(server));

    tracing::info!(%address, dir = %log.dir().display(), next = %log.next_offset(), "serving");
    // For those who asked for any free port, and who wait until it runs.
    crate::print(format!("Listening on http://{address}\n"))?;
    loop {
        tokio::select! {
            ended = &mut server => return ended.context("the server ended"),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
            _ = signals.hangup.recv() => match tokens.as_ref().map(Tokens::reload) {
                Some(Ok(())) => {
                    tracing::info!("the tokens were read again");
                    faces.tokens_were_read_again();
                }
                Some(Err(error)) => tracing::error!(%error, "the tokens are those of before"),
                None => {}
            },
        }
    }
    tracing::info!("shutting down");
    let ending = async { tokio::join!(faces.end(), server).1 };
    match tokio::time::timeout(args.grace, ending).await {
        Ok(ended) => ended.context("the server ended"),
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

fn log_to_stderr(args: &Args) {
    let colours = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(args.log_level)
        .with_ansi(colours);
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}
