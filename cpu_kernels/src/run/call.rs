//! How a kernel is called: its `Args`, its buffers in the order of the op table, and which part of the work is its.

use crate::Level;
use crate::run::packed::{Packed, Packing};
use bytemuck::{AnyBitPattern, NoUninit, Pod};
use std::ops::Range;

/// An op's `Args`, as the words of the uniform buffer that its shader reads.
pub type ArgWords = [u32; 16];

/// A plain struct of 4-byte fields, shared verbatim between the kernel and the shader of an op.
pub trait Args: Pod {
    /// (name, WGSL type) of each field, in order; a field's offset is four times its index.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// The words of the uniform buffer; those behind the last field are 0.
    fn to_words(&self) -> ArgWords {
        let mut words = [0; 16];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        bytes[..size_of::<Self>()].copy_from_slice(bytemuck::bytes_of(self));
        words
    }

    /// The inverse of [`Args::to_words`].
    fn from_words(words: &ArgWords) -> Self {
        bytemuck::pod_read_unaligned(&bytemuck::cast_slice(words)[..size_of::<Self>()])
    }
}

/// Declares the `Args` of an op: `args! { pub struct XArgs { rows: u32, eps: f32 } }`.
macro_rules! args {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ident),* $(,)? }) => {
        /// The arguments of the op. Their meaning is that of the same names in the module's formulas.
        $(#[$meta])*
        #[allow(missing_docs, reason = "the fields have the names that the formulas use")]
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl $crate::Args for $name {
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($ty))),*];
        }
        const _: () = assert!(size_of::<$name>() <= size_of::<$crate::ArgWords>());
    };
}

pub(crate) use args;

/// A buffer as a kernel sees it. Several threads hold the same `Buf` at once, each writing its own part.
#[derive(Clone, Copy, Debug)]
pub struct Buf {
    ptr: *mut u8,
    bytes: usize,
    writes: bool,
}

impl Buf {
    /// A buffer that a kernel may write if `writes`.
    ///
    /// # Safety
    /// `ptr` is valid for reads and writes of `bytes` bytes and aligned to 64, as long as the `Buf` is used.
    pub(crate) unsafe fn new(ptr: *mut u8, bytes: usize, writes: bool) -> Self {
        assert!(ptr.align_offset(64) == 0, "kernel buffers are aligned to 64 bytes");
        Buf { ptr, bytes, writes }
    }

    /// Number of whole `T` in the buffer.
    #[expect(clippy::len_without_is_empty, reason = "kernels only compare lengths")]
    pub fn len<T>(&self) -> usize {
        self.bytes / size_of::<T>()
    }

    /// The whole buffer, to read.
    ///
    /// # Safety
    /// No thread writes to it meanwhile.
    pub unsafe fn read<T: AnyBitPattern>(&self) -> &[T] {
        const { assert!(align_of::<T>() <= 64) };
        // SAFETY: valid and aligned by `new`, unwritten by this function's contract; any bits are a T.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.len::<T>()) }
    }

    /// Elements `range`, to write. Panics when they are not all in the buffer, or it is only to be read.
    ///
    /// # Safety
    /// No other thread touches them meanwhile, and this thread holds no other reference to them.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of one buffer are written by several threads")]
    pub unsafe fn write<T: AnyBitPattern + NoUninit>(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len::<T>(), "{range:?} of {}", self.len::<T>());
        // SAFETY: in bounds as just checked, exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start::<T>().add(range.start), range.len()) }
    }

    /// Element `first`, to write, and an array of `shape` from there on: for kernels whose part is no contiguous range.
    ///
    /// # Panics
    /// When the array is not all in the buffer, or the buffer is only to be read.
    pub fn array<T>(&self, first: usize, shape: &[u32]) -> *mut T {
        self.holds::<T>(first, shape);
        // SAFETY: in bounds as just checked.
        unsafe { self.start::<T>().add(first) }
    }

    /// Panics unless an array of `shape` from element `first` on is all in the buffer. Offsets into it cannot overflow then.
    pub fn holds<T>(&self, first: usize, shape: &[u32]) {
        let elements = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size as usize));
        let end = elements.and_then(|n| n.checked_add(first));
        let len = self.len::<T>();
        assert!(end.is_some_and(|end| end <= len), "an array does not fit in a buffer of {len}");
    }

    fn start<T>(&self) -> *mut T {
        const { assert!(align_of::<T>() <= 64) };
        assert!(self.writes, "a kernel writes a buffer that a step only reads");
        self.ptr.cast()
    }
}

/// One call of a kernel: part `part` of `parts`, which together do the whole op. Only a [`CpuProgram`](crate::CpuProgram)
/// makes one.
pub struct Call<'a> {
    /// The SIMD level to run at.
    pub level: Level,
    /// The op's arguments.
    pub args: &'a ArgWords,
    /// The op's buffers, in the order of the op table.
    pub bufs: &'a [Buf],
    /// The constant operands in packed form, where the op has one and the caller made it.
    pub(crate) packed: Option<&'a Packed>,
    /// Which part of the work is done.
    pub part: usize,
    /// How many parts there are.
    pub parts: usize,
}

impl Call<'_> {
    /// The arguments as the op's own struct.
    pub fn args<A: Args>(&self) -> A {
        A::from_words(self.args)
    }

    /// This part's share of `n` equal units of work.
    pub fn share(&self, n: usize) -> Range<usize> {
        // n * part / parts, where the product may not fit.
        let cut = |part: usize| n / self.parts * part + n % self.parts * part / self.parts;
        cut(self.part)..cut(self.part + 1)
    }

    /// This part's share of `n` elements, in multiples of `block` so that results cannot depend on the split.
    pub fn share_blocks(&self, n: usize, block: usize) -> Range<usize> {
        let blocks = self.share(n.div_ceil(block));
        (blocks.start * block).min(n)..(blocks.end * block).min(n)
    }
}

/// The CPU side of an op: a function, and how it packs constant operands. Kernels of this crate are sound whatever the
/// arguments and the buffers of a step are: what does not fit panics.
pub struct Kernel {
    pub(crate) run: unsafe fn(&Call<'_>),
    pub(crate) packing: Option<&'static Packing>,
}

impl Kernel {
    /// A kernel that packs nothing.
    ///
    /// # Safety
    /// Whatever the arguments and the number and sizes of the buffers are, `run` keeps the contracts of [`Buf`] and does
    /// nothing else that is unsafe, provided that
    /// - no buffer that may be written is bound twice,
    /// - parts of a call run at the same time, each once,
    /// - nothing else touches the buffers meanwhile.
    pub const unsafe fn new(run: unsafe fn(&Call<'_>)) -> Self {
        Kernel { run, packing: None }
    }
}
