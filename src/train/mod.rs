//! Training: the step on a device ([`TrainStep`], [`Trainer`]), the data it reads ([`Session`]), and the run around it
//! (`Run`) with checkpoints, metrics, TensorBoard events, loss plot, progress and signals.

#[cfg(feature = "native")]
mod bar;
mod config;
#[cfg(feature = "native")]
mod fire;
#[cfg(feature = "native")]
mod folder;
#[cfg(feature = "native")]
mod log;
#[cfg(feature = "native")]
mod metrics;
#[cfg(feature = "native")]
mod peak;
#[cfg(feature = "native")]
mod plot;
#[cfg(feature = "native")]
mod progress;
#[cfg(feature = "native")]
mod resume;
#[cfg(feature = "native")]
mod run;
mod self_test;
mod session;
#[cfg(feature = "native")]
mod signals;
mod step;
#[cfg(feature = "native")]
pub mod tensorboard;
mod trainer;

pub use crate::graph::Precision;
pub use config::{Aux, Config, OptimConfig, TrainConfig};
#[cfg(feature = "native")]
pub use folder::{Start, newest_run};
#[cfg(feature = "native")]
pub use peak::{COPIED, copy_bandwidth, fma_peak, utilisation};
#[cfg(feature = "native")]
pub use run::{Outcome, Run};
pub use self_test::self_test;
pub use session::Session;
#[cfg(feature = "native")]
pub use signals::Signals;
pub use step::{StepSections, StepShape, TrainStep, sorted_rows};
pub use trainer::{Batch, ExpertUse, StepStats, Trainer};
