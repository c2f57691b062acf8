// Of each sequence of `seq` rows, keeps the targets of the `keep` rows with the largest losses, of equal ones the first;
// kept[r] = 0xffffffff, which is no token, elsewhere. One thread for each row.

//#import elements

struct Args { rows: u32, seq: u32, keep: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> losses: array<f32>; // (rows)
@group(0) @binding(2) var<storage, read> targets: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read_write> kept: array<u32>; // (rows)

fn element(r: u32) {
    if r >= args.rows {
        return;
    }
    let start = r / args.seq * args.seq;
    let own = losses[r];
    var harder = 0u;
    for (var i = start; i < min(start + args.seq, args.rows); i++) {
        harder += u32(losses[i] > own || (losses[i] == own && i < r));
    }
    kept[r] = select(0xffffffffu, targets[r], harder < args.keep);
}
