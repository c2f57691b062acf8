// Short causal convolution of each column by itself, with SiLU (Gated Delta Networks, Yang, Kautz and Hatamizadeh 2024):
// y[r][first + c] = silu(sum over j < width of w[j][first + c] * x[r - j][c]), where r - j is the row j positions earlier in the
// sequence of row r. There is none before position 0.
//
// In training, the rows are sequences of `seq` rows, `slots` is not read, and `tail` is not used. With `seq` = 0, row r is at
// positions[r] of the sequence in slots[r]; `tail` holds the last rows of each, that of position p at p % (width - 1), which the
// second pass stores. A slot beyond it, such as 0xffffffff, stores nothing and gives 0.

struct Args { rows: u32, cols: u32, first: u32, total: u32, width: u32, seq: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (width, total)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(5) var<storage, read_write> tail: array<f32>; // (slots, width - 1, total)
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (rows, total)

// Whether row `earlier` is j positions before row r of the same sequence.
fn follows(earlier: u32, r: u32, j: u32) -> bool {
    return slots[earlier] == slots[r] && positions[r] >= j && positions[r] - j == positions[earlier];
}

fn has_place(r: u32) -> bool {
    return args.seq > 0u || slots[r] < arrayLength(&tail) / ((args.width - 1u) * args.total);
}

// Where the column of a row j positions before row r is in the tail.
fn tail_at(r: u32, j: u32, column: u32) -> u32 {
    let kept = args.width - 1u;
    return (slots[r] * kept + (positions[r] - j) % kept) * args.total + column;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (wid.x + wid.y * groups.x) * 64u + lane;
    let r = i / args.cols;
    let c = i % args.cols;
    if r >= args.rows {
        return;
    }
    let column = args.first + c;
    var sum = 0.0;
    if has_place(r) {
        for (var j = 0u; j < args.width && j <= positions[r]; j++) {
            var value = 0.0;
            if args.seq > 0u {
                if r % args.seq < j {
                    break;
                }
                value = x[i - j * args.cols];
            } else if j == 0u {
                value = x[i];
            } else {
                var here = false;
                if r >= j {
                    here = follows(r - j, r, j);
                }
                if here {
                    value = x[i - j * args.cols];
                } else {
                    value = tail[tail_at(r, j, column)];
                }
            }
            sum += w[j * args.total + column] * value;
        }
    }
    // Bounded, so that no intermediate value is infinite.
    y[r * args.total + column] = sum / (1.0 + exp(min(-sum, 80.0)));
}

@compute @workgroup_size(64)
fn store(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (wid.x + wid.y * groups.x) * 64u + lane;
    let r = i / args.cols;
    if r >= args.rows || !has_place(r) {
        return;
    }
    let later = r + args.width - 1u;
    var is_last = later >= args.rows;
    if !is_last {
        is_last = !follows(r, later, args.width - 1u);
    }
    if is_last {
        tail[tail_at(r, 0u, args.first + i % args.cols)] = x[i];
    }
}
