//! Sections as graphs of the driver: the launches of a section are captured once and then launched as one.

use crate::graph::Plan;
use crate::{Error, Result};
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A captured graph.
pub(super) struct Captured(CudaGraph);

#[expect(unsafe_code, reason = "cudarc leaves to us that a graph stays on one thread at a time")]
// SAFETY: the driver asks that calls on a graph do not overlap; the program that has it is borrowed mutably for each.
unsafe impl Send for Captured {}

/// What is known of a section.
enum Section {
    /// It has run, so that the driver has loaded its kernels: it may be captured.
    Loaded,
    Captured(Captured),
}

/// How a range of nodes runs.
pub(super) enum How<'a> {
    /// By its launches.
    Launches,
    /// By its launches, which are captured.
    Capture,
    Graph(&'a Captured),
}

/// The sections of a program, by their nodes.
#[derive(Default)]
pub(super) struct Graphs {
    sections: HashMap<Range<usize>, Section>,
    /// Whether a capture has failed.
    refused: bool,
}

impl Graphs {
    /// How these nodes run this time. A section is captured when it runs for the second time.
    pub fn how(&mut self, plan: &Plan, nodes: &Range<usize>) -> How<'_> {
        let is_section = || nodes.len() > 1 && plan.graph.sections.iter().any(|section| section.nodes() == *nodes);
        if self.refused || !(self.sections.contains_key(nodes) || is_section()) {
            return How::Launches;
        }
        if !self.sections.contains_key(nodes) {
            self.sections.insert(nodes.clone(), Section::Loaded);
            return How::Launches;
        }
        match &self.sections[nodes] {
            Section::Loaded => How::Capture,
            Section::Captured(graph) => How::Graph(graph),
        }
    }

    /// Keeps the graph of a section, or no longer captures any.
    pub fn keep(&mut self, nodes: Range<usize>, graph: Option<Captured>) {
        match graph {
            Some(graph) => drop(self.sections.insert(nodes, Section::Captured(graph))),
            None => self.refused = true,
        }
    }

    /// Forgets all graphs: their buffers have moved.
    pub fn forget(&mut self) {
        self.sections.clear();
    }
}

impl Captured {
    /// Captures what `launch` submits to the stream, which does not run.
    ///
    /// # Errors
    /// That of `launch`, or that of the driver, of which `failed` tells.
    pub fn new(
        stream: &Arc<CudaStream>,
        launch: impl FnOnce() -> Result<()>,
        failed: impl Fn(DriverError) -> Error,
    ) -> Result<Captured> {
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(&failed)?;
        let launched = launch();
        // A capture must end, whatever happened.
        let ended = stream.end_capture(CUgraphInstantiate_flags(0));
        launched?;
        let graph = ended.map_err(&failed)?;
        graph.map(Captured).ok_or_else(|| failed(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)))
    }

    /// Launches all of it.
    pub fn launch(&self) -> std::result::Result<(), DriverError> {
        self.0.launch()
    }
}
