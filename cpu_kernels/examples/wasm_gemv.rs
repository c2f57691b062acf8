//! The packed product as functions of a WebAssembly module, checked and timed by `wasm_gemv.mjs` beside it:
//!
//!     RUSTFLAGS=-Ctarget-feature=+simd128 cargo build --release -p cpu_kernels --example wasm_gemv \
//!         --target wasm32-unknown-unknown
//!     node cpu_kernels/examples/wasm_gemv.mjs target/wasm32-unknown-unknown/release/examples/wasm_gemv.wasm
#![allow(unsafe_code, reason = "exported names")]

use cpu_kernels::Level;
use cpu_kernels::matrix::packed_row_bytes;
use cpu_kernels::matrix::ternary_gemv::{Layout, Layouts, PackedTernary, TernaryGemv};
use std::cell::RefCell;

struct Case {
    /// Canonical, then as chosen for the highest level.
    weights: [PackedTernary; 2],
    xq: Vec<i8>,
    y: [Vec<f32>; 2],
}

thread_local! {
    static CASE: RefCell<Option<Case>> = const { RefCell::new(None) };
}

/// Makes a product of one row.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn prepare(outs: usize, dim: usize, group: usize) {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    let trits = |byte: u8| (0..4).fold(0, |codes, i| codes | (byte / 3u8.pow(i) % 3) << (2 * i));
    let codes: Vec<u8> = (0..outs * packed_row_bytes(dim)).map(|_| trits(next())).collect();
    let scales: Vec<f32> = (0..outs * (dim / group)).map(|_| f32::from(next()) / 64.0).collect();
    let xq = (0..dim).map(|_| (next() as i8).max(-127)).collect();
    let layouts = [Layout::Canonical, Layouts::new(Level::detect(), None).choose(outs, dim, group)];
    let weights = layouts.map(|layout| PackedTernary::new(layout, &codes, &scales, outs, dim, group));
    CASE.set(Some(Case { weights, xq, y: [vec![0.0; outs], vec![0.0; outs]] }));
}

/// Computes it `times` times: 0 at the scalar level, 1 at the highest.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn run(which: usize, times: u32) {
    CASE.with_borrow_mut(|case| {
        let Some(Case { weights, xq, y }) = case else { return };
        let level = [Level::Scalar, Level::detect()][which];
        let outs = y[which].len();
        for _ in 0..times {
            TernaryGemv { weights: &weights[which], rows: 1, xq, steps: &[0.37] }.run(level, &mut y[which], outs);
        }
    });
}

/// The number of results whose bits differ.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn differences() -> usize {
    CASE.with_borrow(|case| {
        case.as_ref().map_or(usize::MAX, |case| {
            case.y[0].iter().zip(&case.y[1]).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
        })
    })
}
