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

/// How many numbers stand at an axis, about.
const LABELS: usize = 8;

/// Colours that are told apart by everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For what is ours.
    Blue,
    /// For what it is compared with.
    Orange,
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
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let x = span(points().map(|(x, _)| *x));
        let y = span(points().map(|(_, y)| *y));
        let Some(ticks) = &self.doubling else {
            return self.draw_lines(panel, area, x, 0.0..y.end * 1.1);
        };
        let y = y.start / 1.5..y.end * 1.5;
        let x = x.log_scale().with_key_points(ticks.clone());
        let ticks = decades(&y);
        self.draw_lines(panel, area, x, y.log_scale().with_key_points(ticks))
    }

    fn draw_lines<X, Y>(&self, panel: &Panel, area: &Area<'_>, x: X, y: Y) -> crate::Result
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .caption(&panel.title, (TEXT, 17))
            .x_label_area_size(44)
            .y_label_area_size(56)
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
            let style = line.colour.rgb().stroke_width(2);
            let points = line.points.iter().copied();
            let drawn = if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?
            } else {
                chart.draw_series(LineSeries::new(points, style))?
            };
            let ends = if line.dashed { 8 } else { 20 };
            drawn
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + ends, y)], style));
        }
        if panel.lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .label_font((TEXT, 13))
                .background_style(WHITE.mix(0.8))
                .draw()?;
        }
        Ok(())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Colour {
    const fn rgb(self) -> RGBColor {
        match self {
            Self::Blue => RGBColor(0, 114, 178),
            Self::Orange => RGBColor(213, 94, 0),
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
        _ if value >= 1e4 => (value / 1e3, " k"),
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
            ["0", "64", "2.5", "5000", "20 k", "1.5 M"]
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
