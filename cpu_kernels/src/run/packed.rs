//! Constant operands in the layout that a kernel reads fastest, made once from the canonical one.

use crate::matrix::dense_gemv::DensePanels;
use crate::matrix::int8_panels::Int8Panels;
use crate::matrix::ternary_gemv::{Layouts, PackedTernary};
use crate::{ArgWords, Buf, Level};

/// The packed form of a constant operand.
#[derive(Clone, Debug)]
pub(crate) enum Packed {
    /// An f32 or f16 matrix.
    Dense(DensePanels),
    /// An int8 matrix with a scale for every 32 inputs.
    Int8(Int8Panels),
    /// A ternary matrix.
    Ternary(PackedTernary),
    /// A ternary matrix for each expert.
    Experts(Vec<PackedTernary>),
}

impl Packed {
    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Packed::Dense(panels) => panels.bytes(),
            Packed::Int8(panels) => panels.bytes(),
            Packed::Ternary(weights) => weights.bytes(),
            Packed::Experts(experts) => experts.iter().map(PackedTernary::bytes).sum(),
        }
    }
}

/// How an op packs its constant operands.
#[derive(Debug)]
pub(crate) struct Packing {
    /// The bindings that are packed. They must hold the same values at every call.
    pub constants: &'static [usize],
    /// Whether a call with these args reads the packed form; all that do agree on it.
    pub wanted: fn(Level, &ArgWords) -> bool,
    /// The shape of the operand in a call with these args: calls with another one read a packed form of their own.
    pub shape: fn(&ArgWords) -> [u32; 3],
    /// Makes the packed form for a level; a ternary matrix takes the layout that `Layouts` chooses. Safe to call when
    /// nothing writes to the buffers meanwhile.
    pub make: unsafe fn(Level, &Layouts, &ArgWords, &[Buf]) -> Packed,
}
