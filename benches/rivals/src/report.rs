//! The report in Markdown. Every sentence with a figure in it is made from the figures.

use std::fmt::Write;

use crate::contestants::{ALL, Contestant, Place};
use crate::figures::{Entry, Figures, WorkFigures};
use crate::work::{Group, Kind, Unit, WORKS, Work};

/// The whole report.
pub(crate) fn report(figures: &Figures) -> String {
    let mut text = String::new();
    head(&mut text, figures);
    for group in Group::ALL {
        let mut works = of_group(figures, group).peekable();
        if works.peek().is_none() {
            continue;
        }
        let (title, id) = (group.title(), group.id());
        let _ = write!(
            text,
            "\n## {title}\n\n![{title}: medians of all, and their spread](benchmarks/{id}.svg)\n"
        );
        works.for_each(|(figures, work)| table(&mut text, figures, work));
    }
    who(&mut text, figures);
    caveats(&mut text, figures);
    text
}

/// The tables alone, for the terminal.
pub(crate) fn tables(figures: &Figures) -> String {
    let mut text = String::new();
    for figures in &figures.works {
        if let Some(work) = figures.work() {
            table(&mut text, figures, work);
        }
    }
    text
}

/// What can be measured, and who can do it.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for work in &WORKS {
        let able = ALL.iter().filter(|contestant| contestant.can(work).is_ok());
        let names: Vec<_> = able.map(|contestant| contestant.name).collect();
        let _ = writeln!(
            text,
            "{:<18} {}\n{:19}{}",
            work.id,
            work.title,
            "",
            names.join(", ")
        );
    }
    text
}

/// The figures of a group, with their work.
pub(crate) fn of_group(
    figures: &Figures,
    group: Group,
) -> impl Iterator<Item = (&WorkFigures, &'static Work)> {
    let known = figures
        .works
        .iter()
        .filter_map(|figures| Some((figures, figures.work()?)));
    known.filter(move |(_, work)| work.group == group)
}

fn head(text: &mut String, figures: &Figures) {
    let machine = &figures.machine;
    let _ = write!(
        text,
        "# Benchmarks\n\n\
         Dacapo beside other logs, stores and channels, and beside the least that the machine must do for the same \
         work, measured in one run.\n\
         The program [benches/rivals](../benches/rivals) writes this page, its plots and its \
         [figures](benchmarks/figures.json).\n\n\
         | | |\n|---|---|\n\
         | processor | {}, {} {} |\n| memory | {} GiB |\n| filesystem | {} |\n| kernel | {} |\n| date | {} |\n\
         | run | {} {} in {} min |\n\n\
         ```\ncargo run --release --manifest-path benches/rivals/Cargo.toml -- {}\n```\n\n\
         ## At a glance\n\n\
         ![How near each comes to the limit of each kind of work](benchmarks/overview.svg)\n\n",
        machine.cpu,
        machine.cores,
        if machine.cores == 1 { "core" } else { "cores" },
        machine.memory_gib,
        machine.filesystem,
        machine.kernel,
        figures.date,
        figures.rounds,
        if figures.rounds == 1 {
            "round"
        } else {
            "rounds"
        },
        figures.minutes,
        figures.arguments,
    );
    text.push_str(
        "| work | limit | Dacapo | of the limit | fastest other that keeps as much | Dacapo to it | fastest in memory | Dacapo to it |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for figures in &figures.works {
        let (Some(work), Some((ours, _))) = (figures.work(), figures.best(Place::Ours)) else {
            continue;
        };
        let unit = work.unit();
        let limit = figures.best(Place::Limit).map(|(limit, _)| limit.median());
        let _ = write!(
            text,
            "| {} | {} | **{}** | {} |",
            work.title,
            limit.map_or("—".to_owned(), |limit| rate(limit, unit)),
            rate(ours.median(), unit),
            limit.map_or("—".to_owned(), |limit| ratio(ours.median() / limit)),
        );
        let ranked = figures.ranked();
        for place in [Place::Disk, Place::Memory] {
            let best = ranked.iter().find(|(_, contestant)| {
                contestant.place == place
                    && (place == Place::Memory || contestant.keeps_as_much(work))
            });
            match best {
                Some((best, contestant)) => {
                    let (name, median) = (contestant.name, best.median());
                    let (median_text, of) = (rate(median, unit), ratio(ours.median() / median));
                    let _ = write!(text, " {median_text} ({name}) | {of} × |");
                }
                None => text.push_str(" — | |"),
            }
        }
        text.push('\n');
    }
    text.push_str(
        "\nTo keep as much is to survive a killed process, and in durable appends a power cut.\n",
    );
}

