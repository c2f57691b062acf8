//! How kernels are called: the parts of a call, programs of calls, the threads that run them and their memory.

pub(crate) mod call;
pub(crate) mod packed;
pub(crate) mod pool;
pub(crate) mod program;
pub(crate) mod scratch;
pub(crate) mod split;
