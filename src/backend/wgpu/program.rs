//! A plan on a wgpu device: one buffer for each slot, one bind group for each node, one submission for many nodes.

use super::super::Slice;
use super::{Faults, Wgpu};
use crate::error::mib;
use crate::graph::{Graph, Kind, Node, Plan, Slot, Tensor, TensorId};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Most elementary operations in one submission: well under a second on the slowest GPU, so that no driver's watchdog
/// considers it hung.
const WORK_A_SUBMIT: u64 = 20_000_000_000;
/// Most bytes read back at once, unless a single slice is larger.
const STAGING: u64 = 64 << 20;
/// Bytes of the smallest buffer: one vec4, the widest element of any shader.
const MIN_BUFFER: u64 = 16;

struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    grid: [u32; 3],
    work: u64,
}

pub struct WgpuProgram {
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    buffers: Vec<wgpu::Buffer>,
    args: wgpu::Buffer,
    steps: Vec<Step>,
}

/// Frees the memory at once: a browser would keep it until its next garbage collection.
impl Drop for WgpuProgram {
    fn drop(&mut self) {
        self.buffers.iter().chain([&self.args]).for_each(wgpu::Buffer::destroy);
    }
}

impl WgpuProgram {
    pub(super) fn new(on: &Wgpu, plan: &Plan) -> Result<Self> {
        check_bindings(&on.device.limits(), plan)?;
        let buffer = |slot| buffer(&on.device, &on.faults, plan, slot, slot.bytes);
        let buffers = plan.slots.iter().map(buffer).collect::<Result<Vec<_>>>()?;
        let args = args_buffer(on, &plan.graph.nodes);
        let step = |(i, node)| step(on, plan, &buffers, &args, i, node);
        let steps = plan.graph.nodes.iter().enumerate().map(step).collect::<Result<_>>()?;
        on.faults.check()?;
        let (device, queue, faults) = (on.device.clone(), on.queue.clone(), on.faults.clone());
        Ok(WgpuProgram { device, queue, faults, buffers, args, steps })
    }

    /// Gives slots more room, up to so many bytes each: (slot, bytes).
    pub(in super::super) fn grow(&mut self, plan: &Plan, sizes: &[(usize, usize)]) -> Result<()> {
        let grown = sizes.iter().try_for_each(|(slot, bytes)| {
            let old = &self.buffers[*slot];
            if *bytes as u64 > old.size() {
                let most = self.device.limits().max_storage_buffer_binding_size;
                let what = largest(&plan.graph, &plan.slots[*slot]);
                check_size(what, *bytes as u64, most, "a binding")?;
                let new = buffer(&self.device, &self.faults, plan, &plan.slots[*slot], *bytes)?;
                let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                encoder.copy_buffer_to_buffer(old, 0, &new, 0, old.size());
                self.queue.submit([encoder.finish()]);
                std::mem::replace(&mut self.buffers[*slot], new).destroy();
            }
            Ok(())
        });
        let mut moved = vec![false; self.buffers.len()];
        sizes.iter().for_each(|(slot, _)| moved[*slot] = true);
        for (i, (node, step)) in plan.graph.nodes.iter().zip(&mut self.steps).enumerate() {
            if node.tensors.iter().any(|t| moved[plan.slot(*t)]) {
                step.bind_group = bind_group(&self.device, plan, &self.buffers, &self.args, (i, node), &step.pipeline);
            }
        }
        grown.and(self.faults.check())
    }

