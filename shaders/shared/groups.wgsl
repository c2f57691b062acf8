// The entry point of an op with one workgroup of 64 threads for each row or block. The op that imports this defines
//   group(i, lane): the work of thread `lane` on row or block i, which may lie beyond the last one

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    group(wid.x + wid.y * groups.x, lane);
}