/// One kind of work: who does how much of it, and who cannot.
fn table(text: &mut String, figures: &WorkFigures, work: &Work) {
    let unit = work.unit();
    let ranked = figures.ranked();
    let best_of = |place| figures.best(place).map(|(entry, _)| entry.median());
    let (limit, ours) = (best_of(Place::Limit), best_of(Place::Ours));
    let what = match unit {
        Unit::Records => "records/s",
        Unit::Deliveries => "deliveries/s",
        Unit::Time => "time",
    };
    // What a reader finds was appended in whatever way fills it fastest.
    let written = work.group != Group::Read;
    let (survives, columns) = if written {
        (" survives a kill | survives a power cut |", "---|---|")
    } else {
        ("", "")
    };
    let _ = write!(
        text,
        "\n### {}\n\n\
         | | {what} | spread | of the limit | of Dacapo |{survives} checked when read |\n\
         |---|--:|--:|--:|--:|{columns}---|\n",
        heading(figures, work)
    );
    for (entry, contestant) in &ranked {
        let median = entry.median();
        let of = |other: Option<f64>| other.map_or("—".to_owned(), |other| ratio(median / other));
        let (slowest, fastest) = entry.spread();
        let name = match contestant.place {
            Place::Ours => format!("**{}**", contestant.name),
            Place::Limit => "*limit*".to_owned(),
            Place::Disk | Place::Memory => contestant.name.to_owned(),
        };
        let _ = write!(
            text,
            "| {name} | {} | {} to {} | {} | {} |",
            rate(median, unit),
            rate(slowest, unit),
            rate(fastest, unit),
            of(limit),
            of(ours),
        );
        if written {
            let survives = contestant.survives(work.kind);
            let _ = write!(text, " {} | {} |", survives.kill, survives.power_cut);
        }
        let _ = writeln!(text, " {} |", contestant.checks);
    }
    let _ = write!(text, "\nLimit: {}.\n", work.limit);
    if let Some(fewer) = fewer(&ranked) {
        let _ = writeln!(text, "{fewer}");
    }
    if let Some(unable) = unable(work) {
        let _ = writeln!(text, "Cannot: {unable}.");
    }
    for entry in &figures.entries {
        if let Some(failure) = &entry.failure {
            let _ = writeln!(text, "Failed: {}: {failure}.", entry.contestant);
        }
    }
}

/// The rivals that cannot do it, by the reason.
fn unable(work: &Work) -> Option<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for contestant in ALL.iter().filter(|contestant| contestant.is_rival()) {
        if let Err(why) = contestant.can(work) {
            match reasons.iter_mut().find(|(reason, _)| *reason == why) {
                Some((_, names)) => names.push(contestant.name),
                None => reasons.push((why, vec![contestant.name])),
            }
        }
    }
    let reasons = reasons
        .iter()
        .map(|(why, names)| format!("{} ({why})", names.join(", ")));
    let reasons: Vec<_> = reasons.collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// The title, with the size of what is reopened or appended.
fn heading(figures: &WorkFigures, work: &Work) -> String {
    let records = figures.entries.iter().map(|entry| entry.records).max();
    let mib = (records.unwrap_or(0) * work.payload_bytes as u64) >> 20;
    let title = work.title;
    match work.kind {
        Kind::Reopen => format!("{title} a log of {mib} MiB after a clean close"),
        Kind::AppendLong => format!("{title}: {mib} MiB of them"),
        _ => title.to_owned(),
    }
}

