// `muon_momentum` for a momentum in another form. One workgroup for each tile of 32 rows and 64 columns, four columns of two rows
// to a thread: 16 neighbouring threads have 64 columns of a row. A tile is transposed in workgroup memory, so that neighbouring
// threads write neighbours. The op that imports this defines
//   load(at) -> vec4: four momenta from element `at` of the stack on
//   save(lane, at, there, old, moved): the momenta of both rows, where they are there; in uniform control flow

var<workgroup> tile: array<f32, 2080>; // (32 rows, 64 columns), a row padded by one: a column lies in different banks

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = args.start + wid.z * args.stride;
    let offset = args.offset + wid.z * args.rows * args.cols;
    let across = lane % 16u * 4u;
    let down = lane / 16u;
    let col = wid.x * 64u + across;
    let row = vec2<u32>(wid.y * 32u + down, wid.y * 32u + down + 16u);
    let there = (row < vec2<u32>(args.rows)) & vec2<bool>(col < args.cols);
    let at = start + row * args.cols + col;
    var old: array<vec4<f32>, 2>;
    var moved: array<vec4<f32>, 2>;
    var direction: array<vec4<f32>, 2>;
    for (var i = 0u; i < 2u; i++) {
        if there[i] {
            let grad = g[at[i] / 4u] * ctl[0];
            old[i] = load(at[i]);
            moved[i] = args.beta * old[i] + (1.0 - args.beta) * grad;
            direction[i] = (1.0 - args.beta) * grad + args.beta * moved[i];
        }
    }
    if ctl[1] == 0.0 {
        save(lane, at, there, old, moved);
    }
    for (var i = 0u; i < 2u; i++) {
        for (var c = 0u; c < 4u; c++) {
            if args.transposed == 0u && there[i] {
                x[offset + row[i] * args.cols + col + c] = direction[i][c];
            }
            tile[(down + i * 16u) * 65u + across + c] = direction[i][c];
        }
    }
    if args.transposed == 0u {
        return;
    }
    workgroupBarrier();
    let to_row = wid.y * 32u + lane % 32u;
    for (var i = 0u; i < 8u; i++) {
        let c = lane / 32u + i * 8u;
        if to_row < args.rows && wid.x * 64u + c < args.cols {
            x[offset + (wid.x * 64u + c) * args.rows + to_row] = tile[lane % 32u * 65u + c];
        }
    }
}
