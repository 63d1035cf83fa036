//! The page: one file, with charts in it, that loads nothing from anywhere.

use std::fmt::Display;

use anyhow::anyhow;
use bytesize::ByteSize;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::measure::{Figures, Mode};
use super::report::{BUSY, HEADER, Report, row};
use crate::progress::{short_count, short_us};

/// Whoever opens the page cannot be made to load anything, whatever a path or a mount option
/// contains.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "\
:root { color-scheme: light dark;
  --text: #1c1e21; --quiet: #5b6270; --line: #d5d9e0; --back: #ffffff; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --quiet: #9aa3b2; --line: #353b45; --back: #14171b; --card: #1c2026 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 72rem;
  font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back) }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p { margin: .3rem 0; color: var(--quiet) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 1rem 0;
  padding: 1rem; background: var(--card); border-radius: .5rem }
dt { color: var(--quiet) } dd { margin: 0; overflow-wrap: anywhere }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)) }
figure { margin: .8rem 0 0; padding: .8rem; background: var(--card); border-radius: .5rem }
figcaption { font-size: .9rem } svg { display: block; width: 100%; height: auto }
.scroll, .chart { overflow-x: auto } .busy { color: #b45309; font-weight: 600 }
@media (max-width: 40rem) {
  body { padding: 1rem .6rem 2rem } dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: .4rem } .chart svg { min-width: 26rem }
  .wide svg { min-width: 44rem }
}
table { border-collapse: collapse; font-size: .88rem;
  font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } th { color: var(--quiet); font-weight: 600 }";

/// Stands for the text's colour in what is drawn; replaced by one that follows the page's.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_TEXT: &str = "\"#010203\"";
/// Readable on light and dark ground.
const COLORS: [RGBColor; 6] = [
    RGBColor(0x2f, 0x81, 0xf7),
    RGBColor(0xe0, 0x8a, 0x00),
    RGBColor(0x1f, 0xa5, 0x72),
    RGBColor(0xe0, 0x4f, 0x5f),
    RGBColor(0x9b, 0x6c, 0xf0),
    RGBColor(0x12, 0x9f, 0xb3),
];

/// Of a chart, in pixels where the page is wide enough. A wide one is scrolled on a phone: shrunk
/// to its width, nobody could read it.
const HEIGHT: u32 = 300;
const WIDE: u32 = 1000;
const NARROW: u32 = 480;

/// What the axes are.
const RATE: &str = "records per second";
const TIME: &str = "time of a commit";
const PART: &str = "part of the commits";

/// A page about a run.
pub(crate) fn page(report: &Report) -> anyhow::Result<String> {
    let facts: String = report
        .facts()
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", safe(name), safe(value)))
        .collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>cairn bench, {}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n\
         <h1>How fast a log is here</h1>\n{}<dl>\n{facts}</dl>\n{}{}{}{}</body>\n</html>\n",
        safe(&report.date),
        busy(report),
        durable(report)?,
        latencies(report)?,
        others(report)?,
        table(report),
    ))
}

/// What a reader must know before the figures.
fn busy(report: &Report) -> String {
    if report.facts.is_busy() {
        format!("<p class=\"busy\" role=\"note\">{}</p>\n", safe(BUSY))
    } else {
        String::new()
    }
}

