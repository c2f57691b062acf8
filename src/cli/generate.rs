//! `nanotern generate` and `nanotern chat`.

use super::model::{ContextArgs, ModelArgs};
use super::out::{self, outln};
use super::{DeviceArgs, say};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches};
use nanotern::error::mib;
use nanotern::formats::TextConfig;
use nanotern::infer::{
    ChatTemplate, Drafts, Engine, EngineOptions, Event, FinishReason, Kind, Message, PARAMETERS, Passes, Sampling,
    TextStream,
};
use nanotern::tokenizer::Tokenizer;
use nanotern::{Error, Result};
use serde_json::Value;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Most bytes of a prompt on standard input, and of a line of a chat.
const LONGEST_INPUT: u64 = 16 << 20;

/// How tokens are drawn: a flag for each row of the table of sampling parameters.
pub struct SamplingArgs {
    sampling: Sampling,
    seeded: bool,
}

impl SamplingArgs {
    /// The parameters, with another seed each time unless one was given.
    fn sampling(&self) -> Sampling {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        Sampling { seed: if self.seeded { self.sampling.seed } else { now() }, ..self.sampling.clone() }
    }
}

impl clap::Args for SamplingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(PARAMETERS.iter().map(|row| {
            let value = if row.kind == Kind::Bias { "JSON".into() } else { row.name.to_uppercase() };
            let many = if row.kind == Kind::Strings { ArgAction::Append } else { ArgAction::Set };
            let flag = Arg::new(row.name).long(row.name.replace('_', "-")).value_name(value).action(many);
            let flag = flag.help(row.help.trim_end_matches('.')).allow_negative_numbers(true);
            flag.default_values(row.default.map(|v| v.to_string())).value_parser(|text: &str| {
                let value = json_of(row.kind, text);
                Sampling::default().set(row.name, &value).map(|_| value)
            })
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SamplingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut sampling = Sampling::default();
        for row in &PARAMETERS {
            let Some(mut values) = matches.get_many::<Value>(row.name) else { continue };
            let value = match row.kind {
                Kind::Strings => values.cloned().collect(),
                _ => values.next().expect("clap gives at least one value").clone(),
            };
            sampling.set(row.name, &value).map_err(|e| clap::Error::raw(ErrorKind::ValueValidation, e))?;
        }
        Ok(SamplingArgs { sampling, seeded: matches.contains_id("seed") })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Converts the text of a flag for the table. A text that is not a value of that kind stays text, which the table refuses.
fn json_of(kind: Kind, text: &str) -> Value {
    let json = || serde_json::from_str(text).ok();
    let value = match kind {
        Kind::Number => text.parse().ok().filter(|v: &f64| v.is_finite()).map(Value::from),
        Kind::Integer => text.parse::<i64>().ok().map(Value::from).or_else(json),
        Kind::Bias => json(),
        Kind::Strings => None,
    };
    value.unwrap_or_else(|| text.into())
}

#[derive(clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Text to go on from; standard input unless given.
    #[arg(long)]
    prompt: Option<String>,
    /// Read the spelling of special tokens in the prompt, such as <|user|>, as these tokens; without this it is text.
    #[arg(long)]
    special_tokens: bool,
}

#[derive(clap::Args)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
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
}

impl Session {
    fn open(model: &ModelArgs, context: &ContextArgs, device: &DeviceArgs) -> Result<(Session, TextConfig)> {
        let (mut file, path) = model.open()?;
        let tokenizer =
            file.tokenizer()?.ok_or_else(|| Error::usage("the model has no tokenizer: give it one by --tokenizer"))?;
        let options = EngineOptions { slots: 1, context: context.limit(&mut file)? };
        let (backend, device) = device.open_for(&file)?;
        let engine = Engine::new(&file, &backend, options)?;
        let (ops, mib) = (engine.dispatches_per_token(), mib(engine.device_bytes() as u64));
        say(&format!("{} on {device}, {ops} ops a token, {mib:.1} MiB of buffers", path.display()));
        Ok((Session { engine, tokenizer }, file.text))
    }

    /// What of a conversation leaves room to answer, and its tokens: the oldest turns are dropped, and that is said.
    fn fit(&self, template: &ChatTemplate, all: &[Message], args: &SamplingArgs) -> Result<(Vec<Message>, Vec<u32>)> {
        let context = self.engine.context();
        let room = args.sampling.max_tokens.min(context / 4);
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
                say(&format!(
                    "[the context of {context} tokens is full: the oldest turns are forgotten, {dropped} of them]"
                ));
            }
            return Ok((kept, ids));
        }
    }

    /// A decoder of an answer.
    fn text(&self, args: &SamplingArgs) -> TextStream {
        TextStream::new(self.tokenizer.clone(), args.sampling.stop.clone())
    }

    /// Streams what follows `prompt` to standard output, and returns it. A signal ends the process: there is nothing to save.
    fn stream(&mut self, prompt: &[u32], mut text: TextStream, args: &SamplingArgs) -> Result<String> {
        let start = Instant::now();
        let cancel = Arc::new(AtomicBool::new(false));
        self.engine.start(prompt, args.sampling(), cancel.clone())?;
        let (mut all, mut tokens, mut first) = (String::new(), 0u32, None);
        let mut show = |piece: &str| {
            all.push_str(piece);
            out::write(format_args!("{piece}"))
        };
        let reason = 'running: loop {
            for (_, event) in pollster::block_on(self.engine.step())? {
                match event {
                    Event::Token(token) => {
                        first.get_or_insert_with(|| start.elapsed());
                        tokens += 1;
                        let piece = text.push(token);
                        show(&piece.text)?;
                        if piece.stopped {
                            cancel.store(true, Ordering::Relaxed);
                        }
                    }
                    Event::Finished(reason) => break 'running reason,
                    Event::Failed(why) => return Err(Error::Model(why)),
                }
            }
        };
        show(&text.finish().text)?;
        outln!("")?;
        let seconds = start.elapsed().as_secs_f64();
        let ended = match reason {
            FinishReason::Context => ", the context is full",
            FinishReason::Length => ", as many as asked for",
            _ => "",
        };
        let first = 1e3 * first.unwrap_or_default().as_secs_f64();
        let rate = f64::from(tokens) / seconds;
        let (drafts, passes) = (drafted(self.engine.drafts()), passed(self.engine.passes()));
        say(&format!("[{tokens} tokens{ended}; {rate:.0} tok/s, first after {first:.0} ms{drafts}{passes}]"));
        Ok(all)
    }
}

