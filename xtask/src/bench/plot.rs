//! The plot of what watching costs, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// One watcher's points: objects a second, percent lost, half the width of the interval.
pub(super) struct Series {
    name: &'static str,
    pub(super) points: Vec<(f64, f64, f64)>,
}

impl Series {
    pub(super) fn new(name: &'static str) -> Series {
        Series { name, points: Vec::new() }
    }
}

/// Less than this is drawn at it: an axis of logarithms has no nought.
const FLOOR: f64 = 0.01;

const SIZE: (u32, u32) = (900, 520);

/// Throughput lost against the rate of allocations, both on axes of logarithms.
pub(super) fn losses(file: &Path, all: &[Series]) -> Result<()> {
    draw(file, all).map_err(|e| anyhow!("drawing {}: {e}", file.display()))
}

fn draw(file: &Path, all: &[Series]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d((5e3..1e8).log_scale(), (FLOOR..100.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("objects a second, unwatched")
        .y_desc("throughput lost, % (0.01: nothing to be seen)")
        .x_label_formatter(&|x| format!("{x:.0e}"))
        .y_label_formatter(&|y| y.to_string())
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (i, series) in all.iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        let shown = |lost: f64| lost.max(FLOOR);
        let points = series.points.iter().map(|&(x, lost, _)| (x, shown(lost)));
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.map(|point| Circle::new(point, 4, colour.filled())))?;
        let bars = series.points.iter().map(|&(x, lost, half)| {
            PathElement::new([(x, shown(lost - half)), (x, shown(lost + half))], colour.stroke_width(1))
        });
        chart.draw_series(bars)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