fn safe(text: impl Display) -> String {
    let text = text.to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn cells(report: &Report, mode: Mode) -> impl Iterator<Item = &Figures> {
    report.cells.iter().filter(move |figures| figures.mode == mode)
}

fn size(figures: &Figures) -> String {
    ByteSize(figures.size as u64).to_string()
}

/// The faster of the loops without a log.
fn raw(report: &Report) -> Option<&Figures> {
    let raw = report.cells.iter().filter(|figures| figures.mode.is_raw());
    raw.max_by(|a, b| a.records_per_second.total_cmp(&b.records_per_second))
}

/// Sizes in the order in which they were asked for, once each.
fn sizes(report: &Report) -> Vec<usize> {
    let mut sizes = Vec::new();
    for figures in cells(report, Mode::Durable) {
        if !sizes.contains(&figures.size) {
            sizes.push(figures.size);
        }
    }
    sizes
}

fn durable(report: &Report) -> anyhow::Result<String> {
    let sizes = sizes(report);
    let color =
        |figures: &Figures| sizes.iter().position(|size| *size == figures.size).unwrap_or(0);
    let bar = |figures: &Figures| Bar {
        label: [crate::report::count(figures.threads as u64, "thread"), size(figures)],
        value: figures.records_per_second,
        color: color(figures),
    };
    let bars: Vec<_> = cells(report, Mode::Durable).map(bar).collect();
    if bars.is_empty() {
        return Ok(String::new());
    }
    let raw = raw(report);
    let line = raw.map(|figures| {
        let rate = short_count(figures.records_per_second);
        format!(
            " The dashed line is what one thread gets without a log, 4 KiB at a time ({}): {rate}.",
            figures.mode.name()
        )
    });
    let svg = draw_bars(&bars, raw.map(|figures| figures.records_per_second), WIDE)?;
    Ok(format!(
        "<h2>Durable commits</h2>\n<p>Each record is waited for until it is durable; threads share \
         barriers.{}</p>\n{}",
        safe(line.unwrap_or_default()),
        figure("Durable records per second", &svg)
    ))
}

fn latencies(report: &Report) -> anyhow::Result<String> {
    let mut charts = String::new();
    for size in sizes(report) {
        let of_size = cells(report, Mode::Durable).filter(|figures| figures.size == size);
        let lines = of_size.filter_map(|figures| {
            let curve = figures.latency_us.as_ref()?.curve.as_slice();
            Some((crate::report::count(figures.threads as u64, "thread"), curve))
        });
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() {
            let title = format!("Records of {}", ByteSize(size as u64));
            charts += &figure(&title, &draw_curves(&lines)?);
        }
    }
    if charts.is_empty() {
        return Ok(charts);
    }
    Ok(format!(
        "<h2>How long a commit takes</h2>\n\
         <p>So many percent of the commits took no longer. \
         Each step to the right is ten times rarer.</p>\n\
         <div class=\"charts\">\n{charts}</div>\n"
    ))
}

fn others(report: &Report) -> anyhow::Result<String> {
    let mut charts = String::new();
    for (mode, title) in [
        (Mode::Tickets, "Tickets: durable, and not waited for one by one"),
        (Mode::Append, "Append without sync"),
        (Mode::Replay, "Replay from the page cache"),
    ] {
        let bars = cells(report, mode).enumerate();
        let bars: Vec<_> = bars
            .map(|(color, figures)| Bar {
                label: [size(figures), format!("{:.0} MB/s", figures.mb_per_second)],
                value: figures.records_per_second,
                color,
            })
            .collect();
        if !bars.is_empty() {
            charts += &figure(title, &draw_bars(&bars, None, NARROW)?);
        }
    }
    if charts.is_empty() {
        return Ok(charts);
    }
    Ok(format!("<h2>One thread, records per second</h2>\n<div class=\"charts\">\n{charts}</div>\n"))
}

fn table(report: &Report) -> String {
    let mut text = String::from("<h2>All figures</h2>\n<div class=\"scroll\">\n<table>\n<tr>");
    HEADER.iter().for_each(|name| text += &format!("<th>{}</th>", safe(name)));
    text += "</tr>\n";
    for figures in &report.cells {
        text += "<tr>";
        row(figures).iter().for_each(|cell| text += &format!("<td>{}</td>", safe(cell)));
        text += "</tr>\n";
    }
    text += "</table>\n</div>\n<p>Per barrier: records that became durable with one barrier. \
             Vs raw: records per second over the faster loop without a log.</p>\n";
    text
}

fn figure(title: &str, svg: &str) -> String {
    let title = safe(title);
    // What is inside a page has no need of its name space, and takes the page's colours.
    let svg = svg
        .replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
        .replace(INK_TEXT, "\"currentColor\"");
    let is_wide = svg.contains(&format!("width=\"{WIDE}\""));
    let svg = svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1);
    let class = if is_wide { "chart wide" } else { "chart" };
    format!(
        "<figure><figcaption>{title}</figcaption>\n<div class=\"{class}\">{svg}</div></figure>\n"
    )
}

struct Bar {
    /// Two lines below it.
    label: [String; 2],
    value: f64,
    /// Of [`COLORS`].
    color: usize,
}

fn color(n: usize) -> RGBColor {
    COLORS[n % COLORS.len()]
}

fn ink(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Bars beside each other, with a dashed line across.
fn draw_bars(bars: &[Bar], line: Option<f64>, width: u32) -> anyhow::Result<String> {
    let highest = bars.iter().map(|bar| bar.value).chain(line).fold(1.0, f64::max);
    let end = bars.len() as f64;
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (width, HEIGHT)).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end, 0.0..highest * 1.12)
        .map_err(undrawn)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(6)
        .bold_line_style(INK.mix(0.15))
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.4))
        .y_label_style(ink(13))
        .y_desc(RATE)
        .axis_desc_style(ink(13))
        .y_label_formatter(&|value| short_count(*value))
        .draw()
        .map_err(undrawn)?;
    let rectangles = bars.iter().zip(0u32..).map(|(bar, n)| {
        let left = f64::from(n);
        Rectangle::new([(left + 0.15, 0.0), (left + 0.85, bar.value)], color(bar.color).filled())
    });
    chart.draw_series(rectangles).map_err(undrawn)?;
    let centred = |v_pos| ink(13).pos(Pos::new(HPos::Center, v_pos));
    for (bar, n) in bars.iter().zip(0u32..) {
        let middle = f64::from(n) + 0.5;
        let (x, y) = chart.backend_coord(&(middle, bar.value));
        root.draw_text(&short_count(bar.value), &centred(VPos::Bottom), (x, y - 4))
            .map_err(undrawn)?;
        let (x, y) = chart.backend_coord(&(middle, 0.0));
        root.draw_text(&bar.label[0], &centred(VPos::Top), (x, y + 8)).map_err(undrawn)?;
        root.draw_text(&bar.label[1], &centred(VPos::Top), (x, y + 25)).map_err(undrawn)?;
    }
    if let Some(value) = line {
        let dashes =
            DashedLineSeries::new([(0.0, value), (end, value)], 6, 5, INK.mix(0.8).stroke_width(1));
        chart.draw_series(dashes).map_err(undrawn)?;
    }
    root.present().map_err(undrawn)?;
    drop(chart);
    drop(root);
    Ok(svg)
}

