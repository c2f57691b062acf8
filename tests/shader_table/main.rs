//! Checks every shader against the op table and the limits of browsers, using naga's intermediate representation.

mod uniformity;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, ArraySize, Module, ScalarKind, StorageAccess, TypeInner};
use nanotern::backend::{FUSED, shader_source};
use nanotern::graph::{Access, DType, Op};
use nanotern::ops::TABLE;
use std::collections::BTreeSet;

/// WebGPU's default limits, which every browser supports.
const STORAGE_BUFFERS: usize = 8;
const WORKGROUP_BYTES: u32 = 16 * 1024;
const INVOCATIONS: u32 = 256;

/// Parses and validates WGSL without optional capabilities.
fn parse(name: &str, source: &str) -> (Module, ModuleInfo) {
    let module =
        naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(source, name)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::default());
    match validator.validate(&module) {
        Ok(info) => (module, info),
        Err(e) => panic!("{}", e.emit_to_string_with_path(source, name)),
    }
}

fn each(check: impl Fn(&'static Op, &Module)) {
    for op in TABLE.iter().chain(FUSED) {
        check(op, &parse(op.name, &shader_source(op)).0);
    }
}

#[test]
fn buffers_are_those_of_the_table() {
    each(|op, module| {
        let bound: Vec<_> = module.global_variables.iter().filter(|(_, v)| v.binding.is_some()).collect();
        let scratch = usize::from(op.scratch.is_some());
        assert_eq!(bound.len(), op.bindings.len() + 1 + scratch, "{}: number of bindings", op.name);
        for (_, variable) in bound {
            let at = variable.binding.unwrap();
            let name = variable.name.as_deref().unwrap();
            assert_eq!(at.group, 0, "{}: group of {name}", op.name);
            if at.binding == 0 {
                assert_eq!((name, variable.space), ("args", AddressSpace::Uniform), "{}", op.name);
                continue;
            }
            let written = StorageAccess::LOAD | StorageAccess::STORE;
            let Some(binding) = op.bindings.get(at.binding as usize - 1) else {
                let space = AddressSpace::Storage { access: written };
                assert_eq!((name, variable.space), ("scratch", space), "{}: the last binding", op.name);
                continue;
            };
            assert_eq!(name, binding.name, "{}: binding {}", op.name, at.binding);
            let access = if binding.access == Access::Read { StorageAccess::LOAD } else { written };
            assert_eq!(variable.space, AddressSpace::Storage { access }, "{}: access of {name}", op.name);
            assert!(holds(module, variable.ty, binding.dtype), "{}: type of {name}", op.name);
        }
    });
}

/// Whether `ty` is a runtime-sized array of the words of `dtype`, as scalars or as vectors of two or four.
fn holds(module: &Module, ty: naga::Handle<naga::Type>, dtype: DType) -> bool {
    let TypeInner::Array { base, size: ArraySize::Dynamic, .. } = module.types[ty].inner else { return false };
    let kind = if dtype == DType::F32 { ScalarKind::Float } else { ScalarKind::Uint };
    match module.types[base].inner {
        TypeInner::Scalar(scalar) => (scalar.kind, scalar.width) == (kind, 4),
        TypeInner::Vector { size: naga::VectorSize::Bi | naga::VectorSize::Quad, scalar } => {
            (scalar.kind, scalar.width) == (kind, 4)
        }
        _ => false,
    }
}

#[test]
fn args_are_those_of_the_table() {
    each(|op, module| {
        let (_, args) = module.global_variables.iter().find(|(_, v)| v.name.as_deref() == Some("args")).unwrap();
        let ty = &module.types[args.ty];
        assert_eq!(ty.name.as_deref(), Some("Args"), "{}", op.name);
        let TypeInner::Struct { members, .. } = &ty.inner else { panic!("{}: Args is not a struct", op.name) };
        assert_eq!(members.len(), op.fields.len(), "{}: fields of Args", op.name);
        for (i, (member, (name, wgsl))) in members.iter().zip(op.fields).enumerate() {
            assert_eq!(member.name.as_deref(), Some(*name), "{}: field {i}", op.name);
            assert_eq!(member.offset as usize, 4 * i, "{}: offset of {name}", op.name);
            let expected = if *wgsl == "f32" { naga::Scalar::F32 } else { naga::Scalar::U32 };
            assert!(["f32", "u32"].contains(wgsl), "{}: {name} is {wgsl}", op.name);
            assert_eq!(module.types[member.ty].inner, TypeInner::Scalar(expected), "{}: {name}", op.name);
        }
    });
}

#[test]
fn shaders_fit_every_browser() {
    each(|op, module| {
        let entries: BTreeSet<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(entries, op.passes.iter().map(|pass| pass.entry).collect(), "{}: entry points", op.name);
        assert_eq!(op.passes[0].entry, "main", "{}", op.name);
        for entry in &module.entry_points {
            assert!(entry.workgroup_size.iter().product::<u32>() <= INVOCATIONS, "{}", op.name);
        }
        let count =
            |space: fn(&AddressSpace) -> bool| module.global_variables.iter().filter(|(_, v)| space(&v.space)).count();
        // Where a device has fewer, the nodes run by themselves.
        let most = if op.name == "fused_qkv" { 15 } else { STORAGE_BUFFERS };
        assert!(count(|s| matches!(s, AddressSpace::Storage { .. })) <= most, "{}: storage buffers", op.name);
        assert_eq!(count(|s| matches!(s, AddressSpace::Immediate)), 0, "{}: immediates", op.name);
        let mut layouts = naga::proc::Layouter::default();
        layouts.update(module.to_ctx()).unwrap();
        let source = shader_source(op);
        let (_, info) = parse(op.name, &source);
        for (i, entry) in module.entry_points.iter().enumerate() {
            let shared = module.global_variables.iter().filter(|(handle, v)| {
                v.space == AddressSpace::WorkGroup && !info.get_entry_point(i)[*handle].is_empty()
            });
            let bytes: u32 = shared.map(|(_, v)| layouts[v.ty].size.next_multiple_of(16)).sum();
            assert!(bytes <= WORKGROUP_BYTES, "{} {}: {bytes} bytes of workgroup memory", op.name, entry.name);
        }
        for extension in ["enable ", "requires ", "subgroup", "f16", "immediate>"] {
            let used =
                source.lines().any(|l| l.split("//").next().unwrap().contains(extension) && !l.contains("to_f16"));
            assert!(!used, "{}: {extension}", op.name);
        }
    });
}

#[test]
fn barriers_are_in_uniform_control_flow() {
    each(|op, module| {
        let found = uniformity::misplaced_barriers(module);
        assert!(found.is_empty(), "{}: {found:?}", op.name);
    });
}

/// Whether an expression mixes `&`, `|` or `^` with a comparison or a shift and has no parentheses between them. WGSL forbids it,
/// and naga takes it.
fn mixes(source: &str) -> bool {
    let code: String = source.lines().flat_map(|line| [line.split("//").next().unwrap(), " "]).collect();
    // For each open bracket: whether a bitwise operator and one of the others were seen.
    let mut open = vec![[false; 2]];
    let mut spaced = String::new();
    code.chars().for_each(|c| if "()[]{},;".contains(c) { spaced.extend([' ', c, ' ']) } else { spaced.push(c) });
    spaced.split_whitespace().any(|word| {
        let last = open.len() - 1;
        match word {
            "(" | "[" => open.push([false; 2]),
            ")" | "]" if last > 0 => open.truncate(last),
            "," | ";" | "{" | "}" | "=" | "&&" | "||" => open[last] = [false; 2],
            "&" | "|" | "^" => open[last][0] = true,
            ">=" | "<=" | "==" | "!=" | ">" | "<" | "<<" | ">>" => open[last][1] = true,
            _ => {}
        }
        open.last().unwrap().iter().all(|seen| *seen)
    })
}

#[test]
fn bitwise_operators_stand_in_parentheses() {
    for (source, wanted) in [
        ("let a = b >= c & d;", true),
        ("let a = b & c << 2u;", true),
        ("let a = (b >= c) & (d | e); if f == g && (h & i) != 0u { }", false),
        ("let a = f(b & c, d >= e); a = b >> 2u; // c & d", false),
    ] {
        assert_eq!(mixes(source), wanted, "{source}");
    }
    each(|op, _| assert!(!mixes(&shader_source(op)), "{}", op.name));
}

#[test]
fn every_shader_file_is_in_the_table() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter_map(|f| f.strip_suffix(".wgsl").map(str::to_string)).collect();
    assert_eq!(files, TABLE.iter().map(|op| op.name.to_string()).collect());
}

