// Which four elements a thread of a workgroup of four blocks of 64 values has, in a matrix (rows, cols) with blocks in its rows.

//#import int8 THREADS=64u

struct Place {
    there: bool, // whether there are such elements
    at: u32, // the first
    scale: u32, // the block's scale
    head: bool, // whether the thread writes it
}

fn place(group: u32, lane: u32) -> Place {
    let blocks = (args.cols + 63u) / 64u;
    let block = group * 4u + lane / 16u;
    let col = block % blocks * 64u + lane % 16u * 4u;
    let there = block < args.rows * blocks && col < args.cols;
    return Place(there, block / blocks * args.cols + col, block, there && lane % 16u == 0u);
}
