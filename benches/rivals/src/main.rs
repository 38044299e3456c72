//! Dacapo beside other logs, stores and channels on the same work.
//!
//! `cargo run --release --manifest-path benches/rivals/Cargo.toml` measures all of them round by round and
//! writes `docs/benchmarks.md`, with plots and the figures beside it. See the README here.

mod channels;
mod contestants;
mod figures;
mod ground;
mod machine;
mod plot;
mod report;
mod run;
mod stores;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use crate::figures::Figures;
use crate::machine::Machine;
use crate::run::Plan;
use crate::work::{Extent, WORKS, Work};

/// Measures Dacapo beside its rivals and the physical limit, and writes docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// How often everything is measured; the report gives medians and spread.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Only work whose name begins so, such as `append` or `fan-out-100`; may be given again. Prints the
    /// tables, and writes no report but to --out.
    #[arg(long, value_name = "WORK")]
    only: Vec<String>,

    /// A quarter of the records: for a first look.
    #[arg(long, conflicts_with = "long")]
    short: bool,

    /// Reopens a log of 1 GiB instead of 256 MiB; takes up to 3 GiB of space.
    #[arg(long)]
    long: bool,

    /// Where to measure: a directory on the disk that is asked about. 3 GiB should be free there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,

    /// Where benchmarks.md and the directory benchmarks go; docs of this repository by default.
    #[arg(long)]
    out: Option<PathBuf>,

    /// Measures nothing, and draws the report again from its figures.
    #[arg(long, conflicts_with_all = ["only", "short", "long", "dir", "rounds"])]
    redraw: bool,

    /// Lists the work and who takes part.
    #[arg(long)]
    list: bool,

    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One measurement, in a process of its own.
    #[command(hide = true)]
    Measure {
        work: String,
        contestant: String,
        #[arg(long)]
        extent: Extent,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Measure {
        work,
        contestant,
        extent,
    }) = &arguments.command
    {
        return run::measure(work, contestant, *extent);
    }
    if arguments.list {
        print!("{}", report::list());
        return Ok(());
    }
    let docs = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let out = match (&arguments.out, arguments.only.is_empty()) {
        (Some(out), _) => Some(out.clone()),
        (None, true) => Some(docs()),
        (None, false) => None,
    };
    let figures = match (&out, arguments.redraw) {
        (Some(out), true) => kept(&figures_path(out))?,
        _ => measured(&arguments)?,
    };
    match out {
        Some(out) => write(&figures, &out),
        None => {
            print!("{}", report::tables(&figures));
            Ok(())
        }
    }
}

fn figures_path(out: &Path) -> PathBuf {
    out.join("benchmarks/figures.json")
}

/// Figures of an earlier run.
fn kept(path: &Path) -> Result<Figures> {
    let figures = Figures::read(path)?;
    if let Some(name) = figures.unknown() {
        bail!(
            "{} has figures of {name}, which this program does not know: build it with all features",
            path.display()
        );
    }
    Ok(figures)
}

fn measured(arguments: &Arguments) -> Result<Figures> {
    ensure!(
        !cfg!(debug_assertions),
        "built without optimization, it would measure nothing: run it with --release"
    );
    let plan = Plan {
        works: chosen(&arguments.only)?,
        rounds: arguments.rounds,
        extent: arguments.extent(),
        dir: arguments.dir.clone(),
    };
    let machine = Machine::this(&plan.dir)?;
    let began = Instant::now();
    let works = run::run(&plan)?;
    Ok(Figures {
        machine,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        minutes: began.elapsed().as_secs().div_ceil(60),
        rounds: plan.rounds,
        arguments: arguments.typed(),
        left_out: contestants::LEFT_OUT
            .iter()
            .map(|&name| name.to_owned())
            .collect(),
        works,
    })
}

/// All work, or what begins with one of these.
fn chosen(only: &[String]) -> Result<Vec<&'static Work>> {
    for begin in only {
        ensure!(
            WORKS.iter().any(|work| work.id.starts_with(begin.as_str())),
            "no work begins with {begin:?}; there is: {}",
            WORKS.map(|work| work.id).join(", ")
        );
    }
    let asked = |work: &&Work| {
        only.is_empty() || only.iter().any(|begin| work.id.starts_with(begin.as_str()))
    };
    Ok(WORKS.iter().filter(asked).collect())
}

fn write(figures: &Figures, out: &Path) -> Result<()> {
    let beside = out.join("benchmarks");
    fs::create_dir_all(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
    figures.write(&figures_path(out))?;
    plot::draw(figures, &beside)?;
    let report = out.join("benchmarks.md");
    fs::write(&report, report::report(figures))
        .with_context(|| format!("cannot write {}", report.display()))?;
    println!("{}", report.display());
    Ok(())
}

impl Arguments {
    fn extent(&self) -> Extent {
        match (self.short, self.long) {
            (true, _) => Extent::Short,
            (_, true) => Extent::Long,
            _ => Extent::Usual,
        }
    }

    /// What has a bearing on the figures, to be typed again.
    fn typed(&self) -> String {
        let mut typed = format!("--rounds {}", self.rounds);
        for begin in &self.only {
            typed.push_str(&format!(" --only {begin}"));
        }
        match self.extent() {
            Extent::Short => typed.push_str(" --short"),
            Extent::Long => typed.push_str(" --long"),
            Extent::Usual => {}
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_chosen_by_how_its_name_begins() {
        let ids = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&begin| begin.to_owned()).collect();
            let works = chosen(&only);
            works.map(|works| works.iter().map(|work| work.id).collect::<Vec<_>>())
        };
        assert_eq!(
            ids(&["durable", "tail"]).unwrap(),
            ["durable-1", "durable-16", "tail"]
        );
        assert_eq!(ids(&[]).unwrap().len(), WORKS.len());
        let refused = ids(&["apend"]).unwrap_err().to_string();
        assert!(refused.contains("append-100B"), "{refused}");
    }
}
