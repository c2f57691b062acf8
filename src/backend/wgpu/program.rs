//! A plan on a wgpu device: one buffer for each slot, one bind group for each node, one submission for many nodes.

#[cfg(feature = "native")]
mod timing;

use super::super::Slice;
use super::fuse::{Fused, fuse};
use super::{Faults, Wgpu};
use crate::error::mib;
use crate::graph::{Access, Graph, Kind, Node, Plan, Slot, Tensor, TensorId};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Most elementary operations in one submission: well under a second on the slowest GPU, so that no driver's watchdog
/// considers it hung.
const WORK_A_SUBMIT: u64 = 20_000_000_000;
/// Most bytes read back at once, unless a single slice is larger.
const STAGING: u64 = 64 << 20;
/// Most bytes of a buffer for reading back that is kept for the next time.
const KEPT: u64 = 4 << 20;
/// Bytes of the smallest buffer, and what every buffer is a multiple of: one vec4, the widest element of any shader.
const MIN_BUFFER: u64 = 16;

struct Step {
    /// Those with workgroups, each with their number.
    passes: Vec<(wgpu::ComputePipeline, [u32; 3])>,
    bind_group: wgpu::BindGroup,
    work: u64,
}

impl Step {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        for (pipeline, [x, y, z]) in &self.passes {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &self.bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// Cuts steps into submissions of at most `most`.
fn pieces<'a, 's>(mut rest: &'a [&'s Step], most: usize) -> impl Iterator<Item = &'a [&'s Step]> {
    std::iter::from_fn(move || {
        let mut work = 0;
        let fits = |step: &&&Step| {
            let first = work == 0;
            work += step.work.max(1);
            first || work <= WORK_A_SUBMIT
        };
        let (now, later) = rest.split_at(rest.iter().take(most).take_while(fits).count());
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

pub struct WgpuProgram {
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    buffers: Buffers,
    /// One for each node of the plan, then one for each of `more`.
    steps: Vec<Step>,
    /// The nodes that run instead of others.
    more: Vec<Node>,
    /// By the first of the nodes that are fused: their end, and the steps that run instead.
    fused: BTreeMap<usize, (usize, Range<usize>)>,
    staging: Staging,
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
        slots.iter().chain([args, scratch]).chain(&self.staging.0).for_each(wgpu::Buffer::destroy);
    }
}

impl WgpuProgram {
    pub(super) fn new(on: &Wgpu, plan: &Plan) -> Result<Self> {
        check_bindings(&on.device.limits(), plan)?;
        let buffer = |slot| buffer(&on.device, &on.faults, plan, slot, slot.bytes);
        let slots = plan.slots.iter().map(buffer).collect::<Result<Vec<_>>>()?;
        let (mut more, mut fused) = (Vec::new(), BTreeMap::new());
        for Fused { nodes, instead } in fuse(&plan.graph) {
            if on.fuses && instead.iter().all(|node| allowed(on, plan, node)) {
                let first = plan.graph.nodes.len() + more.len();
                fused.insert(nodes.start, (nodes.end, first..first + instead.len()));
                more.extend(instead);
            }
        }
        let nodes: Vec<&Node> = plan.graph.nodes.iter().chain(&more).collect();
        let buffers = Buffers { slots, args: args_buffer(on, &nodes), scratch: scratch(on, plan)? };
        let step = |(i, node): (usize, &&Node)| step(on, plan, &buffers, i, node);
        let steps = nodes.iter().enumerate().map(step).collect::<Result<_>>()?;
        on.faults.check()?;
        let (device, queue, faults) = (on.device.clone(), on.queue.clone(), on.faults.clone());
        Ok(WgpuProgram { device, queue, faults, buffers, steps, more, fused, staging: Staging::default() })
    }

    /// Gives slots more room, up to so many bytes each: (slot, bytes).
    pub(in super::super) fn grow(&mut self, plan: &Plan, sizes: &[(usize, usize)]) -> Result<()> {
        let grown = sizes.iter().try_for_each(|(slot, bytes)| {
            let old = &self.buffers.slots[*slot];
            if *bytes as u64 > old.size() {
                let most = self.device.limits().max_storage_buffer_binding_size;
                let what = largest(&plan.graph, &plan.slots[*slot]);
                check_size(what, *bytes as u64, most, "a binding")?;
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
        for (i, (node, step)) in plan.graph.nodes.iter().chain(&self.more).zip(&mut self.steps).enumerate() {
            if node.tensors.iter().any(|t| moved[plan.slot(*t)])
                && let Some((pipeline, _)) = step.passes.first()
            {
                step.bind_group = bind_group(&self.device, plan, &self.buffers, (i, node), pipeline);
            }
        }
        grown.and(self.faults.check())
    }

    /// The steps of a range of nodes.
    fn steps(&self, nodes: Range<usize>) -> Vec<&Step> {
        let (mut steps, mut i) = (Vec::with_capacity(nodes.len()), nodes.start);
        while i < nodes.end {
            match self.fused.get(&i) {
                Some((end, instead)) if *end <= nodes.end => {
                    steps.extend(&self.steps[instead.clone()]);
                    i = *end;
                }
                _ => {
                    steps.push(&self.steps[i]);
                    i += 1;
                }
            }
        }
        steps
    }

    pub(in super::super) fn dispatches(&self, nodes: Range<usize>) -> usize {
        self.steps(nodes).iter().map(|step| step.passes.len()).sum()
    }

    pub(in super::super) fn run(&mut self, nodes: Range<usize>) -> Result<()> {
        let steps = self.steps(nodes);
        pieces(&steps, usize::MAX).for_each(|steps| self.submit(steps));
        self.faults.check()
    }

    fn submit(&self, steps: &[&Step]) {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        steps.iter().for_each(|step| step.dispatch(&mut pass));
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

    /// Reads slices of slots.
    pub(in super::super) async fn read(&mut self, slices: &[Slice]) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::with_capacity(slices.len());
        let mut rest = slices;
        while !rest.is_empty() {
            let mut total = 0;
            let fits = |slice: &&Slice| {
                let first = total == 0;
                total += padded(slice.bytes);
                first || total <= STAGING
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            let staged = self.stage(now);
            found.extend(self.collect(staged).await?);
            rest = later;
        }
        Ok(found)
    }

    /// What was copied for reading, once the copies have run.
    pub(in super::super) async fn collect(&mut self, staged: Staged) -> Result<Vec<Vec<u8>>> {
        let Staged { buffer, sizes, submission } = staged;
        self.faults.check()?;
        let all = sizes.iter().map(|bytes| padded(*bytes)).sum::<u64>().max(MIN_BUFFER);
        let mapped = map(&self.device, &buffer, all, submission).await;
        self.faults.check()?;
        mapped?;
        let view = buffer.get_mapped_range(..all).map_err(|e| Error::Device(format!("reading back: {e}")))?;
        let mut at = 0;
        let part = |bytes: usize| {
            let part = view[at..at + bytes].to_vec();
            at += bytes.next_multiple_of(4);
            part
        };
        let found = sizes.into_iter().map(part).collect();
        drop(view);
        self.staging.give_back(buffer);
        Ok(found)
    }

    /// Copies the first bytes of a slot to another.
    pub(in super::super) fn copy(&mut self, from: usize, to: usize, bytes: usize) {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let [from, to] = [from, to].map(|slot| &self.buffers.slots[slot]);
        encoder.copy_buffer_to_buffer(from, 0, to, 0, padded(bytes));
        self.queue.submit([encoder.finish()]);
    }

    /// Copies slices one after the other, each padded to 4 bytes, to a buffer that can be mapped.
    pub(in super::super) fn stage(&mut self, slices: &[Slice]) -> Staged {
        let sizes: Vec<usize> = slices.iter().map(|slice| slice.bytes).collect();
        let all = sizes.iter().map(|bytes| padded(*bytes)).sum::<u64>().max(MIN_BUFFER);
        let buffer = self.staging.take(&self.device, all);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut at = 0;
        for Slice { slot, start, bytes } in slices {
            encoder.copy_buffer_to_buffer(&self.buffers.slots[*slot], *start as u64, &buffer, at, padded(*bytes));
            at += padded(*bytes);
        }
        let submission = self.queue.submit([encoder.finish()]);
        Staged { buffer, sizes, submission }
    }
}

/// Slices that were copied for reading.
pub struct Staged {
    buffer: wgpu::Buffer,
    /// The bytes of each.
    sizes: Vec<usize>,
    submission: wgpu::SubmissionIndex,
}

fn padded(bytes: usize) -> u64 {
    bytes.next_multiple_of(4) as u64
}

/// Buffers for reading back that wait for the next time: at most one of each size, so that what a step reads every time needs
/// no new one.
#[derive(Default)]
struct Staging(Vec<wgpu::Buffer>);

impl Staging {
    /// A buffer of at least so many bytes.
    fn take(&mut self, device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
        let size = if bytes <= KEPT { bytes.next_power_of_two() } else { bytes };
        if let Some(i) = self.0.iter().position(|kept| kept.size() == size) {
            return self.0.swap_remove(i);
        }
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Takes a mapped buffer back that was read. A large one is freed.
    fn give_back(&mut self, buffer: wgpu::Buffer) {
        if buffer.size() > KEPT || self.0.iter().any(|kept| kept.size() == buffer.size()) {
            return buffer.destroy();
        }
        buffer.unmap();
        self.0.push(buffer);
    }
}

/// A buffer of so many bytes for a slot.
fn buffer(device: &wgpu::Device, faults: &Faults, plan: &Plan, slot: &Slot, bytes: usize) -> Result<wgpu::Buffer> {
    let size = (bytes as u64).max(MIN_BUFFER).next_multiple_of(MIN_BUFFER);
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
fn args_buffer(on: &Wgpu, nodes: &[&Node]) -> wgpu::Buffer {
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

/// Whether the device can run a fused node: it has that many buffers, and none that is written is bound twice.
fn allowed(on: &Wgpu, plan: &Plan, node: &Node) -> bool {
    let slots: Vec<usize> = node.tensors.iter().map(|t| plan.slot(*t)).collect();
    let written = slots.iter().zip(node.op.bindings).filter(|(_, binding)| binding.access != Access::Read);
    let mut alone = written.map(|(slot, _)| slots.iter().filter(|other| *other == slot).count() == 1);
    on.has_buffers(node.op) && alone.all(|alone| alone)
}

/// The memory in which passes hand results on.
fn scratch(on: &Wgpu, plan: &Plan) -> Result<wgpu::Buffer> {
    #[cfg(feature = "native")]
    let bytes = plan.scratch().max(on.variant_scratch(&plan.graph.nodes));
    #[cfg(not(feature = "native"))]
    let bytes = plan.scratch();
    let (size, limit) = (bytes as u64, on.device.limits().max_storage_buffer_binding_size);
    if size > limit {
        let what = format!("{} MiB of scratch memory, but this device allows {}", mib(size).ceil(), mib(limit).floor());
        return Err(Error::Device(format!("the model needs {what} MiB for a binding: use a smaller model or batch")));
    }
    let buffer = on.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("scratch"),
        size: size.max(MIN_BUFFER).next_multiple_of(MIN_BUFFER),
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    on.faults.check().map(|()| buffer)
}

fn step(on: &Wgpu, plan: &Plan, buffers: &Buffers, i: usize, node: &Node) -> Result<Step> {
    let op = node.op;
    let mut passes = on.passes(node)?;
    let limit = on.device.limits().max_compute_workgroups_per_dimension;
    if let Some((_, grid)) = passes.iter().find(|(_, grid)| grid.iter().any(|n| *n > limit)) {
        let output = plan.graph.outputs(node).next().map_or("nothing", |t| &plan.graph.tensor(t).name);
        let what =
            format!("{} of {output} takes {grid:?} workgroups, but this device allows {limit} in a dimension", op.name);
        return Err(Error::Device(what));
    }
    let bind_group = bind_group(&on.device, plan, buffers, (i, node), &passes[0].0);
    passes.retain(|(_, grid)| !grid.contains(&0));
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
        .chain(node.tensors.iter().map(|t| binding(plan, &buffers.slots[plan.slot(*t)], *t)))
        .chain(node.op.scratch.map(|_| buffers.scratch.as_entire_binding()));
    let entries: Vec<_> =
        (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(node.op.name),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    })
}

/// What a node binds of a tensor in this buffer: a view's part of it, or the whole buffer.
fn binding<'a>(plan: &Plan, buffer: &'a wgpu::Buffer, t: TensorId) -> wgpu::BindingResource<'a> {
    match plan.view(t) {
        None => buffer.as_entire_binding(),
        Some(range) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset: range.start as u64,
            size: std::num::NonZero::new(range.len() as u64),
        }),
    }
}

/// Waits until the first bytes of `buffer` are mapped for reading, which were written by a submission.
async fn map(
    device: &wgpu::Device,
    buffer: &wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
) -> Result<()> {
    type State = (Option<Result<(), wgpu::BufferAsyncError>>, Option<Waker>);
    let shared: Arc<Mutex<State>> = Arc::default();
    let state = shared.clone();
    buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(result);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    });
    wait(device, submission)?;
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

/// Waits until the device has run a submission. A browser needs no polling and cannot block.
#[cfg(not(target_arch = "wasm32"))]
fn wait(device: &wgpu::Device, submission: wgpu::SubmissionIndex) -> Result<()> {
    let done = device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
    done.map(|_| ()).map_err(|e| Error::Device(format!("waiting for the device: {e}")))
}

#[cfg(target_arch = "wasm32")]
fn wait(_device: &wgpu::Device, _submission: wgpu::SubmissionIndex) -> Result<()> {
    Ok(())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::graph::{DType, Graph};

    #[test]
    fn what_is_read_again_needs_no_new_buffer() {
        let Ok(on) = Wgpu::open(None) else { return println!("NOT TESTED on wgpu: this machine has no adapter") };
        let mut g = Graph::new();
        let t = g.persistent("x", &[KEPT as usize / 2], DType::F32);
        let plan = Plan::new(g);
        let mut program = WgpuProgram::new(&on, &plan).unwrap();
        let words: Vec<u32> = (0..KEPT as u32 / 2).collect();
        program.write(plan.slot(t), 0, bytemuck::cast_slice(&words));
        let mut read = |bytes: usize| {
            let found =
                pollster::block_on(program.read(&[Slice { slot: plan.slot(t), start: 0, bytes }])).unwrap().remove(0);
            assert_eq!(found, bytemuck::cast_slice::<u32, u8>(&words)[..bytes]);
            program.staging.0.clone()
        };
        let first = read(20);
        assert_eq!(first.len(), 1);
        // Sizes of one class share a buffer, a larger size gets one of its own, and one that is too large is not kept.
        assert_eq!(read(32), first);
        assert_eq!(read(17), first);
        assert_eq!(read(1000).len(), 2);
        assert_eq!(read(KEPT as usize + 4).len(), 2);
        assert!(read(20).contains(&first[0]));
    }
}
