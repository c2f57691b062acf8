// Sorts assignments of rows to experts by expert, equal ones in order: place[a] is where assignment a comes, and those of expert
// e are from starts[e] up to starts[e + 1]. Each of `chosen` is an expert. A workgroup places those of one expert: it counts them
// and those of the experts before; each thread then goes on from what the threads before it counted.

//#import groups

struct Args { n: u32, experts: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> chosen: array<u32>; // (n)
@group(0) @binding(2) var<storage, read_write> place: array<u32>; // (n)
@group(0) @binding(3) var<storage, read_write> starts: array<u32>; // (experts + 1)

// Of each thread's assignments, those of the expert and those of the experts before.
var<workgroup> counts: array<vec2<u32>, 64>;

fn group(expert: u32, lane: u32) {
    if expert >= args.experts {
        return;
    }
    let share = (args.n + 63u) / 64u;
    let from_a = min(lane * share, args.n);
    let to_a = min(from_a + share, args.n);
    var count = vec2<u32>();
    for (var a = from_a; a < to_a; a++) {
        count += vec2<u32>(u32(chosen[a] == expert), u32(chosen[a] < expert));
    }
    counts[lane] = count;
    workgroupBarrier();
    var first = 0u;
    var own = 0u;
    var before = 0u;
    for (var i = 0u; i < 64u; i++) {
        first += counts[i].y;
        own += counts[i].x;
        before += select(0u, counts[i].x, i < lane);
    }
    var next = first + before;
    for (var a = from_a; a < to_a; a++) {
        if chosen[a] == expert {
            place[a] = next;
            next++;
        }
    }
    if lane == 0u {
        starts[expert] = first;
        if expert + 1u == args.experts {
            starts[args.experts] = first + own;
        }
    }
}
