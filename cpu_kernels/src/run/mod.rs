//! How kernels are called: the parts of a call, programs of calls, and the threads that run them.

pub(crate) mod call;
mod memory;
pub(crate) mod packed;
pub(crate) mod pool;
pub(crate) mod program;
