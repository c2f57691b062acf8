//! The prompt of a conversation. A jinja template of the model file gives it the form that the model was trained on.

#[cfg(feature = "native")]
mod budget;
#[cfg(feature = "native")]
mod guard;
#[cfg(feature = "native")]
mod jinja;
#[cfg(feature = "native")]
mod json;
#[cfg(feature = "native")]
mod native;

#[cfg(not(feature = "native"))]
use crate::formats::{CHAT_TEMPLATE, TextConfig};
#[cfg(any(test, not(feature = "native")))]
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

#[cfg(feature = "native")]
pub use native::{ChatTemplate, Conversation};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`. A template may know `developer` and `tool`.
    pub role: String,
    /// The text of the turn, in which the spelling of a special token is text.
    pub content: String,
}

/// Checks that a role is one of OpenAI's. `reads` tells whether the template reads a word; if it has no `developer`, that is
/// `system`, as which older models know it.
fn known_role(role: &str, reads: impl Fn(&str) -> bool) -> Result<&str> {
    match role {
        "system" | "user" | "assistant" => Ok(role),
        "developer" => Ok(if reads(role) { role } else { "system" }),
        "tool" if reads(role) => Ok(role),
        "tool" => Err(Error::usage("role = \"tool\": the model's chat template does not know it")),
        _ => Err(Error::usage(format!("role = {role:?}: must be system, developer, user, assistant or tool"))),
    }
}

/// The tokens of [`CHAT_TEMPLATE`] after `start`, without a template engine.
#[cfg(any(test, not(feature = "native")))]
fn own_template(start: Option<u32>, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    use crate::tokenizer::{ASSISTANT, END, SYSTEM, USER};
    let mut ids = Vec::new();
    for message in messages {
        let role = match known_role(&message.role, |_| false)? {
            "system" => SYSTEM,
            "user" => USER,
            _ => ASSISTANT,
        };
        ids.extend(tokenizer.encode_with_specials(role)?);
        ids.extend(tokenizer.encode(&message.content)?);
        ids.extend(tokenizer.encode_with_specials(END)?);
        ids.extend(tokenizer.encode("\n")?);
    }
    ids.extend(tokenizer.encode_with_specials(ASSISTANT)?);
    Ok(crate::formats::begin_with(start, ids))
}

/// A chat template. This build renders only nanotern's own: an engine for templates would be most of what a browser downloads.
#[cfg(not(feature = "native"))]
pub struct ChatTemplate {
    start: Option<u32>,
}

#[cfg(not(feature = "native"))]
impl ChatTemplate {
    /// The template of a model, if it has one.
    ///
    /// # Errors
    /// When it is not nanotern's own.
    pub fn new(text: &TextConfig, _: &Tokenizer) -> Result<Option<Self>> {
        match text.chat_template.as_deref() {
            None => Ok(None),
            Some(CHAT_TEMPLATE) => Ok(Some(ChatTemplate { start: text.prompt_start() })),
            Some(_) => {
                Err(Error::usage("the model's chat template is not nanotern's own: this build renders only that one"))
            }
        }
    }

    /// The tokens of a conversation, up to the start of the answer.
    ///
    /// # Errors
    /// When a role is unknown.
    pub fn encode(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        own_template(self.start, messages, tokenizer)
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::formats::TextConfig;

    #[test]
    fn both_renderers_of_the_own_template_agree() {
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let all = [
            message("system", "Be <b>brief</b>.\n"),
            message("user", "A & {{ b }}? <|end|>\n<|system|>"),
            message("assistant", ""),
            message("developer", "<|"),
        ];
        let trained = Tokenizer::train_bpe(&"A and <b> be brief, <|x|>. ".repeat(9), 290).unwrap();
        for tokenizer in [Tokenizer::bytes(), trained] {
            let template = ChatTemplate::new(&TextConfig::new(&tokenizer), &tokenizer).unwrap().unwrap();
            for n in 0..=all.len() {
                let ids = template.encode(&all[..n], &tokenizer).unwrap();
                assert_eq!(ids, own_template(None, &all[..n], &tokenizer).unwrap());
                let text = TextConfig { add_bos: true, ..TextConfig::new(&tokenizer) };
                let template = ChatTemplate::new(&text, &tokenizer).unwrap().unwrap();
                let ids = template.encode(&all[..n], &tokenizer).unwrap();
                assert_eq!(ids, own_template(text.bos, &all[..n], &tokenizer).unwrap());
                // A model may begin its prompts with the token that the template begins with.
                let first = ids.get(1).copied();
                let text = TextConfig { bos: first, ..text };
                let template = ChatTemplate::new(&text, &tokenizer).unwrap().unwrap();
                assert_eq!(template.encode(&all[..n], &tokenizer).unwrap(), ids[1..]);
                assert_eq!(own_template(first, &all[..n], &tokenizer).unwrap(), ids[1..]);
                assert_eq!(text.prompt(ids[1..].to_vec()), ids[1..]);
            }
        }
        assert!(own_template(None, &[message("tool", "")], &Tokenizer::bytes()).is_err());
    }
}
