//! Draws the loss curve as a small self-contained SVG, with raw and smoothed training loss and validation points. Colours
//! follow the viewer's light or dark preference. The file contains neither scripts nor fonts. For a model with experts, a line
//! over the whole height, from 0 to 1, is the entropy of their load where it is least.
//!
//! A long run is reduced to at most `BINS` columns, each with its lowest and highest value, so spikes stay visible and the
//! file stays below about 50 kB. The smoothed line averages over both sides, so it does not lag behind a falling curve. A
//! value that is not finite becomes a gap.

use super::metrics::Losses;
use std::fmt::Write;

/// The file name inside a run directory.
#[cfg(feature = "native")]
pub(super) const FILE_NAME: &str = "loss.svg";

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 52.0;
const BINS: usize = 600;

const STYLE: &str = "\
.bg{fill:#fff}text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#57606a}\
.title{font-size:16px;font-weight:600;fill:#1f2328}.grid{stroke:#e7eaee}.axis{stroke:#8c959f}\
polyline{fill:none;stroke:#2f6fde;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
polyline.raw{stroke-width:1;opacity:.3}polyline.val{stroke:#d9480f}polyline.experts{stroke:#2b8a3e;stroke-width:1}\
circle{fill:#2f6fde;stroke:#fff;stroke-width:1.5}circle.val{fill:#d9480f}circle.experts{fill:#2b8a3e}\
@media(prefers-color-scheme:dark){.bg{fill:#0d1117}text{fill:#9198a1}.title{fill:#f0f6fc}.grid{stroke:#21262d}\
.axis{stroke:#656c76}polyline{stroke:#58a6ff}polyline.val{stroke:#ffa657}polyline.experts{stroke:#69db7c}\
circle{fill:#58a6ff;stroke:#0d1117}circle.val{fill:#ffa657}circle.experts{fill:#69db7c}}";

/// The SVG of a run's losses, with ascending steps.
pub fn loss_svg(losses: &Losses, title: &str) -> String {
    let Losses { train, val, entropy, .. } = losses;
    let smooth = smoothed(train);
    let frame = Frame::around(train, val);
    let mut svg = String::new();
    open(&mut svg, title);
    frame.draw(&mut svg);
    polylines(&mut svg, "raw", &frame, &thinned(train));
    polylines(&mut svg, "train", &frame, &thinned(&smooth));
    polylines(&mut svg, "val", &frame, &thinned(val));
    let dots = thinned(val);
    if dots.len() <= 60 {
        dots.iter().filter(|p| drawable(p.1)).for_each(|p| dot(&mut svg, "val", frame.at(p.0, p.1)));
    }
    if !frame.empty && !entropy.is_empty() {
        let ends = |y: Axis| Frame { x: Axis { ..frame.x }, y, empty: false };
        polylines(&mut svg, "experts", &ends(Axis::new(0.0, 1.0, 2.0, 0.5)), &thinned(entropy));
        for (v, y) in [(0, HEIGHT - BOTTOM), (1, TOP)] {
            let (x, y) = (WIDTH - RIGHT + 6.0, y + 4.0);
            let _ = writeln!(svg, r#"<text x="{x}" y="{y}">{v}</text>"#);
        }
    }
    legend(&mut svg, &smooth, losses);
    if frame.empty {
        let (x, y) = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, TOP + (HEIGHT - TOP - BOTTOM) / 2.0);
        let _ = writeln!(svg, r#"<text x="{x}" y="{y}" text-anchor="middle">no losses yet</text>"#);
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(svg: &mut String, title: &str) {
    let title = escaped(title);
    let _ = write!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
<title>{title}</title>
<style>{STYLE}</style>
<rect class="bg" x="0" y="0" width="{WIDTH}" height="{HEIGHT}" rx="8"/>
<text class="title" x="{LEFT}" y="30">{title}</text>
"#
    );
}

/// Maps steps and losses to coordinates of the view box.
struct Frame {
    x: Axis,
    y: Axis,
    empty: bool,
}

struct Axis {
    low: f64,
    high: f64,
    tick: f64,
}

impl Axis {
    /// An axis over `low..high` with about `ticks` ticks at round values.
    fn new(low: f64, high: f64, ticks: f64, least_tick: f64) -> Self {
        let raw = (high - low) / ticks;
        let magnitude = 10f64.powf(raw.log10().floor());
        let nice = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude);
        let tick = nice.into_iter().find(|t| *t >= raw * 0.999).unwrap_or(nice[4]);
        Axis { low, high, tick: tick.max(least_tick) }
    }

    fn fraction(&self, v: f64) -> f64 {
        ((v - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.tick - 1e-9).ceil() as i64;
        let last = (self.high / self.tick + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * self.tick)
    }
}

impl Frame {
    fn around(train: &[(u64, f64)], val: &[(u64, f64)]) -> Self {
        let finite = || train.iter().chain(val).filter(|p| drawable(p.1));
        let (mut low, mut high) = finite().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
        let empty = finite().next().is_none();
        if empty {
            (low, high) = (0.0, 1.0);
        }
        // A single value, or equal ones, need an axis of positive height.
        let pad = ((high - low) * 0.06).max(high.abs().max(1.0) * 0.01);
        let first = finite().map(|p| p.0).min().unwrap_or(0);
        let last = finite().map(|p| p.0).max().unwrap_or(0).max(first.saturating_add(1));
        // The axis starts at 0, or at the first step if that is far from 0.
        let first = if first <= (last - first) / 10 { 0 } else { first };
        let x = Axis::new(first as f64, last as f64, 7.0, 1.0);
        // Ticks are whole steps.
        let x = if x.tick == 2.5 { Axis { tick: 5.0, ..x } } else { x };
        let bottom = if low >= 0.0 { (low - pad).max(0.0) } else { low - pad };
        Frame { x, y: Axis::new(bottom, high + pad, 6.0, 0.0), empty }
    }

    fn at(&self, step: u64, loss: f64) -> (f64, f64) {
        let x = LEFT + self.x.fraction(step as f64) * (WIDTH - LEFT - RIGHT);
        let y = HEIGHT - BOTTOM - self.y.fraction(loss) * (HEIGHT - TOP - BOTTOM);
        (x, y)
    }

    fn draw(&self, svg: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let decimals = (-self.y.tick.log10().floor()).max(0.0) as usize + usize::from(is_quarter(self.y.tick));
        for v in self.y.ticks() {
            let y = bottom - self.y.fraction(v) * (bottom - TOP);
            let _ = writeln!(svg, r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/>"#);
            let (x, y) = (LEFT - 8.0, y + 4.0);
            let _ = writeln!(svg, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{v:.decimals$}</text>"#);
        }
        for v in self.x.ticks() {
            let x = LEFT + self.x.fraction(v) * (right - LEFT);
            let _ = writeln!(svg, r#"<line class="grid" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}"/>"#);
            let (label, y) = (step_label(v), bottom + 18.0);
            let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#);
        }
        let _ = writeln!(svg, r#"<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>"#);
        let (x, y) = (LEFT + (right - LEFT) / 2.0, HEIGHT - 12.0);
        let _ = writeln!(svg, r#"<text x="{x}" y="{y}" text-anchor="middle">step</text>"#);
        let y = TOP + (bottom - TOP) / 2.0;
        let _ = writeln!(
            svg,
            r#"<text transform="translate(18 {y}) rotate(-90)" text-anchor="middle">nats per token</text>"#
        );
    }
}

/// Whether a loss can be drawn: larger ones would overflow the axis.
fn drawable(v: f64) -> bool {
    v.abs() < 1e12
}

fn is_quarter(tick: f64) -> bool {
    let mantissa = tick / 10f64.powf(tick.log10().floor());
    (mantissa - 2.5).abs() < 1e-6
}

/// `500`, `1.5k`, `20k`, `1.25M`.
fn step_label(v: f64) -> String {
    match v {
        _ if v < 1e3 => format!("{v}"),
        _ if v < 1e6 => format!("{}k", (v / 1e3 * 1e3).round() / 1e3),
        _ => format!("{}M", (v / 1e6 * 1e6).round() / 1e6),
    }
}

/// Polylines of class `class`, one for each run of drawable points.
fn polylines(svg: &mut String, class: &str, frame: &Frame, points: &[(u64, f64)]) {
    for run in points.split(|p| !drawable(p.1)).filter(|run| !run.is_empty()) {
        let _ = write!(svg, r#"<polyline class="{class}" points=""#);
        for &(step, loss) in run {
            let (x, y) = frame.at(step, loss);
            let _ = write!(svg, "{x:.1},{y:.1} ");
        }
        svg.push_str("\"/>\n");
        if let [(step, loss)] = run {
            // A polyline of one point is invisible.
            dot(svg, class, frame.at(*step, *loss));
        }
    }
}

fn dot(svg: &mut String, class: &str, (x, y): (f64, f64)) {
    let _ = writeln!(svg, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#);
}

/// At most two points for each of `BINS` bins of the list: the lowest and the highest, in their order. A bin without
/// drawable points becomes a gap.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= 2 * BINS {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(2 * BINS);
    for bin in points.chunks(points.len().div_ceil(BINS)) {
        let finite = || bin.iter().enumerate().filter(|(_, p)| drawable(p.1));
        let low = finite().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let high = finite().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
        match (low, high) {
            (Some(low), Some(high)) if low.0 == high.0 => out.push(*low.1),
            (Some(low), Some(high)) => out.extend([bin[low.0.min(high.0)], bin[low.0.max(high.0)]]),
            _ => out.extend(bin.first()),
        }
    }
    out
}

/// A mean whose weights decay exponentially to both sides, over about 1/30 of the list. Gaps stay gaps.
fn smoothed(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let rate = (60.0 / points.len().max(1) as f64).clamp(1e-6, 0.5);
    let before = one_sided(points.iter(), rate);
    let after = one_sided(points.iter().rev(), rate);
    let both = before.iter().zip(after.iter().rev());
    points.iter().zip(both).map(|(p, (b, a))| (p.0, (b.0 + a.0) / (b.1 + a.1))).collect()
}

/// For each point, the weighted sum of the losses up to it and the sum of the weights; NaN at gaps.
fn one_sided<'a>(points: impl Iterator<Item = &'a (u64, f64)>, rate: f64) -> Vec<(f64, f64)> {
    let (mut sum, mut weight) = (0.0, 0.0);
    let add = |&(_, loss): &(u64, f64)| {
        if !drawable(loss) {
            return (f64::NAN, f64::NAN);
        }
        sum += rate * (loss - sum);
        weight += rate * (1.0 - weight);
        (sum, weight)
    };
    points.map(add).collect()
}

/// Line samples with the last value of each curve, at the top right.
fn legend(svg: &mut String, train: &[(u64, f64)], losses: &Losses) {
    let mut right = WIDTH - RIGHT;
    let dead = match losses.dead_experts {
        0 => String::new(),
        dead => format!(", {dead} dead"),
    };
    let curves: [(_, &[_], _, &str); 3] = [
        ("val", &losses.val, "val", ""),
        ("train", train, "train", ""),
        ("experts", &losses.entropy, "load entropy", &dead),
    ];
    for (class, points, name, more) in curves {
        let Some((_, last)) = points.iter().rev().find(|p| drawable(p.1)) else { continue };
        let width = if class == "experts" { 190.0 } else { 116.0 };
        let line_start = right - width + 16.0;
        let (line_end, x) = (line_start + 22.0, line_start + 28.0);
        let _ = writeln!(svg, r#"<polyline class="{class}" points="{line_start},26 {line_end},26"/>"#);
        let _ = writeln!(svg, r#"<text x="{x}" y="30">{name} {last:.3}{more}</text>"#);
        right -= width;
    }
}

/// Text for an XML element, without the characters that XML does not allow.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that tags nest and that every drawn coordinate is inside the view box; returns the number of coordinates.
    fn check(svg: &str) -> usize {
        let mut open: Vec<&str> = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("every tag is closed");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty() && svg.starts_with("<svg ") && !svg.contains("NaN\"") && !svg.contains("inf\""));
        let inside = |text: &str, limit: f64| {
            let v: f64 = text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"));
            assert!((0.0..=limit).contains(&v), "{v} is outside 0..{limit}");
        };
        let mut seen = 0;
        for (key, limit) in [("x", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("cx", WIDTH), ("y", HEIGHT), ("cy", HEIGHT)] {
            for rest in svg.split(&format!(" {key}=\"")).skip(1) {
                inside(rest.split('"').next().unwrap(), limit);
                seen += 1;
            }
        }
        for points in svg.split("points=\"").skip(1) {
            for point in points.split('"').next().unwrap().split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                inside(x, WIDTH);
                inside(y, HEIGHT);
                seen += 1;
            }
        }
        seen
    }

    #[test]
    fn every_kind_of_input_is_a_well_formed_picture() {
        let curve: Vec<_> = (1..=200).map(|s| (s, 8.0 / (s as f64).sqrt())).collect();
        let val: Vec<_> = (1..=10).map(|s| (s * 20, 3.0)).collect();
        let mut gaps = curve.clone();
        gaps[50].1 = f64::NAN;
        gaps[51].1 = f64::INFINITY;
        gaps[199].1 = f64::NEG_INFINITY;
        let cases: [(&[_], &[_]); 9] = [
            (&[], &[]),
            (&[(0, 5.0)], &[]),
            (&[], &[(7, 5.0)]),
            (&[(5, f64::NAN)], &[(5, f64::NAN)]),
            (&[(5, 0.0), (6, 0.0)], &[]),
            (&[(1, -1e9), (u64::MAX, 1e9)], &[]),
            (&curve, &val),
            (&gaps, &val),
            (&curve[150..], &[]),
        ];
        let losses = |train: &[_], val: &[_]| Losses { train: train.to_vec(), val: val.to_vec(), ..Losses::default() };
        for (train, val) in cases {
            check(&loss_svg(&losses(train, val), "tiny <&> \"run\" \u{1}"));
        }
        assert!(loss_svg(&losses(&[], &[]), "").contains("no losses yet"));
        assert!(loss_svg(&losses(&gaps, &[]), "").matches("class=\"raw\"").count() == 2);
        let entropy = (1..=200).map(|s| (s, s as f64 / 200.0)).collect();
        let with_experts = loss_svg(&Losses { entropy, dead_experts: 3, ..losses(&curve, &val) }, "");
        check(&with_experts);
        assert!(with_experts.contains("load entropy 1.000, 3 dead") && with_experts.contains("class=\"experts\""));
    }

    #[test]
    fn a_long_run_is_small_and_keeps_its_spikes() {
        let mut curve: Vec<_> = (0..200_000).map(|s| (s, 4.0 + (s % 7) as f64 * 0.1)).collect();
        curve[123_456].1 = 40.0;
        let thin = thinned(&curve);
        assert!(thin.len() <= 2 * BINS && thin.contains(&(123_456, 40.0)));
        assert!(thin.is_sorted_by_key(|p| p.0));
        let svg = loss_svg(&Losses { train: curve, ..Losses::default() }, "long");
        assert!(svg.len() < 50_000 && check(&svg) > 1000, "{} bytes", svg.len());
    }

    #[test]
    fn smoothing_keeps_a_constant_and_its_gaps() {
        let smooth = smoothed(&[(1, 4.0), (2, f64::NAN), (3, 4.0)]);
        assert_eq!((smooth[0], smooth[2]), ((1, 4.0), (3, 4.0)));
        assert!(smooth[1].1.is_nan());
    }

    #[test]
    fn ticks_are_round() {
        let ticks = |low, high| Axis::new(low, high, 6.0, 0.0).ticks().collect::<Vec<_>>();
        assert_eq!(ticks(0.0, 6.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(ticks(90.0, 210.0), [100.0, 120.0, 140.0, 160.0, 180.0, 200.0]);
        assert_eq!([0.0, 500.0, 1500.0, 20_000.0, 1_250_000.0].map(step_label), ["0", "500", "1.5k", "20k", "1.25M"]);
    }
}
