// One 64 x 64 tile of a matrix product (m, k) x (k, n), for 8 x 8 threads that hold 8 x 8 results each. A step takes 16
// of k through workgroup memory. The op that imports this defines, zero outside the matrices:
//   load_a(row, k) -> vec4: left factor at rows row..row + 4 of column k
//   load_b(k, col) -> vec4: right factor at columns col..col + 4 of row k
//   store(row, col, value): the result at (row, col), called inside the matrix only
// `a_along_k`, `b_along_k`: neighbours in memory are neighbours along k, so neighbouring threads should be as well.

// (16 of k, 64 rows or columns as 16 vec4), a row padded by one vec4 so that the threads of a load hit different banks
var<workgroup> a_tile: array<vec4<f32>, 272>;
var<workgroup> b_tile: array<vec4<f32>, 272>;

fn store_row(row: u32, col: u32, m: u32, n: u32, value: vec4<f32>) {
    if row >= m {
        return;
    }
    if col < n { store(row, col, value.x); }
    if col + 1u < n { store(row, col + 1u, value.y); }
    if col + 2u < n { store(row, col + 2u, value.z); }
    if col + 3u < n { store(row, col + 3u, value.w); }
}

fn gemm(tile: vec2<u32>, lane: u32, m: u32, n: u32, k: u32, a_along_k: bool, b_along_k: bool) {
    let row0 = tile.y * 64u;
    let col0 = tile.x * 64u;
    // This thread's rows are row0 + 4 ty + (0..4, 32..36), its columns likewise.
    let tx = lane % 8u;
    let ty = lane / 8u;
    var c00 = vec4<f32>(); var c01 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>();
    var c40 = vec4<f32>(); var c41 = vec4<f32>();
    var c50 = vec4<f32>(); var c51 = vec4<f32>();
    var c60 = vec4<f32>(); var c61 = vec4<f32>();
    var c70 = vec4<f32>(); var c71 = vec4<f32>();
    for (var k0 = 0u; k0 < k; k0 += 16u) {
        for (var e = lane; e < 256u; e += 64u) {
            let ak = select(e / 16u, e % 16u, a_along_k);
            let ar = select(e % 16u, e / 16u, a_along_k);
            a_tile[ak * 17u + ar] = load_a(row0 + ar * 4u, k0 + ak);
            let bk = select(e / 16u, e % 16u, b_along_k);
            let bc = select(e % 16u, e / 16u, b_along_k);
            b_tile[bk * 17u + bc] = load_b(k0 + bk, col0 + bc * 4u);
        }
        workgroupBarrier();
        for (var i = 0u; i < 272u; i += 17u) {
            let a0 = a_tile[i + ty];
            let a1 = a_tile[i + ty + 8u];
            let b0 = b_tile[i + tx];
            let b1 = b_tile[i + tx + 8u];
            c00 += a0.x * b0; c01 += a0.x * b1;
            c10 += a0.y * b0; c11 += a0.y * b1;
            c20 += a0.z * b0; c21 += a0.z * b1;
            c30 += a0.w * b0; c31 += a0.w * b1;
            c40 += a1.x * b0; c41 += a1.x * b1;
            c50 += a1.y * b0; c51 += a1.y * b1;
            c60 += a1.z * b0; c61 += a1.z * b1;
            c70 += a1.w * b0; c71 += a1.w * b1;
        }
        workgroupBarrier();
    }
    let row = row0 + ty * 4u;
    let col = col0 + tx * 4u;
    store_row(row, col, m, n, c00); store_row(row, col + 32u, m, n, c01);
    store_row(row + 1u, col, m, n, c10); store_row(row + 1u, col + 32u, m, n, c11);
    store_row(row + 2u, col, m, n, c20); store_row(row + 2u, col + 32u, m, n, c21);
    store_row(row + 3u, col, m, n, c30); store_row(row + 3u, col + 32u, m, n, c31);
    store_row(row + 32u, col, m, n, c40); store_row(row + 32u, col + 32u, m, n, c41);
    store_row(row + 33u, col, m, n, c50); store_row(row + 33u, col + 32u, m, n, c51);
    store_row(row + 34u, col, m, n, c60); store_row(row + 34u, col + 32u, m, n, c61);
    store_row(row + 35u, col, m, n, c70); store_row(row + 35u, col + 32u, m, n, c71);
}
