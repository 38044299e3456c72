//! The plots: one over all work, as parts of the limit, and one for each part of the report.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contestants::Place;
use crate::figures::{Figures, WorkFigures};
use crate::report::{of_group, rate};
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

/// The place of a value on an axis, and where its lines are.
#[derive(Debug, PartialEq)]
enum Scale {
    /// Between two powers of ten.
    Logarithmic { low: f64, high: f64 },
    /// From zero, with a line at each step.
    Linear { step: f64, high: f64 },
}

impl Scale {
    /// A logarithmic one that holds all of these.
    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = range(values);
        let low = 10_f64.powf((least * 0.9).log10().floor());
        let high = 10_f64.powf((most * 1.05).log10().ceil());
        Self::Logarithmic {
            low,
            high: high.max(low * 10.0),
        }
    }

    /// A linear one where the values are near each other, and a logarithmic one where they are not.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        const FAR: f64 = 15.0;
        let (least, most) = range(values.clone());
        if most / least > FAR {
            return Self::logarithmic(values);
        }
        let power = 10_f64.powf(most.log10().floor());
        let steps = [0.2, 0.5, 1.0, 2.0].map(|part| part * power);
        let few = steps.into_iter().find(|step| most / step <= 6.0);
        let step = few.unwrap_or(2.0 * power);
        Self::Linear {
            step,
            high: step * (most / step).ceil(),
        }
    }

    /// From 0 to 1.
    fn part(&self, value: f64) -> f64 {
        match self {
            Self::Logarithmic { low, high } => (value / low).log10() / (high / low).log10(),
            Self::Linear { high, .. } => value / high,
        }
    }

    fn lines(&self) -> Vec<f64> {
        match *self {
            Self::Logarithmic { low, high } => {
                let powers = std::iter::successors(Some(low), |at| Some(at * 10.0));
                powers.take_while(|at| *at < high * 1.01).collect()
            }
            Self::Linear { step, high } => {
                let count = (high / step).round() as u32;
                (0..=count).map(|line| f64::from(line) * step).collect()
            }
        }
    }
}

/// The least and the most.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(least, most), value| {
        (least.min(value), most.max(value))
    })
}

/// Lines and labels at a scale, and pixels for its values.
struct Axis<'a, 'b> {
    area: &'a Area<'b>,
    scale: Scale,
    top: i32,
    bottom: i32,
}

impl Axis<'_, '_> {
    fn x(&self, value: f64) -> i32 {
        let room = f64::from(WIDTH - NAMES - VALUES);
        (f64::from(NAMES) + self.scale.part(value) * room).round() as i32
    }

    fn draw(&self, label: impl Fn(f64) -> String) -> Result<()> {
        for at in self.scale.lines() {
            let x = self.x(at);
            let line = PathElement::new(vec![(x, self.top), (x, self.bottom)], FAINT);
            drawn(self.area.draw(&line))?;
            let text = Text::new(label(at), (x, self.bottom + 12), text(12, HPos::Center));
            drawn(self.area.draw(&text))?;
        }
        Ok(())
    }
}

/// A line's count: 10k, 2.5M.
fn round_count(number: f64) -> String {
    match number {
        9e8.. => format!("{}G", short(number / 1e9)),
        9e5.. => format!("{}M", short(number / 1e6)),
        9e2.. => format!("{}k", short(number / 1e3)),
        _ => short(number),
    }
}

fn round_time(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        0.9.. => format!("{} s", short(seconds)),
        0.9e-3.. => format!("{} ms", short(seconds * 1e3)),
        _ => format!("{} µs", short(seconds * 1e6)),
    }
}

/// With a digit behind the point only where there is one.
fn short(number: f64) -> String {
    format!("{number:.1}").trim_end_matches(".0").to_owned()
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
    let scale = Scale::logarithmic(parts);
    let end = (WIDTH - VALUES) as i32;
    let bottom = LEGEND + 20 + ROW * rows.len() as u32;
    let area = area(path, bottom + AXIS + 20)?;
    legend(&area, &PLACES)?;
    let axis = Axis {
        area: &area,
        scale,
        top: LEGEND as i32 + 8,
        bottom: bottom as i32,
    };
    axis.draw(|part| match part {
        ..0.5 => format!("1/{}", round_count(1.0 / part)),
        ..2.0 => "the limit".to_owned(),
        _ => format!("{} ×", round_count(part)),
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
        let line = PathElement::new(vec![(NAMES as i32, y), (end, y)], FAINT);
        drawn(area.draw(&line))?;
        // Ours last, so that nothing covers them.
        for place in [Place::Memory, Place::Disk, Place::Ours] {
            let here = figures
                .ranked()
                .into_iter()
                .filter(|(_, c)| c.place == place);
            // Of ours the faster one stands for both.
            let shown = if place == Place::Ours { 1 } else { usize::MAX };
            for (entry, _) in here.take(shown) {
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
        Unit::Records => ("records a second", round_count),
        Unit::Deliveries => ("deliveries a second", round_count),
        Unit::Time => ("time: shorter is better", round_time),
    };
    let all = ranked.iter().flat_map(|(entry, _)| {
        let (slowest, fastest) = entry.spread();
        [shown(slowest), shown(fastest)]
    });
    let scale = Scale::of(all);
    let first = top + TITLE as i32;
    let axis = Axis {
        area,
        scale,
        top: first,
        bottom: first + (ROW as usize * ranked.len()) as i32,
    };
    let title = format!("{} — {what}", work.title);
    let at = (NAMES as i32, top + TITLE as i32 / 2);
    let style = TextStyle::from(("sans-serif", 15).into_font().style(FontStyle::Bold));
    let style = style.color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    drawn(area.draw(&Text::new(title, at, style)))?;
    axis.draw(label)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_labelled_shortly() {
        assert_eq!(
            [0.0, 1.0, 1e4, 2.5e6, 1e9].map(round_count),
            ["0", "1", "10k", "2.5M", "1G"]
        );
        assert_eq!(
            [1e-5, 1e-3, 0.1].map(round_time),
            ["10 µs", "1 ms", "100 ms"]
        );
    }

    #[test]
    fn a_scale_is_logarithmic_where_values_are_far_apart() {
        let scale = Scale::of([120.0, 99_000.0].into_iter());
        assert_eq!(scale.lines().first().map(|line| line.round()), Some(100.0));
        assert_eq!(
            scale.lines().last().map(|line| line.round()),
            Some(1_000_000.0)
        );
        assert!([120.0, 99_000.0].map(|value| scale.part(value)).is_sorted());
    }

    #[test]
    fn a_scale_begins_at_zero_where_values_are_near_each_other() {
        let scale = Scale::of([2.6, 7.47].into_iter());
        assert_eq!(scale.lines(), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(scale.part(4.0), 0.5);
    }
}
