//! Times nodes by the device's own clock: a timestamp before each and one after it, each node in a pass of its own.

use super::{MIN_BUFFER, Step, WgpuProgram, map, pieces};
use crate::{Error, Result};
use std::ops::Range;

/// Most nodes in a set of queries: each takes two, and WebGPU allows 4,096.
const NODES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

impl WgpuProgram {
    /// Whether the device has such a clock.
    pub(in super::super::super) fn has_clock(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Runs nodes, waits for them, and returns the seconds of each.
    pub(in super::super::super) async fn time(&mut self, nodes: Range<usize>) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(nodes.len());
        let steps: Vec<&Step> = self.steps[nodes].iter().collect();
        for steps in pieces(&steps, NODES) {
            seconds.extend(self.time_steps(steps).await?);
        }
        Ok(seconds)
    }

    async fn time_steps(&self, steps: &[&Step]) -> Result<Vec<f64>> {
        let queries = 2 * steps.len() as u32;
        let size = (u64::from(queries) * u64::from(wgpu::QUERY_SIZE)).max(MIN_BUFFER);
        let query_set = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count: queries,
        });
        let buffer = |usage| {
            let descriptor = wgpu::BufferDescriptor { label: Some("times"), size, usage, mapped_at_creation: false };
            self.device.create_buffer(&descriptor)
        };
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (i, step) in (0..).zip(steps) {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &query_set,
                    beginning_of_pass_write_index: Some(2 * i),
                    end_of_pass_write_index: Some(2 * i + 1),
                }),
            });
            step.dispatch(&mut pass);
        }
        encoder.resolve_query_set(&query_set, 0..queries, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size);
        let submission = self.queue.submit([encoder.finish()]);
        self.faults.check()?;
        let mapped = map(&self.device, &staging, size, submission).await;
        self.faults.check()?;
        mapped?;
        let view = staging.get_mapped_range(..).map_err(|e| Error::Device(format!("reading times: {e}")))?;
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..steps.len() * 2 * size_of::<u64>()]);
        let tick = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        // A clock may be set back, when the device was idle.
        Ok(stamps.chunks_exact(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * tick).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::{Backend, Clock, Wgpu};
    use crate::graph::{DType, Graph, Plan};
    use crate::ops::{COPY, FILL};
    use cpu_kernels::ops::copy::CopyArgs;
    use cpu_kernels::ops::fill::FillArgs;
    use std::sync::Arc;

    /// More nodes than one set of queries holds: each is timed, and does its work.
    #[test]
    fn every_node_is_timed_and_runs() {
        let Ok(wgpu) = Wgpu::open(None) else { return println!("NOT TESTED on wgpu: this machine has no adapter") };
        let mut g = Graph::new();
        let n = 1 << 16;
        let [x, y] = ["x", "y"].map(|name| g.persistent(name, &[n], DType::F32));
        for value in 1..=super::NODES {
            g.push(&FILL, FillArgs { n: n as u32, value: value as f32 }, &[x]);
        }
        g.push(&COPY, CopyArgs { n: n as u32 }, &[x, y]);
        let nodes = g.nodes.len();
        let mut program = Backend::Wgpu(wgpu).prepare(Arc::new(Plan::new(g))).unwrap();
        if program.clock() != Clock::Device {
            return println!("NOT TESTED on wgpu: this adapter has no timestamps");
        }
        let start = std::time::Instant::now();
        let seconds = program.time(0..nodes).unwrap();
        let wall = start.elapsed().as_secs_f64();
        let sum: f64 = seconds.iter().sum();
        assert!(
            seconds.len() == nodes && seconds.iter().all(|s| *s >= 0.0) && sum > 0.0 && sum < wall,
            "{sum} of {wall}"
        );
        assert_eq!(program.read::<f32>(y).unwrap(), vec![super::NODES as f32; n]);
        assert_eq!(program.time(0..0).unwrap(), [0.0; 0]);
    }
}