/// A shader with `body` in a main function with the usual inputs, a uniform, buffers and workgroup memory.
fn misplaced(body: &str) -> usize {
    let source = format!(
        "struct Args {{ n: u32 }}
        @group(0) @binding(0) var<uniform> args: Args;
        @group(0) @binding(1) var<storage, read> x: array<u32>;
        @group(0) @binding(2) var<storage, read_write> y: array<u32>;
        var<workgroup> w: array<u32, 64>;
        fn sum(value: u32) -> u32 {{ w[value] = 1u; workgroupBarrier(); return w[0]; }}
        fn double(value: u32) -> u32 {{ return 2u * value; }}
        @compute @workgroup_size(64)
        fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {{
            let group = wid.x + wid.y * groups.x;
            {body}
        }}"
    );
    uniformity::misplaced_barriers(&parse("test", &source).0).len()
}

#[test]
fn the_lint_passes_uniform_barriers() {
    for body in [
        "workgroupBarrier();",
        "if group >= args.n { return; } workgroupBarrier();",
        "if lane < 3u { w[lane] = 1u; } workgroupBarrier();",
        "for (var i = 0u; i < args.n; i++) { w[lane] = i; workgroupBarrier(); }",
        "for (var i = lane; i < args.n; i += 64u) { y[i] = 1u; } workgroupBarrier();",
        "for (var i = 0u; i < x[group]; i++) { workgroupBarrier(); }",
        "for (var i = 0u; i < double(args.n); i++) { workgroupBarrier(); }",
        "let s = sum(lane); y[lane] = s;",
        "if workgroupUniformLoad(&w[0]) == 1u { workgroupBarrier(); }",
        "loop { if lane > 3u { break; } y[lane] = 1u; } workgroupBarrier();",
        "var i = 0u; if args.n > 2u { i = 1u; } if i == 1u { storageBarrier(); }",
        "switch lane { case 0u: { y[0] = 1u; } default: { } } workgroupBarrier();",
        "switch args.n { case 0u: { workgroupBarrier(); } default: { } }",
    ] {
        assert_eq!(misplaced(body), 0, "{body}");
    }
}

