//! Few rows times a constant matrix: the bits of the large product, and the program around it.

use cpu_kernels::matrix::dense_gemv::DensePanels;
use cpu_kernels::matrix::gemm::{Gemm, Mat};
use cpu_kernels::ops::{COPY, MATMUL, copy::CopyArgs, matmul::MatmulArgs};
use cpu_kernels::{Args, Bind, CpuProgram, Level, Step};
use half::f16;

mod random;
use random::Rng;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_bits_are_those_of_the_large_product() {
    let mut rng = Rng::new(3);
    for (rows, outs, dim) in
        [(1, 1, 1), (1, 64, 256), (2, 65, 7), (3, 200, 257), (4, 63, 600), (1, 130, 1024), (9, 70, 300)]
    {
        let x: Vec<f32> = (0..rows * dim).map(|_| rng.symmetric()).collect();
        let halves: Vec<f16> = (0..outs * dim).map(|_| f16::from_f32(rng.symmetric())).collect();
        let widened: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
        let floats: Vec<f32> = (0..outs * dim).map(|_| rng.symmetric()).collect();
        for level in Level::available() {
            let large = |w: &[f32]| {
                let mut y = vec![0.0; rows * outs];
                let product = Gemm::new((rows, outs, dim), Mat::row_major(&x, dim), Mat::transposed(w, dim));
                product.run(level, &mut y, outs);
                y
            };
            let of_half = DensePanels::of_half(level, &halves, outs, dim);
            for (panels, want) in [(DensePanels::new(&floats, outs, dim), large(&floats)), (of_half, large(&widened))] {
                for parts in [1, 2, 3] {
                    let mut y = vec![f32::NAN; rows * outs + 1];
                    // SAFETY: y holds the result, and the parts run one after the other.
                    (0..parts).for_each(|p| unsafe { panels.run_part(level, &x, rows, y.as_mut_ptr(), p, parts) });
                    assert_eq!(
                        bits(&y[..rows * outs]),
                        bits(&want),
                        "({rows}, {outs}, {dim}) at {level}, {parts} parts"
                    );
                    assert!(y[rows * outs].is_nan(), "the value behind y was written");
                }
            }
        }
    }
}

/// y = x w^T with a packed w, then z = y: w is packed again when it changes, and the copy waits for the product.
#[test]
fn a_program_packs_constants_and_keeps_the_order() {
    let (outs, dim) = (70u32, 40u32);
    let product = Step {
        kernel: &MATMUL,
        args: MatmulArgs { m: 1, n: outs, k: dim, b_transposed: 1, ..MatmulArgs::default() }.to_words(),
        bufs: [(0, false), (1, false), (2, true)].map(Bind::from).to_vec(),
        parts: 2,
    };
    let copied = Step {
        kernel: &COPY,
        args: CopyArgs { n: outs }.to_words(),
        bufs: [(2, false), (3, true)].map(Bind::from).to_vec(),
        parts: 2,
    };
    let sizes = [4 * dim, 4 * outs * dim, 4 * outs, 4 * outs].map(|n| n as usize);
    let mut program = CpuProgram::new(Level::detect(), 2, &sizes, vec![product, copied]).unwrap();
    program.bytes_mut(0).copy_from_slice(bytemuck::cast_slice(&vec![1f32; dim as usize]));
    for value in [1f32, -2.5] {
        program.bytes_mut(1).copy_from_slice(bytemuck::cast_slice(&vec![value; (outs * dim) as usize]));
        program.run(0..2);
        let z: &[f32] = bytemuck::cast_slice(program.bytes(3));
        assert!(z.iter().all(|z| *z == value * dim as f32), "{z:?}");
    }
}

/// Two halves of one constant are packed each, and again when the constant changes.
#[test]
fn parts_of_a_constant_are_packed_each() {
    let (outs, dim) = (64u32, 32u32);
    let args = MatmulArgs { m: 1, n: outs, k: dim, b_transposed: 1, ..MatmulArgs::default() }.to_words();
    let half = 4 * (outs * dim) as usize;
    let product = |i: usize| {
        let part = Bind { buffer: 1, part: Some(i * half..(i + 1) * half), writes: false };
        Step { kernel: &MATMUL, args, bufs: vec![(0, false).into(), part, (2 + i, true).into()], parts: 2 }
    };
    let sizes = [4 * dim as usize, 2 * half, 4 * outs as usize, 4 * outs as usize];
    let mut program = CpuProgram::new(Level::detect(), 2, &sizes, vec![product(0), product(1)]).unwrap();
    assert_eq!(program.constant_bytes(), 2 * half);
    program.bytes_mut(0).copy_from_slice(bytemuck::cast_slice(&vec![1f32; dim as usize]));
    for values in [[1f32, 2.0], [-3.0, 0.5]] {
        for (i, value) in values.iter().enumerate() {
            let part = &mut program.bytes_mut(1)[i * half..(i + 1) * half];
            part.copy_from_slice(bytemuck::cast_slice(&vec![*value; (outs * dim) as usize]));
        }
        program.run(0..2);
        for (i, value) in values.iter().enumerate() {
            let y: &[f32] = bytemuck::cast_slice(program.bytes(2 + i));
            assert!(y.iter().all(|y| *y == value * dim as f32), "part {i}: {y:?}");
        }
    }
}
