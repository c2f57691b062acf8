// The passes of a matrix product, see `gemm`, by multiply-adds in f32.

//#import gemm_tile SIDE=64
//#import gemm_tile SIDE=128

// Whether matrices of f16 are multiplied.
const MATRICES = false;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if begin(wid, groups) {
        multiply_64(wid, groups, lane);
    }
}

@compute @workgroup_size(256)
fn large(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if begin(wid, groups) {
        multiply_128(wid, groups, lane);
    }
}

@compute @workgroup_size(64)
fn finish(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if begin(wid, groups) {
        finish_64(wid, groups, lane);
    }
}

@compute @workgroup_size(256)
fn finish_large(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if begin(wid, groups) {
        finish_128(wid, groups, lane);
    }
}
