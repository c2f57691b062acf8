//! Training: the run directory (checkpoints, metrics, TensorBoard events, loss plot), progress and signals.

#[cfg(feature = "native")]
pub mod checkpoint;
#[cfg(feature = "native")]
pub mod metrics;
pub mod plot;
#[cfg(feature = "native")]
pub mod progress;
#[cfg(feature = "native")]
pub mod signals;
#[cfg(feature = "native")]
pub mod tensorboard;
