//! Any chat template.

use super::budget::{self, exceeded};
use super::guard::{Guard, Marks, Parts};
use super::jinja::{self, Raised};
use super::{Message, known_role};
use crate::formats::{TextConfig, begin_with};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// What a template is tried with when a model opens: a name for people, and the roles of the messages.
const TRIALS: [(&str, &[&str]); 3] = [
    ("a question", &["user"]),
    ("a system message and a question", &["system", "user"]),
    ("a second question", &["user", "assistant", "user"]),
];

/// Characters of which one marks a client's texts: noncharacters, then those for private use.
const MARKERS: [RangeInclusive<char>; 2] = ['\u{fdd0}'..='\u{fdef}', '\u{e000}'..='\u{f8ff}'];

/// Largest number of characters of an error that a template wrote.
const LONGEST_REFUSAL: usize = 500;

/// A conversation and all else that a template may read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    messages: Vec<Value>,
    /// Variables of the template by name, such as `tools`.
    others: Vec<(String, Value)>,
}

impl From<&[Message]> for Conversation {
    fn from(messages: &[Message]) -> Conversation {
        let mut conversation = Conversation::default();
        messages.iter().for_each(|m| conversation.push(&m.role, [("content", Value::from(&m.content))]));
        conversation
    }
}

impl Conversation {
    /// Reads a JSON object. `messages` is a list of objects that have a role; fields of a message that are null count as absent.
    /// The template sees every other field by its name: `tools`, `documents`, `enable_thinking`.
    ///
    /// # Errors
    /// When the text is no such object.
    pub fn from_json(json: &str) -> Result<Conversation> {
        let object: Value = serde_json::from_str(json).map_err(|e| Error::usage(format!("the conversation: {e}")))?;
        let bad = || Error::usage("the conversation: messages must be a list of objects with a role");
        if object.kind() != ValueKind::Map {
            return Err(bad());
        }
        let fields = |value: &Value| pairs(value).into_iter().map(|(k, v)| (k.to_string(), v));
        let mut conversation = Conversation::default();
        for (name, value) in fields(&object) {
            if name != "messages" {
                conversation.others.push((name, value));
                continue;
            }
            for message in value.try_iter().map_err(|_| bad())? {
                let kept: Vec<_> = fields(&message).filter(|(_, v)| !v.is_none()).collect();
                if !kept.iter().any(|(name, role)| name == "role" && role.as_str().is_some()) {
                    return Err(bad());
                }
                conversation.messages.push(Value::from_pairs(kept));
            }
        }
        Ok(conversation)
    }

    /// Adds a message.
    pub(crate) fn push<'k>(&mut self, role: &str, fields: impl IntoIterator<Item = (&'k str, Value)>) {
        self.messages.push(Value::from_pairs([("role", Value::from(role))].into_iter().chain(fields)));
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Calls `f` with every text that a client chose. Roles are not of them.
    fn each_text(&self, f: &mut impl FnMut(&str)) {
        for (name, value) in self.messages.iter().flat_map(pairs) {
            if name.as_str() != Some("role") {
                each_text(&name, f);
                each_text(&value, f);
            }
        }
        self.others.iter().for_each(|(_, value)| each_text(value, f));
    }

    fn marked(&self, guard: &Guard, marks: Marks, marker: char) -> Conversation {
        let mark = |value: &Value| guard.mark_value(value, marks, marker);
        let field = |(name, value): (Value, Value)| match name.as_str() {
            Some("role") => (name, value),
            _ => (mark(&name), mark(&value)),
        };
        let message = |message: &Value| Value::from_pairs(pairs(message).into_iter().map(field));
        Conversation {
            messages: self.messages.iter().map(message).collect(),
            others: self.others.iter().map(|(name, value)| (name.clone(), mark(value))).collect(),
        }
    }
}

/// The entries of an object, in their order.
fn pairs(object: &Value) -> Vec<(Value, Value)> {
    let keys = if object.kind() == ValueKind::Map { object.try_iter().ok() } else { None };
    keys.into_iter().flatten().map(|key| (key.clone(), object.get_item(&key).unwrap_or_default())).collect()
}

fn each_text(value: &Value, f: &mut impl FnMut(&str)) {
    match value.kind() {
        ValueKind::String => value.as_str().into_iter().for_each(f),
        ValueKind::Seq => value.try_iter().into_iter().flatten().for_each(|v| each_text(&v, f)),
        _ => pairs(value).iter().for_each(|(name, value)| {
            each_text(name, f);
            each_text(value, f);
        }),
    }
}

