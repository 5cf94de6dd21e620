//! The chart of a licence's consumption over time: bars by application, one on the other, with the turns
//! of its period. Drawn here, so that the page needs no library; coloured by the page's style.

use std::{fmt::Write as _, ops::RangeInclusive};

use chrono::{DateTime, Datelike as _};
use tally_shared::time::Timestamp;

use crate::{
    foreign::shown,
    ledger::usage::{AppUsage, Usage},
};

/// How wide a page may show it, in its pixels; words are drawn for that width, so that they can be read.
const WIDTHS: RangeInclusive<i64> = 240..=2000;
const WIDTH_UNASKED: i64 = 640;

/// The drawing's own measure, two to a pixel.
const HEIGHT: i64 = 400;
const LEFT: i64 = 100;
const TOP: i64 = 50;
const BOTTOM: i64 = HEIGHT - 48;

const MINUS: &str = "\u{2212}";

/// The room that the name of a time takes.
const TIME_ROOM: i64 = 120;

/// The room that the word at a reset takes.
const RESET_ROOM: i64 = 90;

/// The style has colours for so many applications; those that consumed least share the last one.
const COLOURS: usize = 7;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How far apart times are named: whole numbers of what they name.
const TIMES: [i64; 10] = [
    5 * MINUTE,
    10 * MINUTE,
    20 * MINUTE,
    2 * HOUR,
    4 * HOUR,
    8 * HOUR,
    DAY,
    2 * DAY,
    5 * DAY,
    10 * DAY,
];

/// What is drawn in one colour.
struct Series {
    name: String,
    /// Whether it is one application, and not what several share.
    is_one: bool,
    units: Vec<i64>,
}

/// Draws it, as an SVG document, for a page that shows it so many pixels wide.
pub(super) fn draw(usage: &Usage, width: Option<i64>) -> String {
    let (least, most) = (*WIDTHS.start(), *WIDTHS.end());
    let width = 2 * width.unwrap_or(WIDTH_UNASKED).clamp(least, most);
    let frame = Frame {
        usage,
        right: width - 10,
    };
    let series = series(usage);
    let steps = usize::try_from(span(usage) / usage.step_ms.max(1)).unwrap_or(0);
    let scale = Scale::of(&series, steps);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" \
         class=\"chart\"><title>{}</title>",
        escaped(&summary(usage, &series))
    );
    svg += &frame.axis(&scale);
    svg += &frame.times();
    svg += &frame.bars(&series, &scale, steps);
    svg += &frame.resets();
    if series
        .iter()
        .all(|series| series.units.iter().all(|units| *units == 0))
    {
        svg += &frame.nothing();
    }
    svg += &legend(&series);
    svg.push_str("</svg>");
    svg
}

/// Where the chart stands in the drawing.
struct Frame<'a> {
    usage: &'a Usage,
    right: i64,
}

fn total(series: &Series) -> i64 {
    series
        .units
        .iter()
        .fold(0, |sum, units| sum.saturating_add(*units))
}

/// What the chart shows, in a sentence, for those who do not see it.
fn summary(usage: &Usage, series: &[Series]) -> String {
    let sums: Vec<String> = series
        .iter()
        .map(|series| format!("{} {}", series.name, total(series)))
        .collect();
    let what = if sums.is_empty() {
        "nothing".to_owned()
    } else {
        sums.join(", ")
    };
    format!(
        "Units consumed from {} to {} UTC: {what}",
        moment(usage.from),
        moment(usage.to)
    )
}

