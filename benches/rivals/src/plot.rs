//! The plots: one over all work, as parts of the limit, and one for each part of the report.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contestants::Place;
use crate::figures::{Figures, WorkFigures};
use crate::report::{count, of_group, rate, time};
use crate::work::{Group, Unit, Work};

const WIDTH: u32 = 960;
/// Room for the names at the left.
const NAMES: u32 = 210;
/// Room for the figures at the right.
const VALUES: u32 = 90;
const LEGEND: u32 = 40;
const ROW: u32 = 22;
const AXIS: u32 = 26;
const TITLE: u32 = 34;
const INK: RGBColor = RGBColor(33, 37, 41);
const FAINT: RGBColor = RGBColor(222, 226, 230);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws all plots of these figures into `dir`.
pub(crate) fn draw(figures: &Figures, dir: &Path) -> Result<()> {
    overview(figures, &dir.join("overview.svg"))?;
    for group in Group::ALL {
        let panels: Vec<_> = of_group(figures, group).collect();
        if !panels.is_empty() {
            bars(&panels, &dir.join(format!("{}.svg", group.id())))?;
        }
    }
    Ok(())
}

fn colour(place: Place) -> RGBColor {
    match place {
        Place::Limit => RGBColor(173, 181, 189),
        Place::Ours => RGBColor(217, 72, 15),
        Place::Disk => RGBColor(25, 113, 194),
        Place::Memory => RGBColor(130, 201, 30),
    }
}

const PLACES: [(Place, &str); 4] = [
    (Place::Ours, "Dacapo"),
    (Place::Disk, "others on disk"),
    (Place::Memory, "in memory only"),
    (Place::Limit, "limit"),
];

fn text(size: i32, horizontal: HPos) -> TextStyle<'static> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&INK);
    style.pos(Pos::new(horizontal, VPos::Center))
}

fn drawn<T, E: std::error::Error>(result: Result<T, E>) -> Result<T> {
    result.map_err(|error| anyhow!("cannot draw: {error}"))
}

fn area(path: &Path, height: u32) -> Result<Area<'_>> {
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    drawn(area.fill(&WHITE))?;
    Ok(area)
}

fn legend(area: &Area<'_>, places: &[(Place, &str)]) -> Result<()> {
    let mut x = NAMES as i32;
    for (place, name) in places {
        let mark = Circle::new((x, LEGEND as i32 / 2), 6, colour(*place).filled());
        drawn(area.draw(&mark))?;
        let at = (x + 12, LEGEND as i32 / 2);
        drawn(area.draw(&Text::new((*name).to_owned(), at, text(14, HPos::Left))))?;
        x += 40 + 8 * name.len() as i32;
    }
    Ok(())
}

/// Powers of ten around what is shown.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    let below = 10_f64.powf((least * 0.9).log10().floor());
    let above = 10_f64.powf((most * 1.05).log10().ceil());
    (below, above.max(below * 10.0))
}

/// Grid and labels of a logarithmic axis, and the place of a value on it.
struct Axis<'a, 'b> {
    area: &'a Area<'b>,
    low: f64,
    high: f64,
    top: i32,
    bottom: i32,
}

impl Axis<'_, '_> {
    fn x(&self, value: f64) -> i32 {
        let part = (value / self.low).log10() / (self.high / self.low).log10();
        let room = f64::from(WIDTH - NAMES - VALUES);
        (f64::from(NAMES) + part * room).round() as i32
    }

    /// A line and a label for each power of ten.
    fn draw(&self, label: impl Fn(f64) -> String) -> Result<()> {
        let mut at = self.low;
        while at < self.high * 1.01 {
            let x = self.x(at);
            let line = PathElement::new(vec![(x, self.top), (x, self.bottom)], FAINT);
            drawn(self.area.draw(&line))?;
            let text = Text::new(label(at), (x, self.bottom + 12), text(12, HPos::Center));
            drawn(self.area.draw(&text))?;
            at *= 10.0;
        }
        Ok(())
    }
}

