//! `nanotern bench`: every measurement prints JSON for programs, and a table for people.
#![cfg(feature = "cli")]

mod common;

use common::cli::Project;
use nanotern::bench::{SHAPES, Shape};
use nanotern::formats::{Format, ModelFile};
use nanotern::model::{ModelConfig, Weight};
use serde_json::Value;

/// A project with `model.gguf`, a model with a context of 32 tokens.
fn project() -> Project {
    let project = Project::new();
    project.train("run", "--total-steps 1");
    project.ok("export --checkpoint run --output model.gguf");
    project
}

const DEVICE: &str = "--backend cpu --threads 2 --cpu-level scalar";

fn json(project: &Project, words: &str) -> Value {
    let text = project.ok(&format!("bench {words} {DEVICE} --json"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words}: {e}: {text}"))
}

/// Checks the common fields of prefill and decode. Each of `steps` reads every weight once.
fn check_inference(report: &Value, name: &str, tokens: u64, steps: u64) {
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert_eq!((&report["bench"], &report["tokens"]), (&name.into(), &tokens.into()));
    assert_eq!((&report["level"], &report["threads"]), (&"scalar".into(), &2.into()));
    assert!(report["device"].as_str().unwrap().contains("scalar, 2 threads"), "{report}");
    assert_eq!(report["seconds"].as_array().unwrap().len(), 3);
    let (rate, least, most) = (number("tok_per_s"), number("tok_per_s_min"), number("tok_per_s_max"));
    assert!(0.0 < least && least <= rate && rate <= most, "{report}");
    let mut seconds: Vec<f64> = report["seconds"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
    seconds.sort_by(f64::total_cmp);
    let near = |key: &str, value: f64| assert!((number(key) / value - 1.0).abs() < 1e-9, "{key} in {report}");
    near("tok_per_s", tokens as f64 / seconds[1]);
    near("seconds_per_token", seconds[1] / tokens as f64);
    // q, k, v, o, then gate, up, down of the project's model. Its group size is 32, its vocabulary has 262 tokens.
    let weights = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 64;
    assert_eq!(report["ternary_weights"], weights);
    near("ternary_ops_per_s", 2.0 * f64::from(weights) * rate);
    // A row of 64 codes is padded to 128. Scales and norms are f32, the table is f16.
    let bytes = weights / 4 * 2 + 4 * (weights / 32) + 4 * (4 * 64 + 64) + 2 * 262 * 64;
    assert_eq!(report["weight_bytes"], steps * bytes as u64);
    near("weight_bytes_per_s", number("weight_bytes") / seconds[1]);
    assert!(number("buffer_bytes") > f64::from(bytes));
}

#[test]
fn kernels_are_measured_and_one_layout_is_chosen() {
    let project = Project::new();
    let text = project.ok("bench kernels --shape 32x128 --shape 64x256 --rows 3 --json");
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for level in nanotern::backend::Level::available().into_iter().skip(1) {
        for outs in [32, 64] {
            let of = |l: &&Value| l["level"] == level.to_string() && l["outs"] == outs;
            let lines: Vec<&Value> = lines.iter().filter(of).collect();
            assert!(lines.iter().all(|l| l["gops"].as_f64().unwrap() > 0.0 && l["roofline_share"].is_f64()), "{text}");
            let chosen: Vec<&&Value> = lines.iter().filter(|l| l["chosen"] == true).collect();
            assert!(chosen.len() == 2 && chosen[0]["layout"] == chosen[1]["layout"], "{text}");
            assert_eq!(lines.iter().filter(|l| l["kernel"] == "gemm" && l["rows"] == 3).count(), 1);
        }
    }
    for bad in ["--shape 32", "--shape 32x100", "--group 0", "--rows 0", "--shape 99999999x128", "--cpu-level sse9"] {
        assert_eq!(project.nanotern(&format!("bench kernels {bad}")).code, Some(2), "{bad}");
    }
}

#[test]
fn the_layout_of_weights_can_be_forced() {
    let project = project();
    let decode = "bench decode --model model.gguf --tokens 2 --prompt 2 --repeats 1 --json --backend cpu";
    let best = nanotern::backend::Level::detect();
    for layout in cpu_kernels::matrix::ternary_gemv::Layout::ALL.into_iter().filter(|l| l.runs_at(best)) {
        project.ok(&format!("{decode} --cpu-layout {layout}"));
    }
    for (words, part) in [
        ("--cpu-level scalar --cpu-layout rows16", "no kernel for it at level scalar"),
        ("--cpu-layout rows9", "unknown layout"),
    ] {
        let ended = project.nanotern(&format!("{decode} {words}"));
        assert!(ended.code == Some(2) && ended.stderr.contains(part), "{words}: {}", ended.stderr);
    }
}

#[test]
fn prefill_and_decode_report_what_they_measured() {
    let project = project();
    let report = json(&project, "prefill --model model.gguf --tokens 20 --repeats 3");
    check_inference(&report, "prefill", 20, 1);
    let report = json(&project, "decode --model model.gguf --tokens 10 --prompt 5 --repeats 3");
    check_inference(&report, "decode", 10, 10);
    assert_eq!(report["prompt"], 5);
    let text = project.ok(&format!("bench decode --model run --tokens 4 --prompt 4 {DEVICE}"));
    for word in ["scalar, 2 threads", "tok/s (median of 5;", "GOPS over 0.0 M", "GB/s", "MiB of buffers"] {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[test]
fn profiles_name_the_ops() {
    let project = project();
    for (words, least, op) in [
        ("decode --model model.gguf --prompt 4 --repeats 2", 20, "attention_cached"),
        ("train-step --config config.toml --steps 1", 60, "muon_update"),
    ] {
        let report = json(&project, &format!("{words} --profile"));
        assert_eq!(report["clock"], "the processor's clock");
        let ops = report["ops"].as_array().unwrap();
        let calls: u64 = ops.iter().map(|o| o["calls"].as_u64().unwrap()).sum();
        let found = ops.iter().find(|o| o["op"] == op).unwrap_or_else(|| panic!("{op} in {report}"));
        assert!(calls > least && found["seconds"].as_f64().unwrap() > 0.0, "{report}");
        assert!(ops.iter().any(|o| o["op"] == "ternary_matmul" && o["flops"].as_u64().unwrap() > 0));
        let seconds: Vec<f64> = ops.iter().map(|o| o["seconds"].as_f64().unwrap()).collect();
        assert!(seconds.is_sorted_by(|a, b| a >= b), "the slowest come first: {report}");
        assert!(ops.iter().all(|o| o["bytes"].as_u64().unwrap() > 0), "every op reads or writes something: {report}");
        let table = project.ok(&format!("bench {words} {DEVICE} --profile"));
        assert!(table.lines().next().unwrap().contains("calls") && table.contains(op), "{table}");
    }
}

#[test]
fn train_steps_are_reported() {
    let project = Project::new();
    let report = json(&project, "train-step --config config.toml --steps 3");
    assert_eq!((&report["tokens_per_step"], report["seconds"].as_array().unwrap().len()), (&64.into(), 3));
    for key in ["tok_per_s", "mfu", "peak_flops_per_s", "buffer_bytes"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {report}");
    }
}

/// Every number in a report is finite and, unless its name is in `zero`, above zero.
fn check_numbers(value: &Value, name: &str, zero: &[&str]) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| check_numbers(value, name, zero)),
        Value::Array(values) => values.iter().for_each(|value| check_numbers(value, name, zero)),
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            assert!(number.is_finite() && (number > 0.0 || zero.contains(&name)), "{name}: {number}");
        }
        Value::Null => panic!("{name} is null"),
        Value::String(_) | Value::Bool(_) => {}
    }
}

