// The random bits of the ops that round optimizer state: 16 for the momentum (the upper ones) and 16 for the second moment of
// each of four elements from i on, a hash of the step's key, in step[4] and step[5], and of the place args.stream + i.

//#import hash

fn noise(i: u32) -> vec4<u32> {
    let key = u32(step[4]) | (u32(step[5]) << 16u);
    let at = args.stream + i;
    return vec4<u32>(
        hash(key ^ hash(at)), hash(key ^ hash(at + 1u)), hash(key ^ hash(at + 2u)), hash(key ^ hash(at + 3u)),
    );
}

fn first(noise: vec4<u32>) -> vec4<u32> {
    return noise >> vec4<u32>(16u);
}

fn second(noise: vec4<u32>) -> vec4<u32> {
    return noise & vec4<u32>(0xffffu);
}
