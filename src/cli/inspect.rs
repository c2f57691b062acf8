//! `nanotern inspect`: shows the contents of a file, whose type follows from its first bytes, and checks it.

use super::model::local;
use super::out::outln;
use nanotern::checkpoint;
use nanotern::data::Tokens;
use nanotern::files::{self, Links, read_part};
use nanotern::formats::{
    ModelFile,
    gguf::{self, Gguf, read_front},
    hf::{self, Folder},
    mhc,
};
use nanotern::infer::ChatTemplate;
use nanotern::train::Config;
use nanotern::{Error, Result};
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct InspectArgs {
    /// A checkpoint directory, a folder as Hugging Face has them, a GGUF, .mhc, safetensors or token file, or hf:owner/name.
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The same content as lines for people and as an object for programs.
struct Report {
    lines: Vec<String>,
    json: Value,
}

pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let report = inspect(&local(&args.path)?)?;
    if args.json {
        outln!("{}", report.json)?;
    } else {
        report.lines.iter().try_for_each(|line| outln!("{line}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(path: &Path) -> Result<Report> {
    if hf::is_folder(path) {
        return folder(path);
    }
    if path.is_dir() {
        return checkpoint(path);
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let file = files::open(path, Links::Follow)?;
    let failed = |e| Error::io(path, e);
    let total = file.metadata().map_err(failed)?.len();
    match (extension, &read_part(&file, 0, total.min(9)).map_err(failed)?[..]) {
        (_, [b'G', b'G', b'U', b'F', ..]) | ("gguf", _) => gguf(path, &read_front(&file).map_err(failed)?, total),
        (_, [0x21, 0x43, 0x48, 0x6d, ..]) | ("mhc", _) => mixing(path),
        (_, start @ [_, _, _, _, _, _, _, _, b'{']) => safetensors(path, &file, start, total),
        ("safetensors", start) => safetensors(path, &file, start, total),
        ("bin", _) => tokens(path),
        _ => Err(Error::invalid(path, "is not a checkpoint, GGUF, .mhc, safetensors or token file (.bin)")),
    }
}

fn checkpoint(path: &Path) -> Result<Report> {
    let saved = checkpoint::load(path)?;
    let parameters: usize = saved.model.iter().map(|t| t.data.len()).sum();
    let shapes: serde_json::Map<_, _> = saved.model.iter().map(|t| (t.name.clone(), json!(t.shape))).collect();
    // A checkpoint may be intact although no run can go on from it, so both are reported.
    let config = Config::saved(&saved);
    let used = config.as_ref().map_or(parameters, |config| {
        let vocab = saved.model.iter().find(|t| t.name == "embed.weight").and_then(|t| t.shape.first()).copied();
        config.model.weights(vocab.unwrap_or(0)).iter().map(|weight| weight.active(&config.model)).sum()
    });
    let error = config.err().map(|e| e.to_string());
    let json = json!({ "kind": "checkpoint", "meta": saved.meta, "parameters": parameters, "active_parameters": used,
        "tensors": shapes, "error": error });
    let loss = |l: Option<f64>| l.map_or("not measured".to_string(), |l| format!("{l:.4} nats/token"));
    let meta = &saved.meta;
    let mut lines = vec![
        format!("checkpoint  {} (intact)", path.display()),
        format!("step        {} ({} tokens, {} skipped)", meta.step, meta.tokens, meta.skipped_steps),
        format!("loss        training {}, validation {}", loss(meta.train_loss), loss(meta.val_loss)),
        format!("resumes     {}", error.map_or("yes".to_string(), |e| format!("no: {e}"))),
        format!("parameters  {parameters}{}", active(parameters, used)),
        format!("tokenizer   {}", meta.tokenizer_hash.as_deref().unwrap_or("none")),
    ];
    for (section, keys) in meta.config.as_object().into_iter().flatten() {
        let keys = keys.as_object().into_iter().flatten().map(|(k, v)| format!("{k} = {v}"));
        lines.push(format!("[{section}]  {}", keys.collect::<Vec<_>>().join(", ")));
    }
    lines.extend(saved.model.iter().map(|t| format!("  {:32} {:?}", t.name, t.shape)));
    Ok(Report { lines, json })
}

/// A folder as Hugging Face has them.
fn folder(path: &Path) -> Result<Report> {
    // What it holds may be known although this program cannot serve it, so both are reported.
    let folder = Folder::open(path);
    let model = ModelFile::open(path).and_then(|model| model.tokenizer().map(|_| model));
    let what = folder.as_ref().map_or("Hugging Face".to_string(), |folder| format!("Hugging Face: {}", folder.what));
    let mut lines = vec![format!("folder      {} ({what})", path.display()), serves(&model)];
    let chats = model.as_ref().ok().map(chats);
    lines.extend(chats.iter().map(|chats| format!("chats       {chats}")));
    let ternary = folder.as_ref().ok().map(Folder::three_valued).transpose()?.filter(|(_, all)| *all > 0);
    if let Some((found, all)) = ternary {
        lines.push(format!("ternary     {found} of {all} dense matrices have at most three values"));
    }
    let tensors: Vec<Value> = folder
        .iter()
        .flat_map(Folder::tensors)
        .map(|(name, kind, shape)| {
            lines.push(format!("  {name:56} {kind:5} {shape:?}"));
            json!({ "name": name, "type": kind, "shape": shape })
        })
        .collect();
    let json = json!({ "kind": "folder", "what": what, "config": model.as_ref().ok().map(|m| json!(m.config)),
        "error": model.as_ref().err().map(|e| e.to_string()), "chats": chats, "three_valued": ternary.map(|t| t.0),
        "parameters": model.as_ref().ok().map(ModelFile::param_count), "tensors": tensors });
    Ok(Report { lines, json })
}

/// Whether a model can be served.
fn serves(model: &Result<ModelFile>) -> String {
    match model {
        Ok(model) => {
            let active = active(model.param_count(), model.active_params());
            format!("serves      yes: {} parameters{active}, vocabulary {}", model.param_count(), model.vocab)
        }
        Err(e) => format!("serves      no: {e}"),
    }
}

/// A GGUF file of `total` bytes that begins with `front`.
fn gguf(path: &Path, front: &[u8], total: u64) -> Result<Report> {
    let wrong = |what: String| Error::invalid(path, what);
    let file = Gguf::parse_front(front, total).map_err(wrong)?;
    let file = file.ok_or_else(|| wrong("was changed while it was read".to_string()))?;
    // The container may be valid although this program cannot serve the model, so both are reported.
    let model = ModelFile::open(path).and_then(|model| model.tokenizer().map(|_| model));
    let chats = model.as_ref().ok().map(chats);
    let mut lines =
        vec![format!("GGUF        {} (version {}, {} bytes)", path.display(), file.version, total), serves(&model)];
    lines.extend(chats.iter().map(|chats| format!("chats       {chats}")));
    lines.extend(file.keys.iter().map(|(k, v)| format!("  {k} = {v}")));
    let tensor = |t: &gguf::TensorInfo<'_>| {
        let (kind, offset) = (t.kind_name(), file.offset(t));
        json!({ "name": t.name, "type": kind, "dims": t.dims, "offset": offset, "bytes": t.bytes })
    };
    let tensors: Vec<Value> = file.tensors.iter().map(tensor).collect();
    for t in &file.tensors {
        lines.push(format!("  {:32} {:6} {:?} {} bytes", t.name, t.kind_name(), t.dims, t.bytes));
    }
    let keys: serde_json::Map<_, _> = file.keys.iter().map(|(k, v)| (k.to_string(), json!(v.to_string()))).collect();
    let config = model.as_ref().ok().map(|m| json!(m.config));
    let error = model.as_ref().err().map(|e| e.to_string());
    let json = json!({ "kind": "gguf", "version": file.version, "bytes": total, "config": config, "error": error, "chats": chats,
        "parameters": model.as_ref().ok().map(ModelFile::param_count),
        "active_parameters": model.as_ref().ok().map(ModelFile::active_params), "keys": keys, "tensors": tensors });
    Ok(Report { lines, json })
}

/// How many parameters a token uses, if not all.
fn active(all: usize, active: usize) -> String {
    if active < all { format!(", {active} of them active") } else { String::new() }
}

/// Whether a model that serves has a chat template that can be used, and what it refuses.
fn chats(model: &ModelFile) -> String {
    let template = model.tokenizer().and_then(|tokenizer| match tokenizer {
        Some(tokenizer) => ChatTemplate::new(&model.text, &tokenizer),
        None => Ok(None),
    });
    match template {
        Ok(None) => "no: the file has no chat template, or no tokenizer".to_string(),
        Ok(Some(template)) => {
            let refusals = template.refusals().iter().map(|(what, why)| format!("; not {what}: {why}"));
            format!("yes{}", refusals.collect::<String>())
        }
        Err(e) => format!("no: {e}"),
    }
}

fn mixing(path: &Path) -> Result<Report> {
    let file = mhc::MhcFile::open(path)?;
    let mut lines = vec![format!(
        "mHC         {} ({} sub-layers of {} streams, every H_res doubly stochastic)",
        path.display(),
        file.sublayers.len(),
        file.streams
    )];
    let mut json = Vec::new();
    for (i, params) in file.sublayers.iter().enumerate() {
        let h = mhc::h_res(params);
        let rows: Vec<&[f64]> = h.chunks(file.streams).collect();
        let text = rows.iter().map(|row| row.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" "));
        let name = format!("{}{}", ["attn", "ffn"][i % 2], i / 2);
        lines.push(format!("  {name:8} H_res  {}", text.collect::<Vec<_>>().join(" | ")));
        json.push(json!({ "name": name, "h_res": rows, "params": params }));
    }
    Ok(Report { lines, json: json!({ "kind": "mhc", "streams": file.streams, "sublayers": json }) })
}

/// A safetensors file of `total` bytes that begins with `start`: the length of its header.
fn safetensors(path: &Path, file: &File, start: &[u8], total: u64) -> Result<Report> {
    /// As in the crate `safetensors`.
    const MAX_HEADER: u64 = 100_000_000;
    let wrong = |what: String| Error::invalid(path, what);
    let length = start.first_chunk().map(|length| u64::from_le_bytes(*length));
    let length = length.filter(|length| *length <= MAX_HEADER && length + 8 <= total);
    let length = length.ok_or_else(|| wrong(format!("{total} bytes do not hold the header that it begins with")))?;
    let header = read_part(file, 8, length).map_err(|e| Error::io(path, e))?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| wrong(e.to_string()))?;
    let want = header.data_len() as u64;
    if want != total - 8 - length {
        let have = total - 8 - length;
        return Err(wrong(format!("has {have} bytes of values, but its header describes {want}")));
    }
    let tensors: BTreeMap<_, _> = header.tensors().into_iter().collect();
    let parameters: usize = tensors.values().map(|t| t.shape.iter().product::<usize>()).sum();
    let mut lines = vec![
        format!("safetensors {} ({total} bytes)", path.display()),
        format!("tensors     {} with {parameters} values", tensors.len()),
    ];
    lines.extend(tensors.iter().map(|(name, t)| format!("  {name:32} {:?} {:?}", t.dtype, t.shape)));
    let tensor = |(name, t): (&String, &&TensorInfo)| {
        let kind = format!("{:?}", t.dtype);
        json!({ "name": name, "type": kind, "shape": t.shape })
    };
    let tensors: Vec<Value> = tensors.iter().map(tensor).collect();
    Ok(Report { lines, json: json!({ "kind": "safetensors", "values": parameters, "tensors": tensors }) })
}

fn tokens(path: &Path) -> Result<Report> {
    let (tokens, meta) = Tokens::open(path)?;
    if let Some(meta) = &meta {
        tokens.check(meta.vocab_size, path)?;
    }
    let largest = tokens.largest()?;
    let mut lines = vec![format!("tokens      {} ({} ids, the largest is {largest})", path.display(), tokens.len())];
    lines.push(match &meta {
        Some(m) => format!(
            "described   vocabulary {}, tokenizer {}, {} bytes of text",
            m.vocab_size, m.tokenizer_hash, m.bytes
        ),
        None => "described   not: there is no .json beside it".to_string(),
    });
    Ok(Report { lines, json: json!({ "kind": "tokens", "tokens": tokens.len(), "largest": largest, "meta": meta }) })
}