/// Who did less than the others, if anybody.
fn fewer(ranked: &[(&Entry, &Contestant)]) -> Option<String> {
    let most = ranked.iter().map(|(entry, _)| entry.records).max()?;
    let less = ranked.iter().filter(|(entry, _)| entry.records < most);
    let less: Vec<_> = less
        .map(|(entry, contestant)| format!("{} {}", contestant.name, grouped(entry.records)))
        .collect();
    let (all, less_joined) = (grouped(most), less.join(", "));
    (!less.is_empty()).then(|| {
        format!("Fewer records a pass than {all}, so that a pass ends in time: {less_joined}.")
    })
}

fn who(text: &mut String, figures: &Figures) {
    text.push_str(
        "\n## Who takes part, and how\n\n| | version | how it is used |\n|---|---|---|\n",
    );
    for contestant in ALL
        .iter()
        .filter(|contestant| contestant.place != Place::Limit)
    {
        let entries = figures.works.iter().flat_map(|figures| &figures.entries);
        let version = entries
            .filter(|entry| entry.contestant == contestant.name)
            .map(|entry| entry.version.as_str())
            .next();
        if let Some(version) = version {
            let _ = writeln!(
                text,
                "| {} | {version} | {} |",
                contestant.name, contestant.how
            );
        }
    }
    if !figures.left_out.is_empty() {
        let left_out = figures.left_out.join(", ");
        let _ = write!(text, "\nNot built, and so not measured: {left_out}.\n");
    }
}

fn caveats(text: &mut String, figures: &Figures) {
    text.push_str("\n## How it is measured\n\n");
    text.push_str(
        "- Each measurement runs in a process of its own, in a fresh directory that is deleted afterwards; before it, the \
         filesystem is synced.\n\
         - All in turn, round by round; ours come first in one round and last in the next. A figure is the median of the \
         rounds, a round's figure the median of its passes, behind a warm-up with a part of the records.\n\
         - All get the same random payloads, made before the clock starts. Everything is built with the same \
         profile: release, with thin LTO.\n\
         - One pass has the same number of records for all, but for those who would take too long; they do fewer, as stated \
         under the table.\n\
         - Files are in the page cache when they are read and reopened. Appends that need not be durable are timed without \
         a final sync; what is written back meanwhile is in the time.\n\
         - \"of the limit\" and \"of Dacapo\" are speeds divided: 0.5 is half as fast, whatever the unit.\n\
         - What survives is what the contestant promises in the mode that is measured, for records whose call has returned. \
         A figure of one that survives less is not the same work done faster.\n\
         - \"Fan-out\" sends as fast as it goes; \"wake-bound\" sends a message when all receivers have had the one before \
         and wait, so that each has to be woken for each.\n\
         - Receivers are tasks of one tokio runtime with a thread for each core, beside the sender's thread. With few cores, \
         they take turns: fan-out to one receiver is above all a matter of how often they do.\n",
    );
    let (cores, load) = (figures.machine.cores, figures.machine.load_before);
    if load > 0.5 {
        let _ = writeln!(
            text,
            "- **The machine was not quiet: a load of {load:.1} on {cores} cores before the run. Trust the ratios only, and \
             these little.**"
        );
    }
    let wide = widest(figures);
    if let Some((entry, work, times)) = wide {
        let _ = writeln!(
            text,
            "- The widest spread of a contestant's rounds is a factor of {}: {} in \"{}\".",
            ratio(times),
            entry.contestant,
            work.title
        );
    }
}

/// The entry with the widest spread.
fn widest(figures: &Figures) -> Option<(&Entry, &'static Work, f64)> {
    let works = figures
        .works
        .iter()
        .filter_map(|figures| Some((figures, figures.work()?)));
    let entries = works.flat_map(|(figures, work)| figures.entries.iter().map(move |e| (e, work)));
    let measured = entries.filter(|(entry, _)| entry.rates.len() > 1);
    let spreads = measured.map(|(entry, work)| {
        let (slowest, fastest) = entry.spread();
        (entry, work, fastest / slowest)
    });
    spreads.max_by(|(_, _, a), (_, _, b)| a.total_cmp(b))
}

/// A rate to three digits, or the time of one.
pub(crate) fn rate(per_second: f64, unit: Unit) -> String {
    match unit {
        Unit::Time => time(1.0 / per_second),
        Unit::Records | Unit::Deliveries => count(per_second),
    }
}