    pub(in super::super) fn run(&mut self, nodes: Range<usize>) -> Result<()> {
        let mut rest = &self.steps[nodes];
        while !rest.is_empty() {
            let mut work = 0;
            let fits = |step: &&Step| {
                let first = work == 0;
                work += step.work.max(1);
                first || work <= WORK_A_SUBMIT
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            self.submit(now);
            rest = later;
        }
        self.faults.check()
    }

    fn submit(&self, steps: &[Step]) {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in steps.iter().filter(|step| !step.grid.contains(&0)) {
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &step.bind_group, &[]);
            pass.dispatch_workgroups(step.grid[0], step.grid[1], step.grid[2]);
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    /// Writes to a slot from byte `at`, a multiple of 4.
    pub(in super::super) fn write(&mut self, slot: usize, at: usize, bytes: &[u8]) {
        let whole = bytes.len() / 4 * 4;
        self.queue.write_buffer(&self.buffers[slot], at as u64, &bytes[..whole]);
        if whole < bytes.len() {
            let mut word = [0; 4];
            word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(&self.buffers[slot], (at + whole) as u64, &word);
        }
    }

    /// Reads slices of slots.
    pub(in super::super) async fn read(&mut self, slices: &[Slice]) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::with_capacity(slices.len());
        let padded = |bytes: usize| bytes.next_multiple_of(4) as u64;
        let mut rest = slices;
        while !rest.is_empty() {
            let mut total = 0;
            let fits = |slice: &&Slice| {
                let first = total == 0;
                total += padded(slice.bytes);
                first || total <= STAGING
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            let size = now.iter().map(|slice| padded(slice.bytes)).sum::<u64>().max(MIN_BUFFER);
            let staging = self.stage(now, size);
            self.faults.check()?;
            let mapped = map(&self.device, &staging).await;
            self.faults.check()?;
            mapped?;
            let view = staging.get_mapped_range(..).map_err(|e| Error::Device(format!("reading back: {e}")))?;
            let mut at = 0;
            for Slice { bytes, .. } in now {
                found.push(view[at..at + bytes].to_vec());
                at += bytes.next_multiple_of(4);
            }
            drop(view);
            staging.destroy();
            rest = later;
        }
        Ok(found)
    }

    /// Copies the slices one after the other, each padded to 4 bytes, to a buffer that can be mapped.
    fn stage(&self, slices: &[Slice], size: u64) -> wgpu::Buffer {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut at = 0;
        for Slice { slot, start, bytes } in slices {
            let bytes = bytes.next_multiple_of(4) as u64;
            encoder.copy_buffer_to_buffer(&self.buffers[*slot], *start as u64, &staging, at, bytes);
            at += bytes;
        }
        self.queue.submit([encoder.finish()]);
        staging
    }
}

/// A buffer of so many bytes for a slot.
fn buffer(device: &wgpu::Device, faults: &Faults, plan: &Plan, slot: &Slot, bytes: usize) -> Result<wgpu::Buffer> {
    let size = (bytes as u64).max(MIN_BUFFER);
    let what = largest(&plan.graph, slot);
    check_size(what, size, device.limits().max_buffer_size, "a buffer")?;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(&plan.graph.tensor(slot.tensors[0]).name),
        size,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    faults.check().map(|()| buffer)
}

/// The largest tensor of a slot.
fn largest<'a>(graph: &'a Graph, slot: &Slot) -> &'a Tensor {
    slot.tensors.iter().map(|t| graph.tensor(*t)).max_by_key(|t| t.bytes()).expect("a slot has a tensor")
}

/// Rejects a plan with a node that binds more bytes of a buffer than the device allows.
fn check_bindings(limits: &wgpu::Limits, plan: &Plan) -> Result<()> {
    let bound = plan.graph.nodes.iter().flat_map(|node| &node.tensors);
    bound.into_iter().try_for_each(|t| {
        let tensor = match plan.view(*t) {
            Some(_) => plan.graph.tensor(*t),
            None => largest(&plan.graph, &plan.slots[plan.slot(*t)]),
        };
        check_size(tensor, plan.bound(*t) as u64, limits.max_storage_buffer_binding_size, "a binding")
    })
}

/// Rejects what exceeds a limit of the device. The error names the tensor that takes so many bytes.
fn check_size(tensor: &Tensor, bytes: u64, limit: u64, what: &str) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    let Tensor { name, shape, kind, .. } = tensor;
    let (takes, allows) = (mib(bytes).ceil(), mib(limit).floor());
    let advice = match kind {
        Kind::Temp => "use a smaller batch or context",
        Kind::Persistent | Kind::View { .. } => "use a smaller model or context, fewer sequences, or the backend cpu",
    };
    Err(Error::Device(format!(
        "{name} {shape:?} takes {takes} MiB, but this device allows {allows} MiB for {what}: {advice}"
    )))
}

