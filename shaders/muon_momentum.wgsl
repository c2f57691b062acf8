// Muon (Jordan et al. 2024), first step: m = beta m + (1-beta) g and the Nesterov direction (1-beta) g + beta m into
// x[offset..], with g = gradient * ctl[0]; the matrix is (rows, cols) from element `start` of g and m, stored
// transposed in x when `transposed`. m stays when ctl[1] is set.

//#import elements

struct Args { rows: u32, cols: u32, offset: u32, transposed: u32, beta: f32, start: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<f32>; // (rows, cols) from start
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read_write> m: array<f32>; // (rows, cols) from start
@group(0) @binding(4) var<storage, read_write> x: array<f32>; // (rows, cols) or (cols, rows) from offset

fn element(i: u32) {
    if i >= args.rows * args.cols {
        return;
    }
    let at = args.start + i;
    let grad = g[at] * ctl[0];
    let moved = args.beta * m[at] + (1.0 - args.beta) * grad;
    let to = select(i, i % args.cols * args.rows + i / args.cols, args.transposed != 0u);
    x[args.offset + to] = (1.0 - args.beta) * grad + args.beta * moved;
    if ctl[1] == 0.0 {
        m[at] = moved;
    }
}