#[test]
fn a_gpu_is_measured_beside_its_limits() {
    if !common::has_adapter() {
        return;
    }
    let project = Project::new();
    let ended = project.nanotern("bench gpu --quick --json");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
    check_numbers(&report, "report", &["flops"]);
    let adapter = nanotern::backend::Wgpu::open(None).unwrap();
    assert_eq!(report["device"]["description"], adapter.describe());
    assert_eq!(report["device"]["software"], !adapter.info().is_gpu());
    assert_eq!(report["device"]["limits"]["max_buffer_size"], adapter.info().max_buffer);
    assert_eq!(report["parity"]["agrees"], true, "{report}");
    let ops = &report["ops"][0];
    assert_eq!((&ops["name"], &ops["tokens"]), (&"self-test".into(), &32.into()));
    let ops = ops["ops"].as_array().unwrap();
    let sum = |key: &str| ops.iter().map(|op| op[key].as_f64().unwrap()).sum::<f64>();
    assert!(ops.len() > 30 && (sum("share") - 1.0).abs() < 1e-9, "{report}");
    assert!(ops.is_sorted_by(|a, b| a["seconds"].as_f64() >= b["seconds"].as_f64()), "the slowest come first");
    assert!(ops.iter().any(|op| op["op"] == "ternary_matmul" && op["flops"].as_u64() > Some(0)), "{report}");
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or_else(|| panic!("{key} in {value}"));
    for op in ops {
        let by_bytes = number(op, "bytes") / number(&report["probes"], "bytes_per_s");
        let by_flops = number(op, "flops") / number(&report["probes"], "flops_per_s");
        assert!((number(op, "roofline_seconds") / by_bytes.max(by_flops) - 1.0).abs() < 1e-9, "{op}");
    }
    let training = &report["training"][0];
    assert_eq!(training["seconds"].as_array().unwrap().len(), 5);
    assert_eq!(training["tokens"], 32);
    for what in ["prefill", "decode"] {
        let counts: Vec<u64> =
            report[what].as_array().unwrap().iter().map(|s| s["sequences"].as_u64().unwrap()).collect();
        assert_eq!(counts, [1, 8, 32]);
        assert!(report[what].as_array().unwrap().iter().all(|s| s["tok_per_s"].is_f64()), "{report}");
    }
    for said in ["at most 30 minutes", "GB/s", "training steps of self-test", "32 sequences of self-test", "done"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
}

#[test]
fn impossible_sizes_name_the_limit() {
    let project = project();
    for (words, part) in [
        ("prefill --model model.gguf --tokens 0", "0 prompt tokens: the context allows between 1 and 32"),
        ("prefill --model model.gguf --tokens 33", "33 prompt tokens: the context allows between 1 and 32"),
        ("decode --model model.gguf --prompt 0", "0 prompt tokens: the context allows between 1 and 30"),
        ("decode --model model.gguf --prompt 31", "31 prompt tokens: the context allows between 1 and 30"),
        ("decode --model model.gguf --prompt 16", "64 tokens after a prompt of 16: the context allows"),
        ("decode --model model.gguf --tokens 0", "0 tokens after a prompt of 16: the context allows"),
        ("decode --model model.gguf --tokens 2 --repeats 0", "0 repeats: between 1 and 100000 are possible"),
        ("gpu --minutes 0", "--minutes 0: at least 1 is possible"),
        ("gpu --backend cpu", "possible values: wgpu, cuda"),
        ("prefill --shape 19m", "choose 18m, 125m, 220m, 520m-moe, 560m, 2b"),
        ("prefill --shape 18m --model model.gguf", "cannot be used with"),
    ] {
        let ended = project.nanotern(&format!("bench {words}"));
        assert!(ended.code == Some(2) && ended.stderr.contains(part), "{words}: {}", ended.stderr);
    }
    // The longest possible ones.
    project.ok(&format!("bench prefill --model model.gguf --tokens 32 --repeats 1 {DEVICE}"));
    project.ok(&format!("bench decode --model model.gguf --prompt 30 --tokens 1 --repeats 1 {DEVICE}"));
}

/// A named shape gives a valid model with layers of the named size, which can be saved.
#[test]
fn shapes_are_models() {
    for shape in &SHAPES {
        shape.config().check().unwrap();
        assert!(std::ptr::eq(Shape::find(shape.name).unwrap(), shape));
    }
    let shape = Shape::find("18m").unwrap();
    let ModelConfig { dim, layers, ffn, .. } = shape.config();
    let model = shape.model();
    assert_eq!(model.param_count(), layers * (4 * dim * dim + 3 * dim * ffn + 3 * dim + ffn) + dim + 50_257 * dim);
    // As many parameters are active as a dense model has, but for the routers and the narrower norms.
    let [dense, experts] = ["220m", "520m-moe"].map(|name| {
        let (shape, config) = (Shape::find(name).unwrap(), Shape::find(name).unwrap().config());
        let weights = config.weights(shape.vocab);
        let sum = |of: &dyn Fn(&Weight) -> usize| weights.iter().map(of).sum::<usize>();
        [sum(&|w| w.elements()), sum(&|w| w.active(&config))]
    });
    assert_eq!(dense[0], dense[1]);
    assert!((dense[1]..dense[1] + 200_000).contains(&experts[1]) && experts[0] > 520_000_000, "{dense:?}, {experts:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    model.save_gguf(&path, Format::Tq2_0).unwrap();
    assert_eq!(ModelFile::open(&path).unwrap(), model);
}