/// The applications that consumed most first, and all others as one where there are too many.
fn series(usage: &Usage) -> Vec<Series> {
    let weight = |app: &AppUsage| {
        app.units
            .iter()
            .map(|units| units.unsigned_abs())
            .sum::<u64>()
    };
    let mut apps: Vec<&AppUsage> = usage.apps.iter().collect();
    apps.sort_by_key(|app| (std::cmp::Reverse(weight(app)), app.name.clone()));
    let own = if apps.len() > COLOURS {
        COLOURS - 1
    } else {
        apps.len()
    };
    let (shown, rest) = apps.split_at(own);
    let mut series: Vec<Series> = shown
        .iter()
        .map(|app| Series {
            name: app.name.clone(),
            is_one: true,
            units: app.units.clone(),
        })
        .collect();
    if let Some(first) = rest.first() {
        let mut units = vec![0_i64; first.units.len()];
        for app in rest {
            for (sum, more) in units.iter_mut().zip(&app.units) {
                *sum = sum.saturating_add(*more);
            }
        }
        let name = format!("{} others", rest.len());
        series.push(Series {
            name,
            is_one: false,
            units,
        });
    }
    series
}

/// Where a number of units stands.
struct Scale {
    tick: i64,
    highest: i64,
    lowest: i64,
}

impl Scale {
    fn of(series: &[Series], steps: usize) -> Self {
        let (mut highest, mut lowest) = (0_i64, 0_i64);
        for step in 0..steps {
            let units = series.iter().filter_map(|series| series.units.get(step));
            let (up, down) = units.fold((0_i64, 0_i64), |(up, down), units| {
                (
                    up.saturating_add((*units).max(0)),
                    down.saturating_add((*units).min(0)),
                )
            });
            highest = highest.max(up);
            lowest = lowest.min(down);
        }
        let tick = nice(highest.saturating_sub(lowest).max(4) / 4);
        let up = |units: i64| units.saturating_add(tick - 1) / tick;
        Self {
            tick,
            highest: up(highest).max(1).saturating_mul(tick),
            lowest: -up(lowest.saturating_neg()).saturating_mul(tick),
        }
    }

    fn y(&self, units: i64) -> i64 {
        let height = i128::from(BOTTOM - TOP);
        let range = i128::from(self.highest) - i128::from(self.lowest);
        let above = i128::from(units) - i128::from(self.lowest);
        BOTTOM - i64::try_from(above * height / range.max(1)).unwrap_or(0)
    }
}