/// Bytes between the `Args` of consecutive nodes.
fn args_stride(device: &wgpu::Device) -> u64 {
    u64::from(device.limits().min_uniform_buffer_offset_alignment).max(size_of::<cpu_kernels::ArgWords>() as u64)
}

/// One uniform buffer with the `Args` of all nodes.
fn args_buffer(on: &Wgpu, nodes: &[Node]) -> wgpu::Buffer {
    let stride = args_stride(&on.device);
    let mut bytes = vec![0; (nodes.len() * stride as usize).max(stride as usize)];
    for (node, bytes) in nodes.iter().zip(bytes.chunks_mut(stride as usize)) {
        let words: &[u8] = bytemuck::cast_slice(&node.args);
        bytes[..words.len()].copy_from_slice(words);
    }
    let buffer = on.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("args"),
        size: bytes.len() as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    on.queue.write_buffer(&buffer, 0, &bytes);
    buffer
}

fn step(on: &Wgpu, plan: &Plan, buffers: &[wgpu::Buffer], args: &wgpu::Buffer, i: usize, node: &Node) -> Result<Step> {
    let (op, grid) = (node.op, (node.op.grid)(&node.args));
    let limit = on.device.limits().max_compute_workgroups_per_dimension;
    if grid.iter().any(|n| *n > limit) {
        let output = plan.graph.outputs(node).next().map_or("nothing", |t| &plan.graph.tensor(t).name);
        let what =
            format!("{} of {output} takes {grid:?} workgroups, but this device allows {limit} in a dimension", op.name);
        return Err(Error::Device(what));
    }
    let pipeline = on.pipeline(op)?;
    let bind_group = bind_group(&on.device, plan, buffers, args, (i, node), &pipeline);
    Ok(Step { pipeline, bind_group, grid, work: (op.work)(&node.args) })
}

fn bind_group(
    device: &wgpu::Device,
    plan: &Plan,
    buffers: &[wgpu::Buffer],
    args: &wgpu::Buffer,
    (i, node): (usize, &Node),
    pipeline: &wgpu::ComputePipeline,
) -> wgpu::BindGroup {
    let size = std::num::NonZero::new(size_of_val(&node.args) as u64);
    let args = wgpu::BufferBinding { buffer: args, offset: i as u64 * args_stride(device), size };
    let resources = std::iter::once(wgpu::BindingResource::Buffer(args))
        .chain(node.tensors.iter().map(|t| binding(plan, buffers, *t)));
    let entries: Vec<_> =
        (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(node.op.name),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    })
}

/// What a node binds of a tensor: a view's part of the buffer, or the whole buffer.
fn binding<'a>(plan: &Plan, buffers: &'a [wgpu::Buffer], t: TensorId) -> wgpu::BindingResource<'a> {
    let buffer = &buffers[plan.slot(t)];
    match plan.view(t) {
        None => buffer.as_entire_binding(),
        Some(range) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset: range.start as u64,
            size: std::num::NonZero::new(range.len() as u64),
        }),
    }
}

/// Waits until `buffer` is mapped for reading.
async fn map(device: &wgpu::Device, buffer: &wgpu::Buffer) -> Result<()> {
    type State = (Option<Result<(), wgpu::BufferAsyncError>>, Option<Waker>);
    let shared: Arc<Mutex<State>> = Arc::default();
    let state = shared.clone();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(result);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    });
    wait(device)?;
    let mapped = std::future::poll_fn(|context| {
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    mapped.await.map_err(|e| Error::Device(format!("reading back: {e}")))
}

/// Waits for the device. A browser needs no polling and cannot block.
#[cfg(not(target_arch = "wasm32"))]
fn wait(device: &wgpu::Device) -> Result<()> {
    let done = device.poll(wgpu::PollType::wait_indefinitely());
    done.map(|_| ()).map_err(|e| Error::Device(format!("waiting for the device: {e}")))
}

#[cfg(target_arch = "wasm32")]
fn wait(_device: &wgpu::Device) -> Result<()> {
    Ok(())
}