/// Lines of pairs of a part, from 0 to 1, and microseconds: nines to the right, time upwards, both
/// in powers of ten.
fn draw_curves(lines: &[(String, &[(f64, f64)])]) -> anyhow::Result<String> {
    let nines = |part: f64| -(1.0 - part).max(1e-9).log10();
    let points = || lines.iter().flat_map(|(_, curve)| curve.iter());
    let right = points().map(|(part, _)| nines(*part)).fold(1.0, f64::max);
    let low = points().map(|(_, us)| *us).fold(f64::INFINITY, f64::min).max(0.01);
    let high = points().map(|(_, us)| *us).fold(low * 10.0, f64::max);
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (NARROW, HEIGHT)).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .margin_right(28)
        .x_label_area_size(46)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..right, (low * 0.7..high * 1.5).log_scale())
        .map_err(undrawn)?;
    chart
        .configure_mesh()
        .x_labels(7)
        .y_labels(6)
        .bold_line_style(INK.mix(0.15))
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.4))
        .label_style(ink(13))
        .x_desc(PART)
        .y_desc(TIME)
        .axis_desc_style(ink(13))
        .x_label_formatter(&|nines| percent(*nines))
        .y_label_formatter(&|us| short_us(*us))
        .draw()
        .map_err(undrawn)?;
    for (n, (name, curve)) in lines.iter().enumerate() {
        let points = curve.iter().map(|(part, us)| (nines(*part), us.max(low)));
        let line = LineSeries::new(points, color(n).stroke_width(2));
        let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color(n).stroke_width(2));
        chart.draw_series(line).map_err(undrawn)?.label(name).legend(key);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font(ink(13))
        .border_style(TRANSPARENT)
        .background_style(TRANSPARENT)
        .draw()
        .map_err(undrawn)?;
    root.present().map_err(undrawn)?;
    drop(chart);
    drop(root);
    Ok(svg)
}

/// Two nines are `99%`; what is between two numbers of them has no name.
fn percent(nines: f64) -> String {
    match (nines * 10.0).round() {
        0.0 => "0%".to_owned(),
        10.0 => "90%".to_owned(),
        20.0 => "99%".to_owned(),
        tenths if tenths >= 30.0 && tenths % 10.0 == 0.0 => {
            let mut text = "99.".to_owned();
            (2..10).take_while(|n| f64::from(*n) * 10.0 < tenths).for_each(|_| text.push('9'));
            text + "%"
        }
        _ => String::new(),
    }
}

fn undrawn(error: impl Display) -> anyhow::Error {
    anyhow!("a chart cannot be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_have_names() {
        for (nines, name) in [
            (0.0, "0%"),
            (1.0, "90%"),
            (2.0, "99%"),
            (3.0, "99.9%"),
            (4.0, "99.99%"),
            (6.0, "99.9999%"),
            (1.5, ""),
        ] {
            assert_eq!(percent(nines), name);
        }
    }

    #[test]
    fn what_is_drawn_is_markup_that_follows_the_page() {
        let bar = |value| Bar { label: ["<1>".to_owned(), "&".to_owned()], value, color: 7 };
        for bars in [&[bar(0.0)][..], &[bar(1e9), bar(3.0)]] {
            let drawn = figure("a \"title\"", &draw_bars(bars, Some(0.5), 400).unwrap());
            assert!(drawn.contains(RATE), "the axis has a title: {drawn}");
            assert!(
                drawn.contains("&lt;1&gt;") && drawn.contains("aria-label=\"a &quot;title&quot;\""),
                "{drawn}"
            );
            assert!(drawn.contains("currentColor") && !drawn.contains("#010203"), "{drawn}");
            assert!(drawn.trim_end().ends_with("</svg>\n</div></figure>"), "{drawn}");
        }
        for curve in [&[(0.0, 0.0)][..], &[(0.0, 5.0), (0.5, 5.0), (0.999, 4e6), (1.0, 6e7)]] {
            let drawn = draw_curves(&[("8 threads".to_owned(), curve)]).unwrap();
            assert!(drawn.contains("8 threads") && drawn.contains("polyline"), "{drawn}");
            assert!(drawn.contains(PART) && drawn.contains(TIME), "{drawn}");
        }
    }
}
