//! How many instructions does one operation take, and are they more than they were?
//!
//! Times are noisy and instructions are not, so this is the bench that fails. Each operation runs in a
//! process of its own under callgrind, a few times and many times; the difference is what it takes, in
//! user space. The counts are held against `benches/instructions.txt`, and may exceed it by
//! [`TOLERANCE_PERCENT`].
//!
//! ```console
//! $ cargo bench --bench instructions              # compares
//! $ cargo bench --bench instructions -- --renew   # writes the table
//! ```

use std::error::Error;
use std::fmt::Write;
use std::process::{Command, ExitCode};

use dacapo_benches::operations::{self, OPERATIONS};
use dacapo_benches::run;

/// What another compiler, or the copying of another processor, may add without any change of ours.
const TOLERANCE_PERCENT: u64 = 10;
const FEW: u32 = 500;
const MANY: u32 = 2_500;
/// With it, this program is the one that is counted: `--operation NAME TIMES`.
const OPERATION: &str = "--operation";
const RENEW: &str = "--renew";
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, times] = &arguments[..]
        && flag == OPERATION
    {
        operations::run(name, times.parse()?, MANY)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !run::measures() {
        for operation in OPERATIONS {
            operations::run(operation.name, 100, 100)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !run::asks_for("instructions") {
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("SKIPPED: instructions are counted by valgrind, and there is none");
        return Ok(ExitCode::SUCCESS);
    }
    let counts = count_all()?;
    if arguments.iter().any(|argument| argument == RENEW) {
        std::fs::write(TABLE, table(&counts)?)?;
        println!("{TABLE} is renewed.");
        return Ok(ExitCode::SUCCESS);
    }
    compare(&counts)
}

/// The instructions of each operation.
fn count_all() -> Outcome<Vec<(&'static str, u64)>> {
    let mut counts = Vec::new();
    for name in OPERATIONS.iter().filter(|o| !o.has_threads).map(|o| o.name) {
        let (few, many) = (counted(name, FEW)?, counted(name, MANY)?);
        let each = many.saturating_sub(few) / u64::from(MANY - FEW);
        counts.push((name, each));
    }
    Ok(counts)
}

/// The instructions of a process that does an operation so many times.
fn counted(name: &str, times: u32) -> Outcome<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([OPERATION, name, &times.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "==1234== Collected : 123456"
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    match collected {
        Some((_, count)) if output.status.success() => Ok(count.trim().parse()?),
        _ => Err(format!("{name} under callgrind: {}\n{said}", output.status).into()),
    }
}

fn table(counts: &[(&str, u64)]) -> Outcome<String> {
    let mut table = String::from(
        "# Instructions of one operation in user space, as callgrind counts them.\n\
         # Written by `cargo bench --bench instructions -- --renew`, here with\n",
    );
    writeln!(table, "# {}", compiler()?)?;
    for (name, count) in counts {
        writeln!(table, "{name:<32}{count:>10}")?;
    }
    Ok(table)
}

/// What the compiler calls itself.
fn compiler() -> Outcome<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Prints each count beside the table's, and fails where one is too high.
fn compare(counts: &[(&str, u64)]) -> Outcome<ExitCode> {
    let table = std::fs::read_to_string(TABLE).map_err(|error| format!("{TABLE}: {error}"))?;
    let mut exceeded = Vec::new();
    println!("\ninstructions of one operation, and of the table:");
    for &(name, count) in counts {
        let line = table.lines().find_map(|line| line.strip_prefix(name));
        let line = line.ok_or_else(|| format!("{TABLE} has no \"{name}\": renew it"))?;
        let expected: u64 = line.trim().parse()?;
        let percent = (count as f64 / expected as f64 - 1.0) * 100.0;
        println!("  {name:<32}{count:>10}{expected:>10}  {percent:>+6.1} %");
        if count * 100 > expected * (100 + TOLERANCE_PERCENT) {
            exceeded.push(name);
        }
    }
    if exceeded.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "more than {TOLERANCE_PERCENT} % above {TABLE}: {}.\n\
         If that is worth it, renew the table with `cargo bench --bench instructions -- {RENEW}` and \
         say why in the commit. If only the compiler is another one ({}), say that.",
        exceeded.join("; "),
        compiler()?
    );
    Ok(ExitCode::FAILURE)
}
