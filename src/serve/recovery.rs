//! Where a server gets its model and a device again after its device failed.

use crate::backend::Backend;
use crate::formats::ModelFile;
use crate::infer::{Engine, EngineOptions};
use crate::{Error, Result};

/// Opens a model and a device.
pub type Reopen = Box<dyn FnMut() -> Result<(ModelFile, Backend)> + Send>;

/// What a server does when its device fails. By default it gives up.
#[derive(Default)]
pub struct Recovery {
    /// Opens the model and the device again. A device that fails four times within a minute is not opened again.
    pub reopen: Option<Reopen>,
    /// Opens the model and another device, once that is so.
    pub fallback: Option<Reopen>,
}

/// Loads the served model onto a device, which it names in words.
pub(super) type Source = Box<dyn FnMut() -> Result<(Engine, String)> + Send>;

impl Recovery {
    /// What to try, in this order. The model must be the one that is served.
    pub(super) fn sources(self, served: &ModelFile, options: EngineOptions) -> impl Iterator<Item = Source> {
        let (config, vocab, text) = (served.config.clone(), served.vocab, served.text.clone());
        self.reopen.into_iter().chain(self.fallback).map(move |mut open| {
            let (config, text) = (config.clone(), text.clone());
            let source = move || {
                let (file, backend) = open()?;
                if (&file.config, file.vocab, &file.text) != (&config, vocab, &text) {
                    return Err(Error::Model("the model's file is another one by now".into()));
                }
                Ok((Engine::new(&file, &backend, options)?, backend.describe()))
            };
            Box::new(source) as Source
        })
    }
}