/// What is to be said of drafts.
fn drafted(drafts: Option<Drafts>) -> String {
    drafts.map_or(String::new(), |drafts| format!("; drafts make it {:.2} tokens a step", drafts.tokens_a_step()))
}

/// What is to be said of passes that tokens did not take.
fn passed(passes: Option<Passes>) -> String {
    passes.map_or(String::new(), |passes| format!("; {:.2} passes a token", passes.mean()))
}

pub fn generate(args: &GenerateArgs) -> Result<ExitCode> {
    let (mut session, text) = Session::open(&args.model, &args.context, &args.device)?;
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => read_prompt()?,
    };
    out::write(format_args!("{prompt}"))?;
    let ids = text.prompt(match args.special_tokens {
        true => session.tokenizer.encode_with_specials(&prompt)?,
        false => session.tokenizer.encode(&prompt)?,
    });
    let stream = session.text(&args.sampling).after(&ids);
    session.stream(&ids, stream, &args.sampling)?;
    Ok(ExitCode::SUCCESS)
}

/// All of standard input.
fn read_prompt() -> Result<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("standard input".as_ref(), e))?;
    text_of(bytes, "standard input")
}

/// The text of what was read, unless that is too long.
fn text_of(bytes: Vec<u8>, what: &str) -> Result<String> {
    if bytes.len() as u64 > LONGEST_INPUT {
        return Err(Error::usage(format!("{what} is longer than {} MiB", LONGEST_INPUT >> 20)));
    }
    String::from_utf8(bytes)
        .map_err(|e| Error::usage(format!("{what} is not UTF-8 from byte {} on", e.utf8_error().valid_up_to())))
}