/// The smallest of 1, 2, 5, 10, 20, … that is not smaller.
fn nice(least: i64) -> i64 {
    let mut unit = 1_i64;
    loop {
        for factor in [1, 2, 5] {
            let step = unit.saturating_mul(factor);
            if step >= least {
                return step;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

/// 1500 as 1.5k: it must fit beside the axis.
fn short(units: i64) -> String {
    for (size, suffix) in [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ] {
        if units.abs() >= size {
            let tenths = units / (size / 10);
            let (whole, tenth) = (tenths / 10, (tenths % 10).abs());
            let text = if tenth == 0 {
                format!("{whole}{suffix}")
            } else {
                format!("{whole}.{tenth}{suffix}")
            };
            return text.replace('-', MINUS);
        }
    }
    units.to_string().replace('-', MINUS)
}

fn span(usage: &Usage) -> i64 {
    usage.to.as_millis().saturating_sub(usage.from.as_millis())
}

impl Frame<'_> {
    fn x(&self, at: Timestamp) -> i64 {
        let passed = at.as_millis().saturating_sub(self.usage.from.as_millis());
        LEFT + (self.right - LEFT).saturating_mul(passed) / span(self.usage).max(1)
    }

    fn axis(&self, scale: &Scale) -> String {
        let mut text = String::new();
        let mut units = scale.lowest;
        while units <= scale.highest {
            let y = scale.y(units);
            let class = if units == 0 { "zero" } else { "grid" };
            let _ = write!(
                text,
                "<path class=\"{class}\" d=\"M{LEFT} {y}H{}\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                self.right,
                LEFT - 12,
                y + 8,
                short(units)
            );
            units = units.saturating_add(scale.tick);
        }
        text
    }

    fn times(&self) -> String {
        let mut text = String::new();
        let room = |every: i64| (self.right - LEFT).saturating_mul(every) / span(self.usage).max(1);
        let every = TIMES.into_iter().find(|every| room(*every) >= TIME_ROOM);
        let every = every.unwrap_or(10 * DAY);
        let mut at = (self.usage.from.as_millis() + every - 1).div_euclid(every) * every;
        while at < self.usage.to.as_millis() {
            let time = Timestamp::from_millis(at);
            let label = if every < DAY { clock(time) } else { day(time) };
            let x = self.x(time);
            // What would stand out at the end is left away.
            if x <= self.right - 34 {
                let _ = write!(
                    text,
                    "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                    HEIGHT - 12
                );
            }
            at += every;
        }
        text
    }

    fn bars(&self, series: &[Series], scale: &Scale, steps: usize) -> String {
        let usage = self.usage;
        let mut text = String::new();
        for step in 0..steps {
            let offset = |step: usize| usage.step_ms * i64::try_from(step).unwrap_or(0);
            let (begin, end) = (
                usage.from.plus_millis(offset(step)),
                usage.from.plus_millis(offset(step + 1)),
            );
            let (left, right) = (self.x(begin) + 2, self.x(end) - 2);
            let mut words = Vec::new();
            let (mut up, mut down) = (0_i64, 0_i64);
            let mut rects = String::new();
            for (colour, series) in series.iter().enumerate() {
                let units = series.units.get(step).copied().unwrap_or(0);
                if units == 0 {
                    continue;
                }
                words.push(format!("{} {units}", series.name));
                let base = if units > 0 { &mut up } else { &mut down };
                let (from, to) = (scale.y(*base), scale.y(base.saturating_add(units)));
                *base = base.saturating_add(units);
                // What is there is seen, however small beside the rest.
                let height = (from - to).abs().max(3);
                let _ = write!(
                    rects,
                    "<rect class=\"app-{colour}\" x=\"{left}\" y=\"{}\" width=\"{}\" height=\"{height}\"/>",
                    from.min(to).min(BOTTOM - 3),
                    (right - left).max(1)
                );
            }
            if words.is_empty() {
                continue;
            }
            let _ = write!(
                text,
                "<g><title>{}</title>{rects}</g>",
                escaped(&format!(
                    "{} to {} UTC: {}",
                    moment(begin),
                    clock(end),
                    words.join(", ")
                ))
            );
        }
        text
    }

    fn resets(&self) -> String {
        let resets = &self.usage.resets;
        let mut text = String::new();
        // Where there are many, the lines say it without words.
        let wanted = i64::try_from(resets.len()).unwrap_or(i64::MAX);
        let is_labelled = wanted.saturating_mul(RESET_ROOM) <= self.right - LEFT;
        for at in resets {
            let x = self.x(*at);
            let _ = write!(
                text,
                "<g><title>{}</title><path class=\"reset\" d=\"M{x} {}V{BOTTOM}\"/>",
                escaped(&format!("{} UTC: the total returns to zero", moment(*at))),
                TOP - 12
            );
            if is_labelled {
                let _ = write!(
                    text,
                    "<text class=\"reset-label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">reset</text>",
                    x.clamp(LEFT + 32, self.right - 32),
                    TOP - 20
                );
            }
            text.push_str("</g>");
        }
        text
    }

    /// An empty chart says that it is meant to be empty.
    fn nothing(&self) -> String {
        format!(
            "<text class=\"none\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">nothing consumed</text>",
            i64::midpoint(LEFT, self.right),
            i64::midpoint(TOP, BOTTOM) + 8
        )
    }
}

/// What stands for what, which the page puts into words.
fn legend(series: &[Series]) -> String {
    let mut text = String::new();
    for (colour, series) in series.iter().enumerate() {
        let one = if series.is_one { " data-one=\"1\"" } else { "" };
        let _ = write!(
            text,
            "<metadata data-colour=\"{colour}\" data-units=\"{}\"{one}>{}</metadata>",
            total(series),
            escaped(&series.name)
        );
    }
    text
}

fn clock(at: Timestamp) -> String {
    of(at).map_or_else(String::new, |at| at.format("%H:%M").to_string())
}

fn day(at: Timestamp) -> String {
    of(at).map_or_else(String::new, |at| {
        format!("{} {}", at.day(), at.format("%b"))
    })
}

fn moment(at: Timestamp) -> String {
    format!("{} {}", day(at), clock(at))
}

fn of(at: Timestamp) -> Option<DateTime<chrono::Utc>> {
    DateTime::from_timestamp_millis(at.as_millis())
}

/// Text that stands in markup. Signs that XML does not know are shown as unknown.
fn escaped(text: &str) -> String {
    shown(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(apps: Vec<AppUsage>) -> Usage {
        let from = Timestamp::parse("2026-11-30T12:00:00Z").unwrap();
        Usage {
            from,
            to: from.plus_millis(DAY),
            step_ms: 30 * MINUTE,
            apps,
            resets: vec![Timestamp::parse("2026-12-01T00:00:00Z").unwrap()],
            from_seq: None,
        }
    }

    fn app(name: &str, units: &[i64]) -> AppUsage {
        let mut all = vec![0; 48];
        all.iter_mut().zip(units).for_each(|(to, from)| *to = *from);
        AppUsage {
            name: name.to_owned(),
            units: all,
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let ticks: Vec<i64> = [1, 3, 5, 11, 40, 51, 700].map(nice).to_vec();
        assert_eq!(ticks, [1, 5, 5, 20, 50, 100, 1000]);
        assert_eq!(
            [999, 1500, -20_000, 3_000_000].map(short),
            ["999", "1.5k", "\u{2212}20k", "3M"]
        );
    }

    #[test]
    fn it_says_what_it_shows() {
        let svg = draw(
            &usage(vec![app("kiosk", &[1, 2]), app("inspector", &[10, 0, 5])]),
            None,
        );
        assert!(svg.contains("from 30 Nov 12:00 to 1 Dec 12:00 UTC: inspector 15, kiosk 3"));
        assert!(svg.contains("30 Nov 12:30 to 13:00 UTC: kiosk 2"));
        assert!(svg.contains("1 Dec 00:00 UTC: the total returns to zero"));
        assert!(!svg.contains("nothing consumed"));
        let empty = draw(&usage(Vec::new()), None);
        assert!(empty.contains("UTC: nothing") && empty.contains(">nothing consumed<"));
    }

    #[test]
    fn names_never_become_markup() {
        let svg = draw(&usage(vec![app("<script>\"&\u{1}", &[3])]), None);
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;&quot;&amp;\u{fffd} 3"));
    }

    #[test]
    fn times_have_room_however_narrow_the_page() {
        let names = |width| {
            let svg = draw(&usage(vec![app("a", &[1])]), Some(width));
            svg.matches(":00</text>").count()
        };
        assert_eq!([names(640), names(320), names(0)], [6, 3, 3]);
        let svg = draw(&usage(Vec::new()), Some(i64::MAX));
        assert!(svg.contains("viewBox=\"0 0 4000 400\""));
    }

    #[test]
    fn those_that_consumed_least_share_a_colour() {
        let apps = (0..9).map(|n| app(&format!("app {n}"), &[n + 1])).collect();
        let series = series(&usage(apps));
        assert_eq!(series.len(), COLOURS);
        assert_eq!(
            (series[0].name.as_str(), series[6].name.as_str()),
            ("app 8", "3 others")
        );
        assert_eq!(series[6].units[0], 1 + 2 + 3);
    }

    #[test]
    fn units_that_are_given_back_stand_below_zero() {
        let scale = Scale::of(&series(&usage(vec![app("a", &[8, -3])])), 48);
        assert!(scale.lowest <= -3 && scale.highest >= 8);
        assert!(scale.y(-3) > scale.y(0) && scale.y(0) > scale.y(8));
        let huge = Scale::of(&series(&usage(vec![app("a", &[i64::MAX, i64::MIN])])), 48);
        assert!((TOP..=BOTTOM).contains(&huge.y(0)));
    }
}
