// Counts the assignments of each expert: load[e] += starts[e + 1] - starts[e].

//#import elements

struct Args { experts: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> starts: array<u32>; // (experts + 1)
@group(0) @binding(2) var<storage, read_write> load: array<f32>; // (experts)

fn element(e: u32) {
    if e < args.experts {
        load[e] += f32(starts[e + 1u] - starts[e]);
    }
}
