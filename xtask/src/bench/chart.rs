//! Cost against size, both in powers of ten.

use std::collections::BTreeMap;

use super::Median;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] =
    ["#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#c2255c", "#5c940d", "#495057", "#e67700"];

/// What a picture spans.
struct Scale {
    pods: (f64, f64),
    seconds: (f64, f64),
}

impl Scale {
    fn x(&self, pods: f64) -> f64 {
        let share = (pods / self.pods.0).ln() / (self.pods.1 / self.pods.0).ln().max(0.01);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, seconds: f64) -> f64 {
        let share = (seconds / self.seconds.0).ln() / (self.seconds.1 / self.seconds.0).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

pub fn draw(medians: &[Median]) -> String {
    let mut lines: BTreeMap<&str, Vec<&Median>> = BTreeMap::new();
    for median in medians {
        lines.entry(&median.name).or_default().push(median);
    }
    let span = |of: fn(&Median) -> f64| {
        let values = medians.iter().map(of);
        let (least, most) = values.fold((f64::MAX, 0.0_f64), |(a, b), v| (a.min(v), b.max(v)));
        (least, most)
    };
    let (least, most) = span(|median| median.seconds);
    let decades = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    let scale = Scale { pods: span(|median| median.pods), seconds: decades };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">\
         Median time of a change, up to a finished plan</text>\n"
    );
    axes(&mut svg, &scale, medians);
    let mut ends: Vec<(f64, usize, &str)> = Vec::new();
    for (number, (name, medians)) in lines.iter().enumerate() {
        let points: Vec<String> = medians
            .iter()
            .map(|m| format!("{:.1},{:.1}", scale.x(m.pods), scale.y(m.seconds)))
            .collect();
        let colour = COLOURS[number % COLOURS.len()];
        let points = points.join(" ");
        svg += &format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"2\"/>\n"
        );
        if let Some(last) = medians.last() {
            ends.push((scale.y(last.seconds), number, name));
        }
    }
    names(&mut svg, ends);
    svg + "</svg>\n"
}

fn axes(svg: &mut String, scale: &Scale, medians: &[Median]) {
    let mut seconds = scale.seconds.0;
    while seconds < scale.seconds.1 * 1.01 {
        let y = scale.y(seconds);
        let end = WIDTH - RIGHT;
        let label = match seconds {
            s if s < 0.9e-3 => format!("{:.0} µs", s * 1e6),
            s if s < 0.9 => format!("{:.0} ms", s * 1e3),
            s => format!("{s:.0} s"),
        };
        *svg += &format!(
            "<line x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
            LEFT - 8.0,
            y + 4.0
        );
        seconds *= 10.0;
    }
    let mut sizes: Vec<f64> = medians.iter().map(|median| median.pods).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for pods in sizes {
        *svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{pods}</text>\n",
            scale.x(pods),
            HEIGHT - BOTTOM + 18.0
        );
    }
    *svg += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">pods of the cluster</text>\n",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 10.0
    );
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
