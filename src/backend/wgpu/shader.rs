//! Makes a compute pipeline from an entry of the op table.

use crate::graph::{Access, Op};
use crate::ops::wgsl;

/// Snippets that shaders import, by name.
const SHARED: &[(&str, &str)] = &[
    ("adamw", wgsl!(include_str!("../../../shaders/shared/adamw.wgsl"))),
    ("bf16", wgsl!(include_str!("../../../shaders/shared/bf16.wgsl"))),
    ("block", wgsl!(include_str!("../../../shaders/shared/block.wgsl"))),
    ("elements", wgsl!(include_str!("../../../shaders/shared/elements.wgsl"))),
    ("experts", wgsl!(include_str!("../../../shaders/shared/experts.wgsl"))),
    ("few", wgsl!(include_str!("../../../shaders/shared/few.wgsl"))),
    ("four_blocks", wgsl!(include_str!("../../../shaders/shared/four_blocks.wgsl"))),
    ("gemm", wgsl!(include_str!("../../../shaders/shared/gemm.wgsl"))),
    ("gemm_passes", wgsl!(include_str!("../../../shaders/shared/gemm_passes.wgsl"))),
    ("gemm_tile", wgsl!(include_str!("../../../shaders/shared/gemm_tile.wgsl"))),
    ("groups", wgsl!(include_str!("../../../shaders/shared/groups.wgsl"))),
    ("halves", wgsl!(include_str!("../../../shaders/shared/halves.wgsl"))),
    ("hash", wgsl!(include_str!("../../../shaders/shared/hash.wgsl"))),
    ("int8", wgsl!(include_str!("../../../shaders/shared/int8.wgsl"))),
    ("int8_block", wgsl!(include_str!("../../../shaders/shared/int8_block.wgsl"))),
    ("lion", wgsl!(include_str!("../../../shaders/shared/lion.wgsl"))),
    ("map", wgsl!(include_str!("../../../shaders/shared/map.wgsl"))),
    ("muon_tile", wgsl!(include_str!("../../../shaders/shared/muon_tile.wgsl"))),
    ("noise", wgsl!(include_str!("../../../shaders/shared/noise.wgsl"))),
    ("parts", wgsl!(include_str!("../../../shaders/shared/parts.wgsl"))),
    ("permutations", wgsl!(include_str!("../../../shaders/shared/permutations.wgsl"))),
    ("product", wgsl!(include_str!("../../../shaders/shared/product.wgsl"))),
    ("quads", wgsl!(include_str!("../../../shaders/shared/quads.wgsl"))),
    ("reduce", wgsl!(include_str!("../../../shaders/shared/reduce.wgsl"))),
    ("results", wgsl!(include_str!("../../../shaders/shared/results.wgsl"))),
    ("softmax_mean", wgsl!(include_str!("../../../shaders/shared/softmax_mean.wgsl"))),
    ("ternary_block", wgsl!(include_str!("../../../shaders/shared/ternary_block.wgsl"))),
    ("ternary_tile", wgsl!(include_str!("../../../shaders/shared/ternary_tile.wgsl"))),
    ("tiles", wgsl!(include_str!("../../../shaders/shared/tiles.wgsl"))),
    ("words", wgsl!(include_str!("../../../shaders/shared/words.wgsl"))),
];

/// The WGSL of an op, each line `//#import name` replaced by that snippet of `shaders/shared`, which may import others. A line
/// `//#import name KEY=value` replaces KEY by the value in the snippet, so that a snippet can be imported for several values.
///
/// # Panics
/// When a shader imports an unknown snippet.
pub fn shader_source(op: &Op) -> String {
    source_with(op, &[])
}

/// [`shader_source`], with other snippets under some names.
pub(super) fn source_with(op: &Op, others: &[(&str, &str)]) -> String {
    let mut source = String::new();
    append(op.shader, others, &mut source);
    source
}

fn append(text: &str, others: &[(&str, &str)], source: &mut String) {
    for line in text.lines() {
        let Some(import) = line.strip_prefix("//#import ") else {
            source.extend([line, "\n"]);
            continue;
        };
        let (name, setting) = import.trim().split_once(' ').unwrap_or((import.trim(), ""));
        let found = others.iter().chain(SHARED).find(|(shared, _)| *shared == name);
        let (_, snippet) = found.unwrap_or_else(|| panic!("a shader imports {name}"));
        match setting.split_once('=') {
            Some((key, value)) => append(&snippet.replace(key, value), others, source),
            None => append(snippet, others, source),
        }
    }
}

/// Makes the pipeline of each entry point of `source`, a shader for an op, or takes it from `cache`. Errors go to the device's
/// error handler.
pub(super) fn pipelines(
    device: &wgpu::Device,
    cache: Option<&wgpu::PipelineCache>,
    op: &Op,
    source: &str,
    entries: &[&str],
) -> Vec<wgpu::ComputePipeline> {
    let module = module(device, op, source);
    let bind_group_layout = layout(device, op);
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(op.name),
        bind_group_layouts: &[Some(&bind_group_layout)],
        immediate_size: 0,
    });
    let pipeline = |entry: &&str| {
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(op.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every shader writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache,
        })
    };
    entries.iter().map(pipeline).collect()
}

fn module(device: &wgpu::Device, op: &Op, source: &str) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(op.name), source };
    if cfg!(debug_assertions) {
        return device.create_shader_module(descriptor);
    }
    let checks = wgpu::ShaderRuntimeChecks::unchecked();
    #[expect(unsafe_code, reason = "run-time checks prevent loop unrolling, so release builds omit them")]
    // SAFETY: the shaders are this crate's own. Every index follows from `Args` that the graph's builders checked against
    // the tensors' shapes, or is bounded in the shader if it comes from data. No loop is endless. Debug builds keep the checks.
    unsafe {
        device.create_shader_module_trusted(descriptor, checks)
    }
}

/// The layout of binding group 0: the uniform `Args`, then the op's buffers, then its scratch memory.
fn layout(device: &wgpu::Device, op: &Op) -> wgpu::BindGroupLayout {
    let types = std::iter::once(wgpu::BufferBindingType::Uniform)
        .chain(op.bindings.iter().map(|b| wgpu::BufferBindingType::Storage { read_only: b.access == Access::Read }))
        .chain(op.scratch.map(|_| wgpu::BufferBindingType::Storage { read_only: false }));
    let entry = |(binding, ty)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let entries: Vec<_> = (0..).zip(types).map(entry).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(op.name), entries: &entries })
}