/// One row for each work: everybody's speed as a part of the limit's.
fn overview(figures: &Figures, path: &Path) -> Result<()> {
    const ROW: u32 = 30;
    let rows: Vec<_> = figures
        .works
        .iter()
        .filter_map(|figures| {
            let limit = figures.best(Place::Limit)?.0.median();
            Some((figures, figures.work()?, limit))
        })
        .collect();
    let parts = rows.iter().flat_map(|(figures, _, limit)| {
        let ranked = figures.ranked().into_iter();
        ranked.map(move |(entry, _)| entry.median() / limit)
    });
    let (low, high) = decades(parts);
    let bottom = LEGEND + 20 + ROW * rows.len() as u32;
    let area = area(path, bottom + AXIS + 20)?;
    legend(&area, &PLACES)?;
    let axis = Axis {
        area: &area,
        low,
        high,
        top: LEGEND as i32 + 8,
        bottom: bottom as i32,
    };
    axis.draw(|part| match part {
        1.0 => "the limit".to_owned(),
        ..1.0 => format!("1/{}", count(1.0 / part).trim_end_matches(".00")).replace(".0k", "k"),
        _ => format!("{part:.0} ×"),
    })?;
    let one = axis.x(1.0);
    let line = PathElement::new(
        vec![(one, axis.top), (one, axis.bottom)],
        colour(Place::Limit).stroke_width(3),
    );
    drawn(area.draw(&line))?;
    for (row, (figures, work, limit)) in rows.iter().enumerate() {
        let y = (LEGEND + 20 + ROW * row as u32 + ROW / 2) as i32;
        let name = Text::new(work.title, (NAMES as i32 - 12, y), text(13, HPos::Right));
        drawn(area.draw(&name))?;
        let line = PathElement::new(vec![(NAMES as i32, y), (axis.x(high), y)], FAINT);
        drawn(area.draw(&line))?;
        // Ours last, so that nothing covers them.
        for place in [Place::Memory, Place::Disk, Place::Ours] {
            let here = figures
                .ranked()
                .into_iter()
                .filter(|(_, c)| c.place == place);
            for (entry, _) in here {
                let at = (axis.x(entry.median() / limit), y);
                let size = if place == Place::Ours { 8 } else { 5 };
                let style = colour(place).mix(if place == Place::Ours { 1.0 } else { 0.75 });
                drawn(area.draw(&Circle::new(at, size, style.filled())))?;
            }
        }
    }
    drawn(area.present())
}

/// A panel of bars for each work, fastest first.
fn bars(panels: &[(&WorkFigures, &'static Work)], path: &Path) -> Result<()> {
    let height = |figures: &WorkFigures| TITLE + ROW * figures.ranked().len() as u32 + AXIS + 14;
    let all: u32 = panels.iter().map(|(figures, _)| height(figures)).sum();
    let area = area(path, LEGEND + all)?;
    let ranked = panels.iter().flat_map(|(figures, _)| figures.ranked());
    let seen: Vec<Place> = ranked.map(|(_, contestant)| contestant.place).collect();
    let shown = PLACES.into_iter().filter(|(place, _)| seen.contains(place));
    legend(&area, &shown.collect::<Vec<_>>())?;
    let mut top = LEGEND;
    for (figures, work) in panels {
        panel(&area, top as i32, figures, work)?;
        top += height(figures);
    }
    drawn(area.present())
}

fn panel(area: &Area<'_>, top: i32, figures: &WorkFigures, work: &Work) -> Result<()> {
    let ranked = figures.ranked();
    let shown = |rate: f64| match work.unit() {
        Unit::Time => 1.0 / rate,
        Unit::Records | Unit::Deliveries => rate,
    };
    let (what, label): (_, fn(f64) -> String) = match work.unit() {
        Unit::Records => ("records a second", count),
        Unit::Deliveries => ("deliveries a second", count),
        Unit::Time => ("time: shorter is better", time),
    };
    let all = ranked.iter().flat_map(|(entry, _)| {
        let (slowest, fastest) = entry.spread();
        [shown(slowest), shown(fastest)]
    });
    let (low, high) = decades(all);
    let first = top + TITLE as i32;
    let axis = Axis {
        area,
        low,
        high,
        top: first,
        bottom: first + (ROW as usize * ranked.len()) as i32,
    };
    let title = format!("{} — {what}", work.title);
    let at = (NAMES as i32, top + TITLE as i32 / 2);
    let style = TextStyle::from(("sans-serif", 15).into_font().style(FontStyle::Bold));
    let style = style.color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    drawn(area.draw(&Text::new(title, at, style)))?;
    axis.draw(|at| label(at).replace(".00", ""))?;
    for (row, (entry, contestant)) in ranked.iter().enumerate() {
        let y = first + ROW as i32 * row as i32 + ROW as i32 / 2;
        let name = Text::new(
            contestant.name,
            (NAMES as i32 - 10, y),
            text(13, HPos::Right),
        );
        drawn(area.draw(&name))?;
        let end = axis.x(shown(entry.median()));
        let bar = [(NAMES as i32, y - 7), (end, y + 7)];
        let bar = Rectangle::new(bar, colour(contestant.place).filled());
        drawn(area.draw(&bar))?;
        let (slowest, fastest) = entry.spread();
        let spread = [axis.x(shown(slowest)), axis.x(shown(fastest))];
        let whisker = PathElement::new(spread.map(|x| (x, y)).to_vec(), INK);
        drawn(area.draw(&whisker))?;
        let behind = end.max(spread[0]).max(spread[1]) + 6;
        let value = rate(entry.median(), work.unit());
        drawn(area.draw(&Text::new(value, (behind, y), text(12, HPos::Left))))?;
    }
    Ok(())
}
