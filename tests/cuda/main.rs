//! The CUDA backend without a GPU. Every shader is translated, compiled by NVRTC, and run on the CPU against the scalar kernel
//! that defines it. The program also trains on the backend, over an emulated driver.

#[path = "../op_parity/cases.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../op_parity/compare.rs"]
mod compare;
mod cubin;
mod emulator;
mod language;

use cases::Data;
use common::cli::Project;
use compare::{Bench, graph, verdict, words};
use emulator::{Buffer, Call, Emulator};
use nanotern::backend::cuda::{Entry, Kernel, NATIVE, Native, NativePass, compile, devices, has_nvrtc, translate};
use nanotern::backend::{Options, open, shader_source};
use nanotern::graph::{Op, Pass};
use nanotern::ops::TABLE;
use std::io::Write;

fn kernel(op: &Op) -> Kernel {
    translate(op.name, &shader_source(op)).unwrap_or_else(|e| panic!("{e}"))
}

/// Whether NVRTC exists. If not, the test fails with NANOTERN_REQUIRE_NVRTC=1 and otherwise prints a note.
fn nvrtc() -> bool {
    let found = has_nvrtc();
    if !found {
        assert!(std::env::var("NANOTERN_REQUIRE_NVRTC").as_deref() != Ok("1"), "no NVRTC, and it is required");
        let _ = writeln!(std::io::stderr(), "NOT TESTED with NVRTC: this machine has no libnvrtc");
    }
    found
}

/// Compiles every op's shader and every native kernel for `arch`, on all cores.
fn compile_all(arch: &str, capability: (usize, usize)) -> Vec<(&'static str, Vec<u8>)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let native = NATIVE.iter().filter(|native| native.capability <= capability);
    let sources: Vec<(&str, String)> = (TABLE.iter().map(|op| (op.name, kernel(op).source)))
        .chain(native.map(|native| (native.name, native.source.to_string())))
        .collect();
    let build = |(name, source): &(&'static str, String)| {
        (*name, compile(name, source, arch).unwrap_or_else(|e| panic!("{e}")))
    };
    std::thread::scope(|scope| {
        let parts = (0..threads).map(|i| sources.iter().skip(i).step_by(threads));
        let jobs: Vec<_> = parts.map(|part| scope.spawn(move || part.map(build).collect::<Vec<_>>())).collect();
        jobs.into_iter().flat_map(|job| job.join().unwrap()).collect()
    })
}

#[test]
fn every_shader_compiles_with_nvrtc() {
    if !nvrtc() {
        return;
    }
    for (arch, capability) in [("sm_70", (7, 0)), ("sm_80", (8, 0)), ("sm_90", (9, 0))] {
        for (name, image) in compile_all(arch, capability) {
            assert!(image.starts_with(b"\x7fELF"), "{name} for {arch} is not machine code");
        }
    }
    // The product of four bytes uses the single instruction where available, and read-only buffers are loaded as such.
    let op = TABLE.iter().find(|op| op.name == "ternary_matmul").unwrap();
    let ptx = |arch| String::from_utf8(compile(op.name, &kernel(op).source, arch).unwrap()).unwrap();
    assert!(ptx("compute_70").contains("dp4a.s32.s32") && !ptx("compute_60").contains("dp4a"));
    assert!(ptx("compute_80").contains("ld.global.nc.") && ptx("compute_80").contains("ld.shared.v4."));
}

/// Registers of a translated kernel: so many that a multiprocessor holds 512 threads.
const MOST_REGISTERS: u32 = 128;
/// Those of a native kernel: what a thread can have.
const MOST_NATIVE: u32 = 255;
/// Kernels whose innermost loops are mostly multiply-adds of f32, and their least share of these loops: of attention they hold
/// the loads of a step besides.
const PRODUCTS: [(&str, f64); 7] = [
    ("attention", 0.8),
    ("attention_backward_kv", 0.8),
    ("attention_backward_q", 0.8),
    ("matmul", 0.85),
    ("matmul_add", 0.85),
    ("ternary_matmul_backward_input", 0.85),
    ("ternary_matmul_backward_weight", 0.85),
];
/// Multiply-adds of such a loop, at least.
const UNROLLED: usize = 128;
/// Most instructions for each product of tiles in a loop of tensor cores that has so many.
const SLOTS: f64 = 6.0;
const TENSOR_UNROLLED: usize = 64;