#[test]
fn the_lint_flags_divergent_barriers() {
    for body in [
        "if lane < 3u { workgroupBarrier(); }",
        "if lane < 3u { return; } workgroupBarrier();",
        "if lane < 3u { y[0] = sum(lane); }",
        "if y[group] > 0u { workgroupBarrier(); }",
        "if x[lane] > 0u { return; } storageBarrier();",
        "if w[0] > 0u { workgroupBarrier(); }",
        "for (var i = lane; i < args.n; i += 64u) { workgroupBarrier(); }",
        "for (var i = 0u; i < double(lane); i++) { workgroupBarrier(); }",
        "for (var i = 0u; i < args.n; i++) { if lane == i { break; } workgroupBarrier(); }",
        "for (var i = 0u; i < args.n; i++) { workgroupBarrier(); if lane == i { break; } }",
        "for (var i = 0u; i < args.n; i++) { if lane == i { continue; } workgroupBarrier(); }",
        "for (var i = 0u; i < args.n; i++) { if lane == i { return; } } workgroupBarrier();",
        "var i = 0u; if lane > 2u { i = 1u; } if i == 1u { workgroupBarrier(); }",
        "if sum(lane) > 3u { workgroupBarrier(); }",
        "switch lane { case 0u: { workgroupBarrier(); } default: { } }",
        "switch lane { case 0u: { return; } default: { } } workgroupBarrier();",
        "loop { workgroupBarrier(); continuing { break if lane > 3u; } }",
        "if lane < 3u { y[0] = workgroupUniformLoad(&w[0]); }",
    ] {
        assert!(misplaced(body) > 0, "{body}");
    }
}
