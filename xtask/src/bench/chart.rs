//! Cost against size, both on logarithmic scales.

use std::collections::BTreeMap;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] =
    ["#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#c2255c", "#5c940d", "#495057", "#e67700"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// What is written around the lines.
pub struct Chart {
    pub title: &'static str,
    pub sizes: &'static str,
    /// How a value is shown.
    pub label: fn(f64) -> String,
}

/// What a picture spans.
struct Scale {
    x: (f64, f64),
    y: (f64, f64),
}

impl Scale {
    fn x(&self, x: f64) -> f64 {
        let share = (x / self.x.0).ln() / (self.x.1 / self.x.0).ln().max(0.01);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let share = (y / self.y.0).ln() / (self.y.1 / self.y.0).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// A line for each name, through its points.
    pub fn draw(&self, points: &[(String, Point)]) -> String {
        let mut lines: BTreeMap<&str, Vec<Point>> = BTreeMap::new();
        for (name, point) in points {
            lines.entry(name).or_default().push(*point);
        }
        let span = |of: fn(&Point) -> f64| {
            let values = points.iter().map(|(_, point)| of(point));
            values.fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(v), b.max(v)))
        };
        let (least, most) = span(|point| point.y);
        let grid: Vec<f64> = steps().skip_while(|step| step * 1.999 < least).collect();
        let above = grid.iter().position(|step| *step >= most).unwrap_or(grid.len() - 1);
        let grid = &grid[..=above];
        let y = (grid[0].min(least), grid[above]);
        let scale = Scale { x: span(|point| point.x), y };

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">\
             {}</text>\n",
            self.title
        );
        self.axes(&mut svg, &scale, grid, points);
        let mut ends: Vec<(f64, usize, &str)> = Vec::new();
        for (number, (name, line)) in lines.iter().enumerate() {
            let points: Vec<String> = line
                .iter()
                .map(|point| format!("{:.1},{:.1}", scale.x(point.x), scale.y(point.y)))
                .collect();
            let colour = COLOURS[number % COLOURS.len()];
            let points = points.join(" ");
            svg += &format!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" \
                 stroke-width=\"2\"/>\n"
            );
            if let Some(last) = line.last() {
                ends.push((scale.y(last.y), number, name));
            }
        }
        names(&mut svg, ends);
        svg + "</svg>\n"
    }

    fn axes(&self, svg: &mut String, scale: &Scale, grid: &[f64], points: &[(String, Point)]) {
        for value in grid.iter().copied() {
            let y = scale.y(value);
            let end = WIDTH - RIGHT;
            let label = (self.label)(value);
            *svg += &format!(
                "<line x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let mut sizes: Vec<f64> = points.iter().map(|(_, point)| point.x).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        for size in sizes {
            *svg += &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{size}</text>\n",
                scale.x(size),
                HEIGHT - BOTTOM + 18.0
            );
        }
        *svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 10.0,
            self.sizes
        );
    }
}

/// 1, 2, 5 and so on, from a nanosecond to a quarter of an hour.
fn steps() -> impl Iterator<Item = f64> {
    (-9..3).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)))
}

pub fn seconds(value: f64) -> String {
    match value {
        s if s < 0.9e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 0.9 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.0} s"),
    }
}

/// Beside the lines' ends, apart from each other.
fn names(svg: &mut String, mut ends: Vec<(f64, usize, &str)>) {
    ends.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    let mut free = TOP;
    for (y, number, name) in ends {
        let y = y.max(free);
        free = y + 15.0;
        let colour = COLOURS[number % COLOURS.len()];
        *svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>\n",
            WIDTH - RIGHT + 8.0,
            y + 4.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_a_line_for_each_name() {
        let at = |x, y| Point { x, y };
        let points = [("a", at(1.0, 0.5)), ("a", at(10.0, 5.0)), ("b", at(1.0, 2.0))];
        let points = points.map(|(name, point)| (name.to_owned(), point));
        let picture = Chart { title: "T", sizes: "S", label: seconds }.draw(&points);
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert!(picture.contains(">b<") && picture.ends_with("</svg>\n"));
    }
}
