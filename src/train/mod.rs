//! Training: the step on a device, and around it the run: checkpoints, metrics, TensorBoard events, loss plot, progress,
//! signals.

#[cfg(feature = "native")]
mod bar;
mod config;
#[cfg(feature = "native")]
pub mod metrics;
#[cfg(feature = "native")]
mod peak;
pub mod plot;
#[cfg(feature = "native")]
pub mod progress;
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

pub use config::{Aux, Config, OptimConfig, TrainConfig};
#[cfg(feature = "native")]
pub use peak::matmul_peak;
#[cfg(feature = "native")]
pub use run::{Outcome, Run, new_run, newest_run};
pub use self_test::self_test;
pub use session::Session;
#[cfg(feature = "native")]
pub use signals::Signals;
pub use step::{StepSections, StepShape, TrainStep, sorted_rows};
pub use trainer::{Batch, StepStats, Trainer};
