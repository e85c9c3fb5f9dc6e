//! The plot of a comparison: CPU relative to the reference for each workload, and latency in the open loop.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::table::{Cell, Comparison, Row};
use super::workloads::OPEN;
use crate::Failure;

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 360;
const COLOURS: [RGBColor; 6] = [
    RGBColor(128, 128, 128),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

/// Workloads whose latencies are shown.
const OPEN_LOOPS: [&str; 2] = ["half", OPEN];

/// The name of a group and its bars, one for each server; `None` where there is no figure.
type Group = (String, Vec<Option<f64>>);

/// Renders the comparison as SVG.
///
/// # Errors
/// The plotting library fails.
pub(super) fn render(comparison: &Comparison) -> Result<String, Failure> {
    let open = comparison.rows.iter().find(|row| OPEN_LOOPS.contains(&row.workload.as_str()));
    let mut svg = String::new();
    {
        let panels = 1 + u32::from(open.is_some());
        let area = SVGBackend::with_string(&mut svg, (WIDTH, PANEL_HEIGHT * panels)).into_drawing_area();
        area.fill(&WHITE).map_err(plot_failure)?;
        let names: Vec<String> = comparison.servers.iter().map(|server| server.name.clone()).collect();
        let panels = area.split_evenly((panels as usize, 1));
        let ratios: Vec<Group> = comparison.rows.iter().map(ratios).collect();
        let title = format!("Server CPU a request, {} = 1", names[0]);
        panel(&panels[0], &title, &names, &ratios)?;
        if let Some(open) = open {
            let title = "Latency in the open loop, ms";
            panel(&panels[1], title, &names, &latencies(open))?;
        }
        area.present().map_err(plot_failure)?;
    }
    Ok(svg)
}

fn ratios(row: &Row) -> Group {
    let figure = |cell: &Cell| {
        (cell.failure.is_none() && cell.cpu_ratio.median > 0.0).then_some(cell.cpu_ratio.median)
    };
    (row.workload.clone(), row.cells.iter().map(figure).collect())
}

fn latencies(row: &Row) -> Vec<Group> {
    let figures = |cell: &Cell| [cell.p50_us, cell.steady_p99_us.unwrap_or(cell.p99_us), cell.p99_us];
    ["p50", "p99, median tenth", "p99"]
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let bar = |cell: &Cell| cell.failure.is_none().then(|| figures(cell)[index] / 1000.0);
            ((*name).to_owned(), row.cells.iter().map(bar).collect())
        })
        .collect()
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    names: &[String],
    groups: &[Group],
) -> Result<(), Failure> {
    const GAP: f64 = 0.2;
    /// Free space above the bars, and for each line of the legend, as shares of the greatest bar.
    const ABOVE: (f64, f64) = (0.1, 0.1);
    let room = 1.0 + ABOVE.0 + ABOVE.1 * names.len() as f64;
    let top = groups.iter().flat_map(|group| group.1.iter().flatten()).fold(0.0, |a: f64, &b| a.max(b));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..groups.len() as f64, 0.0..(top * room).max(1e-9))
        .map_err(plot_failure)?;
    let label = |x: &f64| {
        let index = *x as usize;
        let centred = (*x - index as f64 - 0.5).abs() < 0.01;
        groups.get(index).filter(|_| centred).map(|group| group.0.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(groups.len() * 2 + 1)
        .x_label_formatter(&label)
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(plot_failure)?;
    let width = (1.0 - GAP) / names.len() as f64;
    for (server, name) in names.iter().enumerate() {
        let colour = COLOURS[server % COLOURS.len()];
        let bars = groups.iter().enumerate().filter_map(|(at, group)| {
            let left = at as f64 + GAP / 2.0 + width * server as f64;
            Some(Rectangle::new([(left, 0.0), (left + width * 0.92, group.1[server]?)], colour.filled()))
        });
        chart
            .draw_series(bars)
            .map_err(plot_failure)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 13))
        .draw()
        .map_err(plot_failure)
}

fn plot_failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the plot cannot be plot_failure: {error}"))
}
