// Muon, last step: w = w (1 - lr wd) - lr * shape * x with x the orthogonalised direction at x[offset..] (stored
// transposed when `transposed`), lr = args.lr * step[0] and shape = sqrt(max(1, rows / cols)). Nothing moves when
// ctl[1] is set.

//#import elements

struct Args { rows: u32, cols: u32, offset: u32, transposed: u32, lr: f32, shape: f32, weight_decay: f32, start: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, cols) or (cols, rows) from offset
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (4): learning-rate factor, ...
@group(0) @binding(4) var<storage, read_write> w: array<f32>; // (rows, cols) from start

fn element(i: u32) {
    if i >= args.rows * args.cols || ctl[1] != 0.0 {
        return;
    }
    let lr = args.lr * step[0];
    let source = select(i, i % args.cols * args.rows + i / args.cols, args.transposed != 0u);
    let at = args.start + i;
    w[at] = w[at] * (1.0 - lr * args.weight_decay) - lr * args.shape * x[args.offset + source];
}
