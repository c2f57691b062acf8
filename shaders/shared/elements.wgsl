// The entry point of an op with one thread for each element. The op that imports this defines
//   element(i): the work on element i, which may lie beyond the last one

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    element((wid.x + wid.y * groups.x) * 64u + lane);
}
