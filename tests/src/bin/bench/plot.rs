//! Saved results as a picture: a panel for each measure, a bar for each product, a line from its least to its greatest round.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use serde_json::Value;

use crate::figures::Figure;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 260;
/// What is drawn of each result.
const MEASURES: [(&str, &str); 3] = [
    ("accepted_per_s", "accepted durably, mails/s"),
    ("through_per_s", "through, mails/s"),
    ("cpu_s_per_1000", "processor time, s for 1,000 mails"),
];
/// Of the products in their order.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0x7f, 0xb2, 0xe5),
    RGBColor(0x8a, 0x8a, 0x8a),
    RGBColor(0xd9, 0x82, 0x2b),
    RGBColor(0x4c, 0x9a, 0x52),
];
/// The part of a group's room that its bars take.
const FILLED: f64 = 0.8;
/// The part of the picture's width that the names of the products take.
const NAMES: f64 = 0.12;

#[derive(Args)]
pub struct Options {
    /// What `--json` printed, each in a file of its own; text before the object does not matter.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The SVG file to write.
    #[arg(long)]
    out: PathBuf,
}

pub fn run(options: &Options) -> Result<()> {
    let mut panels = Vec::new();
    for path in &options.results {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let read = read(&text).with_context(|| path.display().to_string())?;
        panels.extend(read);
    }
    fs::write(&options.out, draw(&panels)?).with_context(|| options.out.display().to_string())
}

/// One measure of one result.
#[derive(Debug, PartialEq)]
struct Panel {
    title: String,
    products: Vec<String>,
    groups: Vec<Group>,
}

/// How the load came, and what each product made of it.
#[derive(Debug, PartialEq)]
struct Group {
    label: String,
    figures: Vec<Option<Figure>>,
}

/// The panels of what `--json` printed.
fn read(text: &str) -> Result<Vec<Panel>> {
    let begin = text.find("\n{").map_or(0, |at| at + 1);
    let result: Value = serde_json::from_str(text.get(begin..).unwrap_or_default())
        .context("no result: run the bench with --json")?;
    let bench = result["bench"].as_str().context("no name of a bench")?;
    let parts = result["results"].as_array();
    let parts: Vec<&Value> = parts.map_or_else(|| vec![&result], |parts| parts.iter().collect());
    let mut panels = Vec::new();
    for part in parts {
        let mut name = bench.to_owned();
        if let Some(passwords) = part["passwords"].as_str() {
            name += &format!(", passwords {passwords}");
        }
        let shapes = part["shapes"].as_array().context("no rounds in turn")?;
        panels.extend(MEASURES.map(|(key, words)| panel(&format!("{name}: {words}"), key, shapes)));
    }
    Ok(panels)
}

fn panel(title: &str, key: &str, shapes: &[Value]) -> Panel {
    let of = |shape: &'_ Value| shape["products"].as_array().cloned().unwrap_or_default();
    let name = |product: &Value| product["product"].as_str().unwrap_or_default().to_owned();
    Panel {
        title: title.to_owned(),
        products: shapes
            .first()
            .map_or_else(Vec::new, |shape| of(shape).iter().map(name).collect()),
        groups: shapes
            .iter()
            .map(|shape| Group {
                label: format!(
                    "{} octets, {} sessions, {} to a connection",
                    shape["size"], shape["sessions"], shape["per_connection"]
                ),
                figures: of(shape)
                    .iter()
                    .map(|product| figure(&product[key]))
                    .collect(),
            })
            .collect(),
    }
}

fn figure(value: &Value) -> Option<Figure> {
    Some(Figure {
        median: value["median"].as_f64()?,
        least: value["least"].as_f64()?,
        greatest: value["greatest"].as_f64()?,
    })
}

/// As SVG.
fn draw(panels: &[Panel]) -> Result<String> {
    ensure!(!panels.is_empty(), "nothing to draw");
    let mut text = String::new();
    {
        let height = HEIGHT * u32::try_from(panels.len())?;
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        for (panel, area) in panels.iter().zip(root.split_evenly((panels.len(), 1))) {
            draw_panel(panel, &area)?;
        }
        root.present()?;
    }
    Ok(text)
}

fn draw_panel(
    panel: &Panel,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<()> {
    let figures = panel
        .groups
        .iter()
        .flat_map(|group| group.figures.iter().flatten());
    let top = figures
        .map(|figure| figure.greatest)
        .fold(f64::MIN_POSITIVE, f64::max)
        * 1.25;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(8)
        .y_label_area_size(56)
        .x_label_area_size(8)
        .build_cartesian_2d(0.0..panel.groups.len() as f64 / (1.0 - NAMES), 0.0..top)?;
    let decimals = usize::from(top < 10.0);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_label_formatter(&|at| format!("{at:.decimals$}"))
        .max_light_lines(1)
        .draw()?;
    let centred = Pos::new(HPos::Center, VPos::Top);
    let small = TextStyle::from(("sans-serif", 11).into_font()).pos(centred);
    chart.draw_series(panel.groups.iter().enumerate().map(|(number, group)| {
        Text::new(
            group.label.clone(),
            (number as f64 + 0.5, top),
            small.clone(),
        )
    }))?;
    let width = FILLED / panel.products.len() as f64;
    for ((at, product), colour) in panel
        .products
        .iter()
        .enumerate()
        .zip(COLOURS.iter().cycle())
    {
        let bars = panel
            .groups
            .iter()
            .enumerate()
            .filter_map(|(number, group)| {
                let begin = number as f64 + (1.0 - FILLED) / 2.0 + at as f64 * width;
                Some((begin, (*group.figures.get(at)?)?))
            });
        let bars: Vec<(f64, Figure)> = bars.collect();
        let filled = bars.iter().map(|(begin, figure)| {
            Rectangle::new(
                [(*begin, 0.0), (begin + width * 0.9, figure.median)],
                colour.filled(),
            )
        });
        let colour = *colour;
        chart
            .draw_series(filled)?
            .label(product)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
        chart.draw_series(bars.iter().map(|(begin, figure)| {
            let middle = begin + width * 0.45;
            PathElement::new([(middle, figure.least), (middle, figure.greatest)], BLACK)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 11))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"a table
{ "bench": "delivery", "shapes": [ { "size": 5120, "sessions": 20, "per_connection": 1, "products": [
    { "product": "Postroad", "through_per_s": { "median": 900.0, "least": 800.0, "greatest": 950.0 } },
    { "product": "Postfix", "through_per_s": { "median": 300.0, "least": 200.0, "greatest": 310.0 } } ] } ] }"#;

    #[test]
    fn a_result_has_a_panel_for_each_measure_and_is_drawn() -> Result<()> {
        let panels = read(SAID)?;
        let through = &panels[1];
        assert_eq!(through.title, "delivery: through, mails/s");
        assert_eq!(through.products, ["Postroad", "Postfix"]);
        assert_eq!(
            through.groups[0].label,
            "5120 octets, 20 sessions, 1 to a connection"
        );
        let medians = through.groups[0].figures.iter().flatten();
        assert_eq!(
            medians.map(|figure| figure.median).collect::<Vec<_>>(),
            [900.0, 300.0]
        );
        assert_eq!(panels[0].groups[0].figures, [None, None], "not measured");
        let drawn = draw(&panels)?;
        assert!(
            drawn.starts_with("<svg") && drawn.contains("delivery: through"),
            "{drawn}"
        );
        assert!(read("a table").is_err());
        Ok(())
    }
}
