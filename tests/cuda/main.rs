//! The CUDA backend without a GPU. Every shader is translated, compiled by NVRTC, and run on the CPU against the scalar kernel
//! that defines it. The program also trains on the backend, over an emulated driver.

#[path = "../op_parity/cases/mod.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../op_parity/compare.rs"]
mod compare;
mod cubin;
mod emulator;
mod language;
mod wide;

use cases::Data;
use common::cli::Project;
use compare::{Bench, graph, verdict, words};
use emulator::{Buffer, Call, Emulator};
use nanotern::backend::cuda::{Entry, Kernel, NATIVE, Native, NativePass, compile, devices, has_nvrtc, translate};
use nanotern::backend::{Options, open, shader_source};
use nanotern::graph::{Op, Pass};
use nanotern::ops::TABLE;
use std::collections::HashMap;
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
    for (name, image) in compile_all("sm_70", (7, 0)) {
        assert!(image.starts_with(b"\x7fELF"), "{name} for sm_70 is not machine code");
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
/// Multiply-adds of a thread in a step of a matrix product, and their least share of its instructions on the shortest way.
const STEP: (usize, f64) = (1024, 0.8);
/// Most instructions for each product of tiles in a loop of tensor cores: while one product runs, about so many can be issued.
/// The ternary product takes one more for each sum of a group than where all scales are f16 values.
const SLOTS: f64 = 6.1;
/// The same of a loop of so many products: a group of 64 weights, whose sums are added up after every step.
const SHORT_GROUP: (usize, f64) = (32, 11.0);
/// With one term of each float a step has so few products that bringing it takes longer: most of the instructions with two.
const FAST: f64 = 0.8;

#[test]
fn no_kernel_spills_and_products_multiply() {
    if !nvrtc() {
        return;
    }
    let (mut failures, mut steps) = (Vec::new(), HashMap::new());
    for (arch, capability) in [("sm_80", (8, 0)), ("sm_89", (8, 9)), ("sm_90", (9, 0))] {
        for (name, image) in compile_all(arch, capability) {
            let needs = cubin::needs(&image);
            assert!(needs.iter().any(|n| n.registers > 0), "{name} for {arch}: {needs:?}");
            let is_native = !TABLE.iter().any(|op| op.name == name);
            let most = if is_native { MOST_NATIVE } else { MOST_REGISTERS };
            let too_much = needs.iter().filter(|n| n.stack > 0 || n.registers > most);
            failures.extend(too_much.map(|n| format!("for {arch}: {n:?}")));
            let loops = cubin::loops(&image, capability);
            let inner = |l: &&cubin::Loop| !loops.iter().any(|other| other.is_within(l));
            if let Some((_, least)) = PRODUCTS.iter().find(|(product, _)| *product == name) {
                let products = loops.iter().filter(inner).filter(|l| l.multiply_adds >= UNROLLED);
                let (all, wanted) = products.fold((0, 0), |(all, n), l| (all + l.code.len(), n + l.multiply_adds));
                let share = wanted as f64 / all as f64;
                println!("{arch} {name}: {:.1} % of the innermost loops are multiply-adds", 100.0 * share);
                if share.is_nan() || share < *least {
                    failures.push(format!("for {arch}: {share:.3} of the innermost loops of {name} are multiply-adds"));
                }
            }
            for l in
                loops.iter().filter(inner).filter(|l| PRODUCTS.contains(&(name, 0.85)) && l.multiply_adds >= UNROLLED)
            {
                let step = loops.iter().filter(|outer| l.is_within(outer)).min_by_key(|outer| outer.code.len());
                let once = step.expect("a product has steps").way.instructions;
                let share = STEP.0 as f64 / (once + (STEP.0 / l.multiply_adds - 1) * l.code.len()) as f64;
                println!("{arch} {}: {:.1} % of a step", l.function, 100.0 * share);
                if share < STEP.1 {
                    failures.push(format!("for {arch}: {share:.3} of a step of {} are multiply-adds", l.function));
                }
            }
            let tensor = cubin::tensor_loops(&loops);
            assert_eq!(is_native, !tensor.is_empty(), "{name} for {arch}: {loops:?}");
            for l in tensor {
                let cubin::Way { products, instructions, .. } = l.way;
                let slots = instructions as f64 / products as f64;
                let registers = needs.iter().map(|n| n.registers).max().expect("there are functions");
                println!(
                    "{arch} {}: {instructions} instructions for {products} products, {slots:.2} each; {registers} registers",
                    l.function
                );
                steps.insert((arch, l.function.clone()), instructions as f64);
                if l.function.ends_with("_fast") {
                    continue;
                }
                if slots > if products == SHORT_GROUP.0 { SHORT_GROUP.1 } else { SLOTS } {
                    failures.push(format!("for {arch}: {slots:.2} instructions a product: {l:?}"));
                }
            }
        }
    }
    for ((arch, name), fast) in &steps {
        let Some(exact) = name.strip_suffix("_fast") else { continue };
        let share = fast / steps[&(*arch, exact.to_string())];
        if share > FAST {
            failures.push(format!("for {arch}: {name} has {share:.2} of the instructions of {exact}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Most work of a case: emulating more takes too long.
const MOST_WORK: u64 = 500_000_000;
/// The largest error of native kernels that are not exact, normalised and squared: what sums of f32 leave.
const PAIRS: f64 = 4e-12;

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
    let mut cases: Vec<cases::Case> = [cases::all(), wide::all()].into_iter().flatten().collect();
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
            (functions.iter().position(|function| function == name).unwrap(), (pass.grid)(&node.args), 0)
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
    for (&i, got) in chosen.iter().zip(emulator.run(&calls)) {
        let case = &cases[i];
        if let Some(what) = verdict(case, false, &reference.run(i, case), &got) {
            failures.push(format!("{}: {what} ({})", case.op.name, case.args));
        }
    }
    cases.iter_mut().for_each(|case| case.limit = case.limit.min(PAIRS));
    for native in NATIVE {
        let number = |pass: &NativePass| functions.iter().position(|name| *name == pass.function).unwrap();
        let takes = |i: &usize| cases[*i].op.name == native.op && (native.takes)(&nodes[*i].args);
        let taken: Vec<usize> = chosen.iter().copied().filter(takes).collect();
        assert!(taken.len() >= 3, "{}: {} cases", native.name, taken.len());
        let call = |i: &usize| {
            let (case, args) = (&cases[*i], nodes[*i].args);
            let scratch = Buffer::Words(vec![0x7fc0_0000; (native.scratch)(&args)]);
            let launches = native.passes.iter().map(|pass| (number(pass), (pass.grid)(&args), pass.shared)).collect();
            Call { launches, args, buffers: case.data.iter().map(buffer).chain([scratch]).collect() }
        };
        let calls: Vec<Call> = taken.iter().map(call).collect();
        for (i, got) in taken.iter().zip(emulator.run(&calls)) {
            let (case, wanted) = (&cases[*i], reference.run(*i, &cases[*i]));
            let other_bits = || wanted.iter().zip(&got).any(|(a, b)| a != b).then(|| "other bits".to_string());
            let wrong = if native.exact { other_bits() } else { verdict(case, false, &wanted, &got) };
            failures.extend(wrong.map(|what| format!("{}: {what} ({})", native.name, case.args)));
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
    graphs_replay_what_ran(emulator, &p);
    let (ok, said) = run("eval parity --backend cuda --model run");
    assert!(ok && said.contains("agrees"), "{said}");
    let (ok, said) = run("train --config config.toml --backend cuda --set train.batch_size=60000");
    assert!(!ok && said.contains("Emulated is out of memory: use a smaller batch or model"), "{said}");
    let (ok, said) = run("train --config config.toml --backend cuda --adapter Voodoo");
    assert!(!ok && said.contains("--adapter Voodoo: there is 0: Emulated"), "{said}");
}

/// Training whose sections are graphs of the driver, and training where the driver refuses them at some point: the launches of
/// one are in the graphs of the other, with the same result.
fn graphs_replay_what_ran(emulator: &Emulator, p: &Project) {
    // The first of four micro-batches is launched, the second captured. Muon's products take most of the time.
    let config = "--config config.toml --set optim.muon_steps=1 --set train.grad_accum=2 --total-steps 2";
    let train = |run: &str, breaks: &str| {
        let words = format!("train {config} --backend cuda --adapter emul --checkpoint-dir {run}");
        let (mut command, counts) = (p.command(&words), p.path("counts"));
        command
            .env("LD_LIBRARY_PATH", emulator.libraries())
            .env("EMULATED_BREAKS", breaks)
            .env("EMULATED_COUNTS", &counts);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("device   cuda (Emulated"), "{said}");
        let counts = String::from_utf8(p.read("counts")).unwrap();
        let counts: Vec<u64> = counts.split(' ').map(|n| n.parse().unwrap()).collect();
        let [launches, graphs, within] = counts[..] else { panic!("{counts:?}") };
        (p.read(&format!("{run}/final/model.safetensors")), said, launches, graphs, within)
    };
    let (model, said, launches, graphs, within) = train("run", "");
    assert!(!said.contains("one by one") && graphs >= 4 && within > launches, "{said} {launches} {graphs} {within}");
    for part in ["begin", "launch", "instantiate"] {
        let (other, said, all, graphs, _) = train(part, part);
        assert!(said.contains("note: ops are launched one by one: Emulated: "), "{part}: {said}");
        assert!(graphs == 0 && all > launches, "{part}: {all} {launches}");
        assert!(model == other, "{part}: another model");
    }
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