/// A count to three digits: 12.3M.
fn count(count: f64) -> String {
    match count {
        1e6.. => format!("{}M", three_digits(count / 1e6)),
        1e3.. => format!("{}k", three_digits(count / 1e3)),
        _ => three_digits(count),
    }
}

/// A time to three digits: 1.23 ms.
fn time(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{} s", three_digits(seconds)),
        1e-3.. => format!("{} ms", three_digits(seconds * 1e3)),
        _ => format!("{} µs", three_digits(seconds * 1e6)),
    }
}

/// A ratio to two or three digits: 1/340, 0.35, 1.20, 12.3, 340.
fn ratio(ratio: f64) -> String {
    match ratio {
        ..0.0095 => format!("1/{}", grouped((1.0 / ratio).round() as u64)),
        ..0.995 => format!("{ratio:.2}"),
        _ => three_digits(ratio),
    }
}

fn three_digits(number: f64) -> String {
    match number {
        99.95.. => format!("{number:.0}"),
        9.995.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// With a comma for each thousand.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn figures(works: Vec<WorkFigures>) -> Figures {
        Figures {
            machine: Machine {
                cpu: "A processor".into(),
                cores: 2,
                memory_gib: 8,
                kernel: "Linux".into(),
                filesystem: "ext4".into(),
                load_before: 0.1,
            },
            date: "2000-01-01".into(),
            minutes: 3,
            rounds: 2,
            arguments: "--rounds 2".into(),
            left_out: vec!["yaque".into()],
            works,
        }
    }

    fn entry(contestant: &str, rates: &[f64], records: u64) -> Entry {
        Entry {
            contestant: contestant.into(),
            version: "1.2.3".into(),
            rates: rates.into(),
            records,
            failure: None,
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [12_345_678.0, 999.0, 45_600.0].map(count),
            ["12.3M", "999", "45.6k"]
        );
        assert_eq!(
            [1.5, 0.0123, 0.000_004_56].map(time),
            ["1.50 s", "12.3 ms", "4.56 µs"]
        );
        assert_eq!(
            [0.0012, 0.35, 12.34, 340.2].map(ratio),
            ["1/833", "0.35", "12.3", "340"]
        );
        assert_eq!(
            [7, 1_000, 1_234_567].map(grouped),
            ["7", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn the_report_ranks_medians_and_divides_them() {
        let mut failed = entry("dacapo", &[], 0);
        failed.failure = Some("no space".into());
        let works = vec![WorkFigures {
            work: "tail".into(),
            entries: vec![
                entry("limit", &[8e6, 8e6], 4_000),
                entry("dacapo-log", &[3e6, 5e6], 1_000),
                failed,
            ],
        }];
        let report = report(&figures(works));
        let row = "| **dacapo-log** | 4.00M | 3.00M to 5.00M | 0.50 | 1.00 | yes |";
        assert!(report.contains(row), "{report}");
        assert!(report.find("| *limit* | 8.00M").unwrap() < report.find(row).unwrap());
        assert!(report.contains("Failed: dacapo: no space."), "{report}");
        assert!(
            report.contains("than 4,000, so that a pass ends in time: dacapo-log 1,000."),
            "{report}"
        );
        assert!(report.contains("not measured: yaque"), "{report}");
        assert!(report.contains("a factor of 1.67: dacapo-log"), "{report}");
        assert!(!report.contains("not quiet"), "{report}");
    }

    #[test]
    fn a_shorter_time_is_a_higher_ratio() {
        let works = vec![WorkFigures {
            work: "reopen".into(),
            entries: vec![
                entry("limit", &[100_000.0], 1024),
                entry("dacapo-log", &[1_000.0], 1024),
            ],
        }];
        let report = report(&figures(works));
        assert!(report.contains("### reopen a log of 1 MiB"), "{report}");
        assert!(report.contains("| **dacapo-log** | 1.00 ms |"), "{report}");
        assert!(
            report.contains("| reopen | 10.0 µs | **1.00 ms** | 0.01 |"),
            "{report}"
        );
    }
}