/// A chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// The texts of the special tokens that have a name, such as `bos_token`.
    named: Vec<(&'static str, String)>,
    guard: Guard,
    start: Option<u32>,
    refusals: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// The template of a model, if it has one. It is tried with small conversations.
    ///
    /// # Errors
    /// When the template is malformed, needs what this program does not have, or renders no conversation.
    pub fn new(text: &TextConfig, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(source) = text.chat_template.clone() else { return Ok(None) };
        let broken = |e: &minijinja::Error| {
            let why = exceeded(e).map_or_else(|| e.to_string(), |what| format!("it takes too much: {what}"));
            Error::usage(format!("the model's chat template cannot be used: {why}"))
        };
        let mut template = ChatTemplate {
            environment: jinja::environment(&source).map_err(|e| broken(&e))?,
            source,
            named: text.named(tokenizer),
            guard: Guard::new(tokenizer, &[])?,
            start: text.prompt_start(),
            refusals: Vec::new(),
        };
        let mut samples = Vec::new();
        for (name, roles) in TRIALS {
            let mut conversation = Conversation::default();
            roles.iter().for_each(|role| conversation.push(role, [("content", Value::from("Hello."))]));
            match template.try_render(&conversation) {
                Ok(text) => samples.push(text),
                Err(e) if raised(&e).is_none() && lacks(&e) => return Err(broken(&e)),
                Err(e) => template.refusals.push((name, reason(&e))),
            }
        }
        if samples.is_empty() {
            let reason = &template.refusals[0].1;
            return Err(Error::usage(format!("the model's chat template renders no conversation: {reason}")));
        }
        template.guard = Guard::new(tokenizer, &samples)?;
        Ok(Some(template))
    }

    /// The small conversations that the template refused when the model opened, each with the reason.
    pub fn refusals(&self) -> &[(&'static str, String)] {
        &self.refusals
    }

    /// The text of a conversation, up to the start of the answer.
    ///
    /// # Errors
    /// When the template refuses the conversation, or fails.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        self.try_render(conversation).map_err(|e| Error::usage(reason(&e)))
    }

    fn try_render(&self, conversation: &Conversation) -> Result<String, minijinja::Error> {
        let named = self.named.iter().map(|(name, text)| (*name, Value::from(text)));
        let usual = [
            ("messages", conversation.messages.iter().cloned().collect()),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
        ];
        let others = conversation.others.iter().map(|(name, value)| (&**name, value.clone()));
        let context = Value::from_pairs(named.chain(usual).chain(others));
        budget::render(&self.environment, context)
    }

    /// The tokens of a conversation, up to the start of the answer.
    ///
    /// # Errors
    /// When a role is unknown, or the template refuses the conversation.
    pub fn encode(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        self.encode_conversation(&messages.into(), tokenizer)
    }

    /// The tokens of a conversation with tools, documents and other fields, up to the start of the answer. Special tokens that
    /// its texts spell are text.
    ///
    /// # Errors
    /// When a role is unknown, the template does not read a field, or it refuses the conversation.
    pub fn encode_conversation(&self, conversation: &Conversation, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let conversation = &self.checked(conversation)?;
        Ok(begin_with(self.start, self.encode_checked(conversation, tokenizer)?))
    }

    fn encode_checked(&self, conversation: &Conversation, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let plain = self.render(conversation)?;
        let mut used = HashSet::new();
        let mut concerned = false;
        let mut use_up = |text: &str| used.extend(text.chars().filter(|c| MARKERS.iter().any(|m| m.contains(c))));
        use_up(&self.source);
        conversation.each_text(&mut |text| {
            concerned |= self.guard.concerns(text);
            use_up(text);
        });
        let marker = MARKERS.into_iter().flatten().find(|c| !used.contains(c));
        let marker = marker.ok_or_else(|| Error::usage("the messages have every character for private use"))?;
        let whole = self.guard.parts(&plain, marker);
        let marked = if concerned { self.marked_parts(conversation, marker, &whole)? } else { None };
        let ids = match &marked {
            Some(parts) => self.guard.encode(parts, tokenizer)?,
            None => tokenizer.encode_with_specials(&plain)?,
        };
        let parts = marked.unwrap_or(whole);
        if self.guard.accepts(&ids, &parts) { Ok(ids) } else { self.guard.encode_apart(&parts, tokenizer) }
    }

    /// The parts of a conversation whose texts spell tokens. None if the template wrote all those in the `whole`.
    fn marked_parts(&self, conversation: &Conversation, marker: char, whole: &Parts<'_>) -> Result<Option<Parts<'_>>> {
        let marked = |marks| {
            let text = self.render(&conversation.marked(&self.guard, marks, marker))?;
            Ok::<_, Error>(self.guard.parts(&text, marker))
        };
        let everywhere = marked(Marks::Everywhere)?;
        if everywhere.ids().eq(whole.ids()) {
            return Ok(None);
        }
        let parts = marked(Marks::Spellings).ok().filter(|parts| parts.ids().eq(everywhere.ids()));
        Ok(Some(parts.unwrap_or(everywhere)))
    }

    /// The conversation with roles that the template knows. A field that it does not read is refused.
    fn checked(&self, conversation: &Conversation) -> Result<Conversation> {
        let reads = |word: &str| self.source.contains(word);
        let unread = |what: &str| Error::usage(format!("{what}: the model's chat template does not read it"));
        let mut checked = conversation.clone();
        for message in &mut checked.messages {
            let mut fields = pairs(message);
            for (name, value) in &mut fields {
                match name.as_str().unwrap_or_default() {
                    "role" => *value = known_role(value.as_str().unwrap_or_default(), reads)?.into(),
                    "content" => {}
                    name if reads(name) => {}
                    name => return Err(unread(name)),
                }
            }
            *message = Value::from_pairs(fields);
        }
        match conversation.others.iter().find(|(name, value)| !value.is_none() && !reads(name)) {
            Some((name, _)) => Err(unread(name)),
            None => Ok(checked),
        }
    }
}

/// Whether a template failed because this program does not have what it needs.
fn lacks(error: &minijinja::Error) -> bool {
    use ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
    exceeded(error).is_some() || [UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest].contains(&error.kind())
}

/// What the template said by `raise_exception`, if that is why it failed.
fn raised(error: &minijinja::Error) -> Option<&str> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(raised) = error.downcast_ref::<Raised>() {
            return Some(&raised.0);
        }
        source = error.source();
    }
    None
}

fn reason(error: &minijinja::Error) -> String {
    let cut = |said: &str| said.chars().take(LONGEST_REFUSAL).collect::<String>();
    match (raised(error), exceeded(error)) {
        (Some(said), _) => format!("the model's chat template refuses this conversation: {}", cut(said)),
        (_, Some(what)) => format!("the model's chat template takes too much: {what}"),
        _ => format!("the model's chat template: {}", cut(&error.to_string())),
    }
}
