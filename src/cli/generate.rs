//! `nanotern generate` and `nanotern chat`.

use super::DeviceArgs;
use super::model::ModelArgs;
use nanotern::infer::{ChatTemplate, Engine, EngineOptions, Event, FinishReason, Message, Sampling, TextStream};
use nanotern::tokenizer::Tokenizer;
use nanotern::train::Signals;
use nanotern::{Error, Result};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How tokens are drawn.
#[derive(clap::Args)]
pub struct SamplingArgs {
    /// 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Only the k likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Only the likeliest tokens that hold this share of the probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Only tokens at least this likely, relative to the likeliest.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Divides the logits of tokens that were there before; 1 for none.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// The same seed draws the same text; another one each time unless given.
    #[arg(long)]
    seed: Option<u32>,
    /// Tokens to draw at most.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Text that ends the output; may be repeated.
    #[arg(long)]
    stop: Vec<String>,
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            logit_bias: Vec::new(),
            seed: self.seed.unwrap_or_else(now),
            max_tokens: self.max_tokens,
        }
    }
}

#[derive(clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Text to go on from; standard input unless given.
    #[arg(long)]
    prompt: Option<String>,
}

#[derive(clap::Args)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// What the model is told before the conversation.
    #[arg(long)]
    system: Option<String>,
}

/// An engine with one slot, and what its text needs.
struct Session {
    engine: Engine,
    tokenizer: Tokenizer,
    signals: Signals,
}

impl Session {
    fn open(model: &ModelArgs, device: &DeviceArgs) -> Result<(Session, Option<String>)> {
        let (file, path) = model.open()?;
        let tokenizer =
            file.tokenizer()?.ok_or_else(|| Error::usage("the model has no tokenizer: give it one by --tokenizer"))?;
        let backend = device.open()?;
        let engine = Engine::new(&file, &backend, EngineOptions { slots: 1, context: 0 })?;
        let (ops, mib) = (engine.dispatches_per_token(), engine.device_bytes() as f64 / f64::from(1 << 20));
        let device = device.describe(&backend);
        eprintln!("{} on {device}, {ops} ops a token, {mib:.1} MiB of buffers", path.display());
        Ok((Session { engine, tokenizer, signals: Signals::install() }, file.text.chat_template))
    }

    /// What of a conversation leaves room to answer, and its tokens: the oldest turns are dropped, and that is said.
    fn fit(&self, template: &ChatTemplate, all: &[Message], args: &SamplingArgs) -> Result<(Vec<Message>, Vec<u32>)> {
        let context = self.engine.context();
        let room = args.max_tokens.min(context / 4);
        let first = all.iter().take_while(|m| m.role == "system").count();
        let mut kept = all.to_vec();
        loop {
            let ids = template.encode(&kept, &self.tokenizer)?;
            // A turn is a question and its answer; the last question stays, and is refused if it alone is too long.
            if ids.len() + room > context && kept.len() > first + 2 {
                kept.drain(first..first + 2);
                continue;
            }
            let dropped = (all.len() - kept.len()) / 2;
            if dropped > 0 && ids.len() < context {
                eprintln!(
                    "[the context of {context} tokens is full: the oldest turns are forgotten, {dropped} of them]"
                );
            }
            return Ok((kept, ids));
        }
    }

    /// Streams what follows `prompt` to standard output; returns it, and whether a signal cut it off.
    fn stream(&mut self, prompt: &[u32], args: &SamplingArgs) -> Result<(String, bool)> {
        let start = Instant::now();
        let cancel = Arc::new(AtomicBool::new(false));
        self.engine.start(prompt, args.sampling(), cancel.clone())?;
        let mut text = TextStream::new(self.tokenizer.clone(), args.stop.clone());
        let (mut all, mut tokens, mut first) = (String::new(), 0u32, None);
        let mut out = std::io::stdout();
        let mut show = |piece: &str| {
            all.push_str(piece);
            // A reader that has gone ends the process by SIGPIPE.
            let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        };
        let reason = 'running: loop {
            if self.signals.pending().is_some() {
                cancel.store(true, Ordering::Relaxed);
            }
            for (_, event) in pollster::block_on(self.engine.step())? {
                match event {
                    Event::Token(token) => {
                        first.get_or_insert_with(|| start.elapsed());
                        tokens += 1;
                        let piece = text.push(token);
                        show(&piece.text);
                        if piece.stopped {
                            cancel.store(true, Ordering::Relaxed);
                        }
                    }
                    Event::Finished(reason) => break 'running reason,
                }
            }
        };
        show(&text.finish().text);
        println!();
        let seconds = start.elapsed().as_secs_f64();
        let ended = match reason {
            FinishReason::Context => ", the context is full",
            FinishReason::Length => ", as many as asked for",
            _ => "",
        };
        let first = 1e3 * first.unwrap_or_default().as_secs_f64();
        eprintln!("[{tokens} tokens{ended}; {:.0} tok/s, first after {first:.0} ms]", f64::from(tokens) / seconds);
        Ok((all, self.signals.pending().is_some()))
    }
}

pub fn generate(args: &GenerateArgs) -> Result<ExitCode> {
    let (mut session, _) = Session::open(&args.model, &args.device)?;
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| Error::io("standard input".as_ref(), e))?;
            text
        }
    };
    print!("{prompt}");
    let ids = session.tokenizer.encode(&prompt);
    let (_, cut) = session.stream(&ids, &args.sampling)?;
    Ok(ended(&session, cut))
}

pub fn chat(args: &ChatArgs) -> Result<ExitCode> {
    let (mut session, template) = Session::open(&args.model, &args.device)?;
    let none =
        "the model has no chat template (key \"tokenizer.chat_template\"): `nanotern generate` goes on from texts";
    let template = template.ok_or_else(|| Error::usage(none))?;
    let template = ChatTemplate::new(&template)?;
    let system = args.system.iter().map(|content| Message { role: "system".into(), content: content.clone() });
    let mut messages: Vec<Message> = system.collect();
    let terminal = std::io::stdin().is_terminal();
    let lines = Prompted { terminal };
    for line in lines {
        let content = line.map_err(|e| Error::io("standard input".as_ref(), e))?;
        if content.trim().is_empty() {
            continue;
        }
        messages.push(Message { role: "user".into(), content });
        let turn = session.fit(&template, &messages, &args.sampling).and_then(|(kept, ids)| {
            let (content, cut) = session.stream(&ids, &args.sampling)?;
            Ok((kept, content, cut))
        });
        match turn {
            Ok((_, _, true)) => return Ok(ended(&session, true)),
            Ok((kept, content, false)) => {
                messages = kept;
                messages.push(Message { role: "assistant".into(), content });
            }
            // The conversation goes on without a turn that cannot be.
            Err(error) if terminal => {
                eprintln!("error: {error}");
                messages.pop();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ended(&session, false))
}

fn ended(session: &Session, cut: bool) -> ExitCode {
    match session.signals.pending() {
        Some(signal) if cut => ExitCode::from(Signals::exit_code(signal) as u8),
        _ => ExitCode::SUCCESS,
    }
}

/// Lines of standard input, asked for on a terminal.
struct Prompted {
    terminal: bool,
}

impl Iterator for Prompted {
    type Item = std::io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.terminal {
            eprint!("> ");
        }
        std::io::stdin().lock().lines().next()
    }
}
