//! Charts of what was measured, as SVG on white, so that they can be read on a dark page as well.

use std::{ops::Range, path::Path};

use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    prelude::*,
};

/// The size of one panel, in pixels.
const PANEL: (u32, u32) = (560, 360);

const TEXT: &str = "sans-serif";

/// What stands at the left of a panel's axis, and at its right.
const SIDES: (u32, u32) = (72, 16);

/// How long a dash is, and how far it is to the next.
const DASHES: (u32, u32) = (6, 4);

/// The title, and a row of names of lines below it.
const TITLE: i32 = 40;
const NAMES: i32 = 20;

/// How many names stand in a row.
const NAMES_IN_ROW: usize = 3;

/// How many numbers stand at an axis, about.
const LABELS: usize = 8;

/// Colours that are told apart by everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For what is ours.
    Blue,
    /// For what it is compared with.
    Orange,
    /// For the least that there is to do.
    Green,
    /// For a floor or a ceiling.
    Grey,
}

/// Some figures over something.
#[derive(Clone, Debug)]
pub struct Line {
    /// What they are.
    pub name: String,
    /// Their colour.
    pub colour: Colour,
    /// Whether it is a second line of that colour.
    pub dashed: bool,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Lines that share their axes.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What they show, with its unit.
    pub title: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// Panels that share what they are over.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What the figures are over.
    pub over: String,
    /// Where figures are over something that doubles again and again: its values. Then both axes are
    /// logarithmic.
    pub doubling: Option<Vec<f64>>,
    /// How many panels stand side by side.
    pub columns: usize,
    /// The panels.
    pub panels: Vec<Panel>,
}

impl Chart {
    /// Draws it into a file.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn draw(&self, path: &Path) -> crate::Result {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let rows = self.panels.len().div_ceil(columns);
        let size = (
            PANEL.0 * u32::try_from(columns)?,
            PANEL.1 * u32::try_from(rows)?,
        );
        let area = SVGBackend::new(path, size).into_drawing_area();
        area.fill(&WHITE)?;
        for (panel, area) in self.panels.iter().zip(area.split_evenly((rows, columns))) {
            self.draw_panel(panel, &area)?;
        }
        area.present()?;
        Ok(())
    }

    fn draw_panel(&self, panel: &Panel, area: &Area<'_>) -> crate::Result {
        let area = draw_head(panel, area)?;
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let x = span(points().map(|(x, _)| *x));
        let y = span(points().map(|(_, y)| *y));
        let Some(ticks) = &self.doubling else {
            return self.draw_lines(panel, &area, 0.0..x.end, 0.0..y.end * 1.1);
        };
        let y = y.start / 1.5..y.end * 1.5;
        let x = x.log_scale().with_key_points(ticks.clone());
        let ticks = decades(&y);
        self.draw_lines(panel, &area, x, y.log_scale().with_key_points(ticks))
    }

    fn draw_lines<X, Y>(&self, panel: &Panel, area: &Area<'_>, x: X, y: Y) -> crate::Result
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .margin_right(SIDES.1)
            .margin_bottom(SIDES.1)
            .x_label_area_size(44)
            .y_label_area_size(SIDES.0)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_labels(LABELS)
            .y_labels(LABELS)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .label_style((TEXT, 13))
            .axis_desc_style((TEXT, 13))
            .x_desc(&self.over)
            .draw()?;
        for line in &panel.lines {
            let points = line.points.iter().copied();
            if line.dashed {
                let (dash, gap) = DASHES;
                chart.draw_series(DashedLineSeries::new(points, dash, gap, line.style()))?;
            } else {
                chart.draw_series(LineSeries::new(points, line.style()))?;
            }
        }
        Ok(())
    }
}

impl Line {
    fn style(&self) -> ShapeStyle {
        self.colour.rgb().stroke_width(2)
    }
}

/// The title and the names of the lines, outside of the lines' way. Gives what is left.
fn draw_head<'a>(panel: &Panel, area: &Area<'a>) -> crate::Result<Area<'a>> {
    let rows = match panel.lines.len() {
        // The title says what it is.
        0 | 1 => 0,
        lines => i32::try_from(lines.div_ceil(NAMES_IN_ROW))?,
    };
    let (head, rest) = area.split_vertically(TITLE + NAMES * rows + NAMES / 2);
    let left = i32::try_from(SIDES.0)?;
    let at = (left, TITLE - 24);
    head.draw(&Text::new(panel.title.as_str(), at, (TEXT, 17)))?;
    let width = i32::try_from((PANEL.0 - SIDES.0 - SIDES.1) / u32::try_from(NAMES_IN_ROW)?)?;
    for (place, line) in panel.lines.iter().enumerate().filter(|_| rows > 0) {
        let x = left + width * i32::try_from(place % NAMES_IN_ROW)?;
        let y = TITLE + NAMES * i32::try_from(place / NAMES_IN_ROW)? + 7;
        let strokes = if line.dashed {
            [(x, x + 9), (x + 13, x + 22)]
        } else {
            [(x, x + 11), (x + 11, x + 22)]
        };
        for (from, to) in strokes {
            head.draw(&PathElement::new([(from, y), (to, y)], line.style()))?;
        }
        head.draw(&Text::new(line.name.as_str(), (x + 28, y - 7), (TEXT, 13)))?;
    }
    Ok(rest)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Colour {
    const fn rgb(self) -> RGBColor {
        match self {
            Self::Blue => RGBColor(0, 114, 178),
            Self::Orange => RGBColor(213, 94, 0),
            Self::Green => RGBColor(0, 140, 100),
            Self::Grey => RGBColor(110, 110, 110),
        }
    }
}

/// From the least value to the greatest; never empty.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) = values.fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), value| (least.min(value), most.max(value)),
    );
    if least < most {
        least..most
    } else if least.is_finite() {
        least..least + 1.0
    } else {
        0.0..1.0
    }
}

/// 1, 2, 5, 10, 20, … as far as they are in the range.
fn decades(range: &Range<f64>) -> Vec<f64> {
    (0..=9)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)))
        .filter(|tick| range.contains(tick))
        .collect()
}

/// A number, as short as it can be said.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        _ if value >= 1e6 => (value / 1e6, " M"),
        _ if value >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.1}");
    format!("{}{unit}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_say_what_they_are() {
        let numbers = [0.0, 64.0, 2.5, 5_000.0, 20_000.0, 1_500_000.0];
        assert_eq!(
            numbers.map(short),
            ["0", "64", "2.5", "5 k", "20 k", "1.5 M"]
        );
    }

    #[test]
    fn a_chart_names_its_lines() {
        let line = |name: &str, dashed| Line {
            name: name.to_owned(),
            colour: Colour::Blue,
            dashed,
            points: vec![(1.0, 3_000.0), (64.0, 90_000.0)],
        };
        let chart = Chart {
            over: "connections".to_owned(),
            doubling: Some(vec![1.0, 64.0]),
            columns: 1,
            panels: vec![Panel {
                title: "grants/s".to_owned(),
                lines: vec![line("TCP", false), line("Unix", true)],
            }],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart.svg");
        chart.draw(&path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["connections", "grants/s", "TCP", "Unix", "10 k", "64"] {
            assert!(svg.contains(text), "{text:?} is missing: {svg}");
        }
    }
}
