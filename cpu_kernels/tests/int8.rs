//! The int8 product: the same bits at every level, from its definition.

use cpu_kernels::ops::round_f16::round;
use cpu_kernels::ops::{INT8_MATMUL, int8_matmul::Int8MatmulArgs};
use cpu_kernels::{Args, CpuProgram, Level, Step};

mod random;
use random::Rng;

/// Runs the op, with packed weights where the level reads them.
fn product(level: Level, parts: usize, args: Int8MatmulArgs, inputs: &[Vec<u8>], y_bytes: usize) -> Vec<u32> {
    let step =
        Step { kernel: &INT8_MATMUL, args: args.to_words(), bufs: (0..5).map(|i| (i, i == 4).into()).collect(), parts };
    let sizes: Vec<usize> = inputs.iter().map(Vec::len).chain([y_bytes]).collect();
    let mut program = CpuProgram::new(level, 2, &sizes, vec![step]).unwrap();
    inputs.iter().enumerate().for_each(|(i, bytes)| program.bytes_mut(i).copy_from_slice(bytes));
    program.run(0..1);
    bytemuck::cast_slice(program.bytes(4)).to_vec()
}

#[test]
fn every_level_gives_the_same_bits() {
    let mut rng = Rng::new(5);
    for (rows, outs, dim) in [(1, 1, 32), (1, 63, 256), (2, 65, 96), (5, 64, 1024), (9, 130, 288)] {
        for exact_f16 in [true, false] {
            let floats = |rng: &mut Rng, n: usize| -> Vec<u8> {
                let scale = |x: f32| if exact_f16 { round(x) } else { x };
                (0..n).flat_map(|_| scale(0.01 + rng.symmetric().abs()).to_ne_bytes()).collect()
            };
            // Every code there is, -128 among them, against activations at the ends of their range and between.
            let codes = (0..outs * dim).map(|i| (i % 256) as u8).collect();
            let xq = (0..rows * dim).map(|_| rng.int8().cast_unsigned()).collect();
            let inputs = [xq, floats(&mut rng, rows), codes, floats(&mut rng, outs * dim / 32)];
            let args = Int8MatmulArgs { rows: rows as u32, outs: outs as u32, dim: dim as u32, x_row: 0 };
            let want = product(Level::Scalar, 1, args, &inputs, 4 * rows * outs);
            for level in Level::available() {
                for parts in [1, 3] {
                    let found = product(level, parts, args, &inputs, 4 * rows * outs);
                    assert_eq!(
                        found, want,
                        "({rows}, {outs}, {dim}) at {level}, {parts} parts, f16 scales {exact_f16}"
                    );
                }
            }
        }
    }
}