#[test]
fn no_kernel_spills_and_products_multiply() {
    if !nvrtc() {
        return;
    }
    let mut failures = Vec::new();
    for (arch, capability) in [("sm_80", (8, 0)), ("sm_89", (8, 9)), ("sm_90", (9, 0))] {
        for (name, image) in compile_all(arch, capability) {
            let needs = cubin::needs(&image);
            assert!(needs.iter().any(|n| n.registers > 0), "{name} for {arch}: {needs:?}");
            let most = if TABLE.iter().any(|op| op.name == name) { MOST_REGISTERS } else { MOST_NATIVE };
            let too_much = needs.iter().filter(|n| n.stack > 0 || n.registers > most);
            failures.extend(too_much.map(|n| format!("for {arch}: {n:?}")));
            let loops = cubin::loops(&image, capability);
            let inner = |l: &cubin::Loop| !loops.iter().any(|other| other.is_within(l));
            let (products, tensor): (Vec<_>, Vec<_>) = loops.iter().filter(|l| inner(l)).partition(|l| l.tensor == 0);
            if let Some((_, least)) = PRODUCTS.iter().find(|(product, _)| *product == name) {
                let products = products.iter().filter(|l| l.multiply_adds >= UNROLLED);
                let (all, wanted) = products.fold((0, 0), |(all, n), l| (all + l.code.len(), n + l.multiply_adds));
                let share = wanted as f64 / all as f64;
                if share.is_nan() || share < *least {
                    failures.push(format!("for {arch}: {share:.3} of the innermost loops of {name} are multiply-adds"));
                }
            }
            let slots = |l: &cubin::Loop| l.code.len() as f64 / l.tensor as f64;
            let many = tensor.iter().filter(|l| l.tensor >= TENSOR_UNROLLED && slots(l) > SLOTS);
            failures.extend(many.map(|l| format!("for {arch}: {:.1} instructions a product, {l:?}", slots(l))));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Most work of a case: emulating more takes too long.
const MOST_WORK: u64 = 500_000_000;

/// With the limits of `tests/op_parity`, but without its allowance for a GPU's division.
#[test]
fn translated_shaders_agree_with_their_definition() {
    let native = |native: &Native| {
        let entry =
            |pass: &NativePass| Entry { point: String::new(), name: pass.function.into(), block: [pass.threads, 1, 1] };
        Kernel { source: native.source.into(), entries: native.passes.iter().map(entry).collect() }
    };
    let translated = TABLE.iter().map(|op| (op.name, kernel(op)));
    let kernels: Vec<(&str, Kernel)> =
        translated.chain(NATIVE.iter().map(|kernel| (kernel.name, native(kernel)))).collect();
    let Some(emulator) = Emulator::new(&kernels) else { return };
    let cases = cases::all();
    let (nodes, mut reference) = (graph(&cases).0.nodes, Bench::new(&common::scalar(), &cases));
    let functions: Vec<&str> =
        kernels.iter().flat_map(|(_, kernel)| &kernel.entries).map(|entry| entry.name.as_str()).collect();
    let buffer = |data: &Data| match data {
        Data::Same(i) => Buffer::Same(*i),
        data => Buffer::Words(words(data)),
    };
    let call = |(case, node): (&cases::Case, &nanotern::graph::Node)| {
        let kernel = &kernels.iter().find(|(name, _)| *name == node.op.name).unwrap().1;
        let launch = |pass: &Pass| {
            let Entry { name, .. } = kernel.entries.iter().find(|entry| entry.point == pass.entry).unwrap();
            (functions.iter().position(|function| function == name).unwrap(), (pass.grid)(&node.args))
        };
        let scratch = node.op.scratch.map(|words| Buffer::Words(vec![0x7fc0_0000; words(&node.args)]));
        Call {
            launches: node.op.passes.iter().map(launch).collect(),
            args: node.args,
            buffers: case.data.iter().map(buffer).chain(scratch).collect(),
        }
    };
    let chosen: Vec<usize> = (0..cases.len()).filter(|i| (nodes[*i].op.work)(&nodes[*i].args) <= MOST_WORK).collect();
    let calls: Vec<Call> = chosen.iter().map(|i| call((&cases[*i], &nodes[*i]))).collect();
    let mut failures = Vec::new();
    for (i, got) in chosen.into_iter().zip(emulator.run(&calls)) {
        let case = &cases[i];
        if let Some(what) = verdict(case, false, &reference.run(i, case), &got) {
            failures.push(format!("{}: {what} ({})", case.op.name, case.args));
        }
    }
    // Native kernels give the bits of the scalar kernels.
    for native in NATIVE {
        let number = |pass: &NativePass| functions.iter().position(|name| *name == pass.function).unwrap();
        let taken: Vec<usize> =
            (0..cases.len()).filter(|i| cases[*i].op.name == native.op && (native.takes)(&nodes[*i].args)).collect();
        assert!(taken.len() > 3, "{}: {} cases", native.name, taken.len());
        let call = |i: &usize| {
            let (case, args) = (&cases[*i], nodes[*i].args);
            let scratch = Buffer::Words(vec![0x7fc0_0000; (native.scratch)(&args)]);
            let launches = native.passes.iter().map(|pass| (number(pass), (pass.grid)(&args))).collect();
            Call { launches, args, buffers: case.data.iter().map(buffer).chain([scratch]).collect() }
        };
        let calls: Vec<Call> = taken.iter().map(call).collect();
        for (i, got) in taken.iter().zip(emulator.run(&calls)) {
            let wanted = reference.run(*i, &cases[*i]);
            if wanted.iter().zip(&got).any(|(wanted, got)| wanted != got) {
                failures.push(format!("{}: other bits ({})", native.name, cases[*i].args));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), cases.len(), failures.join("\n"));
    if nvrtc() {
        the_program_computes_with_it(&emulator);
    }
}

/// The backend over an emulated driver: a training step op by op against the scalar kernels, and training.
fn the_program_computes_with_it(emulator: &Emulator) {
    let p = Project::new();
    let run = |words: &str| {
        let output = p.command(words).env("LD_LIBRARY_PATH", emulator.libraries()).output().unwrap();
        (output.status.success(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat())
    };
    let (ok, said) = run("doctor");
    let device = "cuda Emulated (compute capability 8.0, 256 MiB)";
    assert!(ok && said.contains(&format!("ok    {device}: every op of a training step agrees")), "{said}");
    let (ok, said) = run("devices --json");
    assert!(ok && said.contains(r#""name":"Emulated""#), "{said}");
    let (ok, said) =
        run("train --config config.toml --backend cuda --adapter emul --total-steps 3 --checkpoint-dir run");
    assert!(ok && said.contains("device   cuda (Emulated") && said.contains("saved run/final"), "{said}");
    let (ok, said) = run("eval parity --backend cuda --model run");
    assert!(ok && said.contains("agrees"), "{said}");
    let (ok, said) = run("train --config config.toml --backend cuda --set train.batch_size=60000");
    assert!(!ok && said.contains("Emulated is out of memory: use a smaller batch or model"), "{said}");
    let (ok, said) = run("train --config config.toml --backend cuda --adapter Voodoo");
    assert!(!ok && said.contains("--adapter Voodoo: there is 0: Emulated"), "{said}");
}

#[test]
fn what_is_not_covered_is_named() {
    let shader = |declarations: &str, body: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
            {declarations}
            @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) {{ {body} }}"
        )
    };
    for (declarations, body, named) in [
        ("", "x[0] = pow(x[1], x[2]);", "Pow"),
        ("@group(0) @binding(1) var<storage, read_write> n: u32;", "n = 1u;", "storage buffer g1_n"),
        ("var<workgroup> n: atomic<u32>;", "atomicMax(&n, 1u);", "Max"),
        ("fn zero(y: ptr<function, f32>) { *y = 0.0; }", "var y = 1.0; zero(&y);", "Pointer"),
        ("", "let m = mat2x2<f32>(x[0], x[1], x[2], x[3]); x[0] = m[0].x;", "Matrix"),
        ("override n: f32 = 1.0;", "x[0] = n;", "Override"),
        ("struct S { a: f32, @size(16) b: f32, c: f32 }", "x[0] = S(x[1], 2.0, 3.0).c;", "m2_c"),
        ("@group(0) @binding(1) var<storage> v: array<vec3<f32>>;", "x[0] = v[lane].x * unknown;", "unknown"),
        ("", "if lane > { }", "expected"),
        ("", "x[0] = lane;", "main"),
    ] {
        let Err(error) = translate("trial", &shader(declarations, body)) else { panic!("{declarations} {body}") };
        let error = error.to_string();
        assert!(error.starts_with("trial.wgsl cannot become CUDA: ") && error.contains(named), "{named}: {error}");
    }
    let graphics = "@fragment fn main() -> @location(0) vec4<f32> { return vec4<f32>(); }";
    assert!(translate("trial", graphics).err().unwrap().to_string().contains("Fragment"));
}

#[test]
fn a_failed_compilation_carries_the_log() {
    if has_nvrtc() {
        let error = compile("trial", "extern \"C\" __global__ void trial() { nonsense(); }", "sm_80").err().unwrap();
        assert!(
            error.to_string().contains("trial") && error.to_string().contains("\"nonsense\" is undefined"),
            "{error}"
        );
        let error = compile("trial", "", "sm_1").err().unwrap().to_string();
        assert!(error.contains("sm_1"), "{error}");
    }
}

#[test]
fn a_missing_driver_is_said() {
    match devices() {
        Err(error) => {
            let opened = open("cuda", &Options::default()).err().unwrap().to_string();
            assert!(opened.contains("--backend cuda") && opened.contains(&error.to_string()), "{opened}");
        }
        Ok(found) => {
            let named = Options { adapter: Some("no such device".into()), ..Options::default() };
            assert!(found.is_empty() || open("cuda", &named).is_err());
        }
    }
}