pub fn chat(args: &ChatArgs) -> Result<ExitCode> {
    let (mut session, text) = Session::open(&args.model, &args.context, &args.device)?;
    let none =
        "the model has no chat template (key \"tokenizer.chat_template\"): `nanotern generate` goes on from texts";
    let template = ChatTemplate::new(&text, &session.tokenizer)?.ok_or_else(|| Error::usage(none))?;
    let system = args.system.iter().map(|content| Message { role: "system".into(), content: content.clone() });
    let mut messages: Vec<Message> = system.collect();
    let lines = Prompted { terminal: std::io::stdin().is_terminal() };
    for line in lines {
        let line = line.map_err(|e| Error::io("standard input".as_ref(), e))?;
        let turn = match text_of(line, "the line") {
            Ok(content) if content.trim().is_empty() => continue,
            Ok(content) => {
                let content = content.trim_end_matches(['\r', '\n']).to_string();
                messages.push(Message { role: "user".into(), content });
                answer(&mut session, &template, &messages, &args.sampling)
            }
            Err(error) => Err(error),
        };
        match turn {
            Ok(kept) => messages = kept,
            // The conversation goes on without a turn that cannot be.
            Err(error @ Error::Usage(_)) => {
                say(&format!("error: {error}"));
                messages.pop_if(|m| m.role == "user");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers the last of `messages`; returns what of them was kept, and the answer.
fn answer(
    session: &mut Session,
    template: &ChatTemplate,
    messages: &[Message],
    args: &SamplingArgs,
) -> Result<Vec<Message>> {
    let (mut kept, ids) = session.fit(template, messages, args)?;
    let content = session.stream(&ids, session.text(args), args)?;
    kept.push(Message { role: "assistant".into(), content });
    Ok(kept)
}

/// Lines of standard input, asked for on a terminal.
struct Prompted {
    terminal: bool,
}

impl Iterator for Prompted {
    type Item = std::io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.terminal {
            let _ = write!(std::io::stderr(), "> ");
        }
        read_line(&mut std::io::stdin().lock()).transpose()
    }
}

/// The next line. Of one that is too long, only the start is kept.
fn read_line(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = (&mut *input).take(LONGEST_INPUT + 1).read_until(b'\n', &mut line)?;
    if read as u64 > LONGEST_INPUT && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
    }
    Ok((read > 0).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};
    use serde_json::json;

    fn parse(flags: &[&str]) -> Result<SamplingArgs, clap::Error> {
        let command = SamplingArgs::augment_args(clap::Command::new("x").no_binary_name(true));
        SamplingArgs::from_arg_matches(&command.try_get_matches_from(flags)?)
    }

    #[test]
    fn every_sampling_parameter_has_a_flag() {
        let (mut flags, mut want) = (Vec::new(), Sampling::default());
        for row in &PARAMETERS {
            let value = &match row.kind {
                Kind::Number => json!(row.limits.unwrap().1),
                Kind::Integer => json!(row.limits.map_or(-9, |(_, high)| high as i64)),
                Kind::Bias => json!({"7": -3}),
                Kind::Strings => json!(["a", "b"]),
            };
            let before = want.clone();
            assert!(want.set(row.name, value).unwrap() && want != before, "{}", row.name);
            let texts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
            flags.extend(texts.iter().flat_map(|v| [format!("--{}", row.name.replace('_', "-")), text(v)]));
        }
        let parsed = parse(&flags.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert_eq!(parsed.sampling(), want);
        assert_eq!(parse(&[]).unwrap().sampling, Sampling::default());
        for flag in [["--temperature", "nan"], ["--temperature", "inf"], ["--top-k", "x"], ["--logit-bias", "{"]] {
            let error = parse(&flag).err().unwrap().to_string();
            assert!(error.starts_with("error: ") && error.contains(&format!("= {:?}: must be", flag[1])), "{error}");
        }
        assert_eq!(parse(&["--temperature", ".5", "--top-k", "007"]).unwrap().sampling.temperature, 0.5);
    }
}
