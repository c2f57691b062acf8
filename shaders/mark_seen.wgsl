// Marks the tokens of a sequence: seen[slots[r]][ids[r]] = 1. A slot or an id beyond `seen`, such as
// 0xffffffff, marks nothing.

struct Args { rows: u32, vocab: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read_write> seen: array<u32>; // (slots, vocab)

// A single thread, since two rows may mark the same token.
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane != 0u {
        return;
    }
    for (var r = 0u; r < args.rows; r++) {
        if slots[r] < arrayLength(&seen) / args.vocab && ids[r] < args.vocab {
            seen[slots[r] * args.vocab + ids[r]] = 1u;
        }
    }
}
