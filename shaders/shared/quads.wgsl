// The entry point of an op with one thread for each four elements. The op that imports this defines
//   quad(i): the work on elements 4i to 4i + 3, which may lie beyond the last one

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    quad((wid.x + wid.y * groups.x) * 64u + lane);
}

// Which of elements 4i to 4i + 3 are among the first n. A buffer has room for a whole vec4 at its end.
fn inside(i: u32, n: u32) -> vec4<bool> {
    return vec4<u32>(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4<u32>(n);
}
