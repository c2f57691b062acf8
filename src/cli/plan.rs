//! `nanotern plan`.

use super::out::outln;
use nanotern::bench::{FileNeeds, Needs, Room, TrainingNeeds};
use nanotern::error::mib;
use nanotern::infer::EngineOptions;
use nanotern::model::Preset;
use nanotern::train::Config;
use nanotern::{Result, data};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct PlanArgs {
    #[arg(long, default_value = "tiny", help = super::config_help())]
    config: PathBuf,
    /// Sequences in a micro-batch.
    #[arg(long)]
    batch_size: Option<i64>,
    /// Tokens that a sequence may hold when decoding; by default up to 4096.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    context: usize,
    /// Sequences that decode side by side.
    #[arg(long, default_value_t = 1)]
    slots: usize,
    /// Any key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PlanArgs) -> Result<ExitCode> {
    let mut overrides = args.overrides.iter().map(|o| Config::parse_override(o)).collect::<Result<Vec<_>>>()?;
    overrides.extend(args.batch_size.map(|n| ("train.batch_size".to_string(), n.into())));
    let config = Config::load(Some(&args.config), &overrides)?;
    let preset = args.config.to_str().and_then(Preset::find).map_or(data::DEFAULT_VOCAB_SIZE, |preset| preset.vocab);
    let vocab = config.data.vocab_size.unwrap_or(preset);
    let options = EngineOptions { slots: args.slots, context: args.context };
    let needs = Needs::new(&config, vocab, options)?;
    let rooms = Room::all();
    if args.json {
        print_json(&needs, vocab, &rooms)?;
    } else {
        print(&config, &needs, vocab, options.context_of(&config.model)?, &rooms)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn state(needs: &TrainingNeeds) -> String {
    format!("{:?}", needs.state).to_lowercase()
}

/// Whether decoding fits on a device.
fn decodes(needs: &Needs, room: &Room) -> Option<bool> {
    let largest = needs.decoding.binding;
    room.fits(needs.decoding.bytes(), largest, largest)
}

/// Whether training fits on a device.
fn trains(needs: &TrainingNeeds, room: &Room) -> Option<bool> {
    room.fits(needs.bytes(), needs.buffer, needs.binding)
}

fn print(config: &Config, needs: &Needs, vocab: usize, context: usize, rooms: &[Room]) -> Result<()> {
    let million = |n: u64| n as f64 * 1e-6;
    let (train, seq) = (&config.train, config.seq_len());
    outln!(
        "model     {:.1} M parameters, {:.1} M of them active, with {vocab} tokens",
        million(needs.params as u64),
        million(needs.active as u64)
    )?;
    outln!(
        "training  {} sequences of {seq} tokens in a micro-batch, {:.2} MFLOP a token; MiB of",
        train.batch_size,
        million(needs.training_flops)
    )?;
    outln!("          state  layers      weights  gradients      state  activations       in all")?;
    for n in &needs.training {
        let [weights, gradients, optimizer, activations, all] =
            [n.weights, n.gradients, n.optimizer, n.activations, n.bytes()].map(mib);
        let layers = if n.recompute { "recomputed" } else { "kept" };
        outln!(
            "          {:5}  {layers:10} {weights:8.1}  {gradients:9.1}  {optimizer:9.1}  {activations:11.1}  {all:11.1}",
            state(n)
        )?;
    }
    let fits = |file: &&FileNeeds| file.bytes.is_ok();
    for FileNeeds { format, q8_0, bytes } in needs.files.iter().filter(fits) {
        let tables = if *q8_0 { " with q8_0 tables" } else { "" };
        outln!("file      {format}{tables}: {:.1} MiB without a tokenizer", mib(*bytes.as_ref().unwrap_or(&0)))?;
    }
    let others: Vec<_> = needs.files.iter().filter(|file| !file.q8_0 && !fits(file)).collect();
    if let [FileNeeds { bytes: Err(why), .. }, ..] = others[..] {
        let names: Vec<String> = others.iter().map(|file| file.format.to_string()).collect();
        outln!("file      {}: no, {why}", names.join(", "))?;
    }
    let d = &needs.decoding;
    let [weights, cache, all] = [d.weights, d.cache, d.bytes()].map(mib);
    outln!("decoding  a context of {context} tokens, {:.2} MFLOP a token", million(d.flops))?;
    outln!(
        "          {weights:.1} MiB of weights, {cache:.1} of keys and values, {all:.1} in all; a CPU copies the weights, tables as f32"
    )?;
    for room in rooms {
        let free = room.free.map_or("memory unknown".to_string(), |free| format!("{:.0} MiB free", mib(free).floor()));
        let said = |what: &str, fits: Option<bool>| match fits {
            Some(true) => Some(what.to_string()),
            Some(false) => None,
            None => Some(format!("{what} (if its memory suffices)")),
        };
        let training = needs.training.iter().filter_map(|n| {
            let how = if n.recompute { " recomputed" } else { "" };
            said(&format!("training {}{how}", state(n)), trains(n, room))
        });
        let all: Vec<String> = said("decoding", decodes(needs, room)).into_iter().chain(training).collect();
        let all = if all.is_empty() { "nothing".to_string() } else { all.join(", ") };
        outln!("device    {} ({free}) has room for {all}", room.device)?;
    }
    Ok(())
}

fn print_json(needs: &Needs, vocab: usize, rooms: &[Room]) -> Result<()> {
    let training = |n: &TrainingNeeds| {
        json!({
            "state": state(n), "recompute": n.recompute, "weight_bytes": n.weights, "gradient_bytes": n.gradients,
            "state_bytes": n.optimizer, "activation_bytes": n.activations, "other_bytes": n.other, "bytes": n.bytes(),
            "largest_buffer": n.buffer, "largest_binding": n.binding,
        })
    };
    let file = |f: &FileNeeds| json!({ "format": f.format.to_string(), "q8_0": f.q8_0, "bytes": f.bytes.as_ref().ok(), "error": f.bytes.as_ref().err() });
    let room = |room: &Room| {
        let training: Vec<_> = needs.training.iter().map(|n| trains(n, room)).collect();
        json!({ "device": room.device, "free_bytes": room.free, "decodes": decodes(needs, room), "trains": training })
    };
    let d = &needs.decoding;
    outln!(
        "{}",
        json!({
            "params": needs.params, "active_params": needs.active, "vocab": vocab,
            "training_flops_per_token": needs.training_flops,
            "training": needs.training.iter().map(training).collect::<Vec<_>>(),
            "files": needs.files.iter().map(file).collect::<Vec<_>>(),
            "decoding": {
                "weight_bytes": d.weights, "cache_bytes": d.cache, "other_bytes": d.other, "bytes": d.bytes(),
                "flops_per_token": d.flops, "largest_binding": d.binding,
            },
            "devices": rooms.iter().map(room).collect::<Vec<_>>(),
        })
    )
}
