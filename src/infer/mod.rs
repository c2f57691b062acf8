//! Inference: sequences that go on side by side over cached keys and values, and the text around them.

mod engine;
mod pages;
mod prompt;
mod sampling;
mod step;
mod text;
#[cfg(feature = "native")]
mod trial;
mod weights;

pub use engine::{
    DEFAULT_CONTEXT, Drafts, Engine, EngineNeeds, EngineOptions, Event, FinishReason, Passes, SequenceId,
};
#[cfg(feature = "native")]
pub use prompt::Conversation;
pub use prompt::{ChatTemplate, Message};
pub use sampling::{Kind, PARAMETERS, Parameter, Sampling};
pub use text::{Piece, TextStream};
#[cfg(feature = "native")]
pub use trial::{Choice, LARGE, faster};
pub use weights::{load_tensor, load_weights};
