// Reductions over the 64 threads of a workgroup; every thread gets the result. Call only in uniform control flow. Eight
// threads add eight values each, then every thread adds the eight sums: three barriers, and an order that never
// changes.

var<workgroup> lanes: array<f32, 64>;

fn reduce_sum(lane: u32, value: f32) -> f32 {
    lanes[lane] = value;
    workgroupBarrier();
    if lane < 8u {
        var sum = 0.0;
        for (var i = lane; i < 64u; i += 8u) {
            sum += lanes[i];
        }
        lanes[lane] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < 8u; i++) {
        total += lanes[i];
    }
    workgroupBarrier();
    return total;
}

fn reduce_max(lane: u32, value: f32) -> f32 {
    lanes[lane] = value;
    workgroupBarrier();
    if lane < 8u {
        var most = lanes[lane];
        for (var i = lane; i < 64u; i += 8u) {
            most = max(most, lanes[i]);
        }
        lanes[lane] = most;
    }
    workgroupBarrier();
    var total = lanes[0];
    for (var i = 1u; i < 8u; i++) {
        total = max(total, lanes[i]);
    }
    workgroupBarrier();
    return total;
}
