//! Static division of a matrix among threads: every part computes its own bounds from the same arguments.

use std::ops::Range;

/// The `part`-th of `parts` nearly equal runs of `0..len`, cut at multiples of `unit`.
pub(crate) fn range(len: usize, unit: usize, part: usize, parts: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    // units * p / parts, where the product may not fit.
    let cut = |p: usize| ((units / parts * p + units % parts * p / parts) * unit).min(len);
    cut(part)..cut(part + 1)
}

/// The tile (rows, columns) of an (m, n) result that `part` of `parts` computes, cut at multiples of `unit`.
///
/// The grid is the factorisation of `parts` whose largest tile costs least, where a tile of (tm, tn) costs
/// `tm * tn + row_cost * tm + col_cost * tn`: the costs of bringing in a row and a column, in units of one result.
pub(crate) fn tile(
    (m, n): (usize, usize),
    unit: (usize, usize),
    (row_cost, col_cost): (usize, usize),
    part: usize,
    parts: usize,
) -> (Range<usize>, Range<usize>) {
    assert!(part < parts, "part {part} of {parts}");
    let largest = |len: usize, unit: usize, p: usize| len.div_ceil(unit).div_ceil(p) * unit;
    let cost = |pm: usize| {
        let (tm, tn) = (largest(m, unit.0, pm), largest(n, unit.1, parts / pm));
        tm * tn + row_cost * tm + col_cost * tn
    };
    let pm = (1..=parts).filter(|&pm| parts.is_multiple_of(pm)).min_by_key(|&pm| cost(pm)).unwrap_or(1);
    let pn = parts / pm;
    (range(m, unit.0, part / pn, pm), range(n, unit.1, part % pn, pn))
}

/// Column range of the upper triangle of an (n, n) matrix that `part` of `parts` computes: equal areas.
pub(crate) fn triangle(n: usize, unit: usize, part: usize, parts: usize) -> Range<usize> {
    assert!(part < parts, "part {part} of {parts}");
    let units = n.div_ceil(unit) as f64;
    let cut = |p: usize| ((units * (p as f64 / parts as f64).sqrt()).round() as usize * unit).min(n);
    cut(part)..cut(part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_once() {
        for (m, n, parts) in [(1, 1, 3), (7, 130, 2), (256, 256, 5), (2048, 256, 6), (0, 4, 2)] {
            let mut hit = vec![0u8; m * n];
            let mut upper = vec![0u8; n];
            for part in 0..parts {
                let (rows, cols) = tile((m, n), (12, 32), (10, 20), part, parts);
                for i in rows {
                    cols.clone().for_each(|j| hit[i * n + j] += 1);
                }
                triangle(n, 32, part, parts).for_each(|j| upper[j] += 1);
            }
            assert!(hit.iter().chain(&upper).all(|&h| h == 1), "{m}x{n} in {parts}");
        }
    }
}
