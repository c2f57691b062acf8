//! A plan on a wgpu device: one buffer for each slot, one bind group for each node, one submission for many nodes.

use super::{Faults, Wgpu};
use crate::error::mib;
use crate::graph::{Node, Plan, Slot, Tensor};
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
    /// Those with workgroups, each with their number.
    passes: Vec<(wgpu::ComputePipeline, [u32; 3])>,
    bind_group: wgpu::BindGroup,
    work: u64,
}

pub struct WgpuProgram {
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    buffers: Buffers,
    steps: Vec<Step>,
}

/// What nodes bind.
struct Buffers {
    /// One for each slot.
    slots: Vec<wgpu::Buffer>,
    /// The `Args` of all nodes.
    args: wgpu::Buffer,
    scratch: wgpu::Buffer,
}

/// Frees the memory at once: a browser would keep it until its next garbage collection.
impl Drop for WgpuProgram {
    fn drop(&mut self) {
        let Buffers { slots, args, scratch } = &self.buffers;
        slots.iter().chain([args, scratch]).for_each(wgpu::Buffer::destroy);
    }
}

impl WgpuProgram {
    pub(super) fn new(on: &Wgpu, plan: &Plan) -> Result<Self> {
        let mut slots = Vec::with_capacity(plan.slots.len());
        for slot in &plan.slots {
            slots.push(buffer(&on.device, &on.faults, plan, slot, slot.bytes)?);
        }
        let buffers = Buffers { slots, args: args_buffer(on, &plan.graph.nodes), scratch: scratch(on, plan)? };
        let step = |(i, node)| step(on, plan, &buffers, i, node);
        let steps = plan.graph.nodes.iter().enumerate().map(step).collect::<Result<_>>()?;
        on.faults.check()?;
        let (device, queue, faults) = (on.device.clone(), on.queue.clone(), on.faults.clone());
        Ok(WgpuProgram { device, queue, faults, buffers, steps })
    }

    /// Gives slots more room, up to so many bytes each: (slot, bytes).
    pub(in super::super) fn grow(&mut self, plan: &Plan, sizes: &[(usize, usize)]) -> Result<()> {
        let grown = sizes.iter().try_for_each(|(slot, bytes)| {
            let old = &self.buffers.slots[*slot];
            if *bytes as u64 > old.size() {
                let new = buffer(&self.device, &self.faults, plan, &plan.slots[*slot], *bytes)?;
                let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                encoder.copy_buffer_to_buffer(old, 0, &new, 0, old.size());
                self.queue.submit([encoder.finish()]);
                std::mem::replace(&mut self.buffers.slots[*slot], new).destroy();
            }
            Ok(())
        });
        let mut moved = vec![false; self.buffers.slots.len()];
        sizes.iter().for_each(|(slot, _)| moved[*slot] = true);
        for (i, (node, step)) in plan.graph.nodes.iter().zip(&mut self.steps).enumerate() {
            if node.tensors.iter().any(|t| moved[plan.slot(*t)]) {
                if let Some((pipeline, _)) = step.passes.first() {
                    step.bind_group = bind_group(&self.device, plan, &self.buffers, (i, node), pipeline);
                }
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
        for step in steps {
            for (pipeline, [x, y, z]) in &step.passes {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, &step.bind_group, &[]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    /// Writes to a slot from byte `at`, a multiple of 4.
    pub(in super::super) fn write(&mut self, slot: usize, at: usize, bytes: &[u8]) {
        let whole = bytes.len() / 4 * 4;
        let buffer = &self.buffers.slots[slot];
        self.queue.write_buffer(buffer, at as u64, &bytes[..whole]);
        if whole < bytes.len() {
            let mut word = [0; 4];
            word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(buffer, (at + whole) as u64, &word);
        }
    }

    /// Reads the first bytes of slots; each slice is (slot, bytes).
    pub(in super::super) async fn read(&mut self, slices: &[(usize, usize)]) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::with_capacity(slices.len());
        let padded = |bytes: usize| bytes.next_multiple_of(4) as u64;
        let mut rest = slices;
        while !rest.is_empty() {
            let mut total = 0;
            let fits = |(_, bytes): &&(usize, usize)| {
                let first = total == 0;
                total += padded(*bytes);
                first || total <= STAGING
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            let size = now.iter().map(|(_, bytes)| padded(*bytes)).sum::<u64>().max(MIN_BUFFER);
            let staging = self.stage(now, size);
            self.faults.check()?;
            let mapped = map(&self.device, &staging).await;
            self.faults.check()?;
            mapped?;
            let view = staging.get_mapped_range(..).map_err(|e| Error::Device(format!("reading back: {e}")))?;
            let mut at = 0;
            for (_, bytes) in now {
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
    fn stage(&self, slices: &[(usize, usize)], size: u64) -> wgpu::Buffer {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut at = 0;
        for (slot, bytes) in slices {
            let bytes = bytes.next_multiple_of(4) as u64;
            encoder.copy_buffer_to_buffer(&self.buffers.slots[*slot], 0, &staging, at, bytes);
            at += bytes;
        }
        self.queue.submit([encoder.finish()]);
        staging
    }
}

/// A buffer of so many bytes for a slot.
fn buffer(device: &wgpu::Device, faults: &Faults, plan: &Plan, slot: &Slot, bytes: usize) -> Result<wgpu::Buffer> {
    let size = (bytes as u64).max(MIN_BUFFER);
    check_size(&device.limits(), plan, slot, size)?;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(&plan.graph.tensor(slot.tensors[0]).name),
        size,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    faults.check().map(|()| buffer)
}

/// Rejects a buffer that exceeds a limit of the device. The error names the tensor.
fn check_size(limits: &wgpu::Limits, plan: &Plan, slot: &Slot, bytes: u64) -> Result<()> {
    let (buffer, binding) = (limits.max_buffer_size, limits.max_storage_buffer_binding_size);
    let (limit, what) = if bytes > binding { (binding, "a binding") } else { (buffer, "a buffer") };
    if bytes <= limit {
        return Ok(());
    }
    let largest = slot.tensors.iter().map(|t| plan.graph.tensor(*t)).max_by_key(|t| t.bytes());
    let Tensor { name, shape, .. } = largest.expect("a slot has a tensor");
    let (takes, allows) = (mib(bytes).ceil(), mib(limit).floor());
    Err(Error::Device(format!(
        "{name} {shape:?} takes {takes} MiB, but this device allows {allows} MiB for {what}: use a smaller model, batch, chunk or context"
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

/// The memory in which passes hand results on.
fn scratch(on: &Wgpu, plan: &Plan) -> Result<wgpu::Buffer> {
    let (size, limit) = (plan.scratch() as u64, on.device.limits().max_storage_buffer_binding_size);
    if size > limit {
        let what = format!("{} MiB of scratch memory, but this device allows {}", mib(size).ceil(), mib(limit).floor());
        return Err(Error::Device(format!("the model needs {what} MiB for a binding: use a smaller model or batch")));
    }
    let buffer = on.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("scratch"),
        size: size.max(MIN_BUFFER),
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    on.faults.check().map(|()| buffer)
}

fn step(on: &Wgpu, plan: &Plan, buffers: &Buffers, i: usize, node: &Node) -> Result<Step> {
    let op = node.op;
    let grids: Vec<[u32; 3]> = op.passes.iter().map(|pass| (pass.grid)(&node.args)).collect();
    let limit = on.device.limits().max_compute_workgroups_per_dimension;
    if let Some(grid) = grids.iter().find(|grid| grid.iter().any(|n| *n > limit)) {
        let output = plan.graph.outputs(node).next().map_or("nothing", |t| &plan.graph.tensor(t).name);
        let what =
            format!("{} of {output} takes {grid:?} workgroups, but this device allows {limit} in a dimension", op.name);
        return Err(Error::Device(what));
    }
    let pipelines = on.pipelines(op)?;
    let bind_group = bind_group(&on.device, plan, buffers, (i, node), &pipelines[0]);
    let passes = pipelines.into_iter().zip(grids).filter(|(_, grid)| !grid.contains(&0)).collect();
    Ok(Step { passes, bind_group, work: (op.work)(&node.args) })
}

fn bind_group(
    device: &wgpu::Device,
    plan: &Plan,
    buffers: &Buffers,
    (i, node): (usize, &Node),
    pipeline: &wgpu::ComputePipeline,
) -> wgpu::BindGroup {
    let size = std::num::NonZero::new(size_of_val(&node.args) as u64);
    let args = wgpu::BufferBinding { buffer: &buffers.args, offset: i as u64 * args_stride(device), size };
    let resources = std::iter::once(wgpu::BindingResource::Buffer(args))
        .chain(node.tensors.iter().map(|t| buffers.slots[plan.slot(*t)].as_entire_binding()))
        .chain(node.op.scratch.map(|_| buffers.scratch.as_entire_binding()));
    let entries: Vec<_> =
        (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(node.op.name),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    })
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
