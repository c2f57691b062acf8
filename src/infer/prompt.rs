//! Chats as the model was trained to read them: a jinja template from the model file.

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// A chat template.
pub struct ChatTemplate {
    #[cfg(feature = "native")]
    environment: minijinja::Environment<'static>,
}

impl ChatTemplate {
    /// The tokens of a conversation, up to where the model answers. A special token within a message is refused: it would
    /// let its author speak for somebody else.
    pub fn encode(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        for message in messages {
            if !["system", "user", "assistant"].contains(&message.role.as_str()) {
                return Err(Error::usage(format!("role {:?}: system, user and assistant are possible", message.role)));
            }
            if tokenizer.encode(&message.content).iter().any(|id| tokenizer.is_special(*id)) {
                return Err(Error::usage("a message contains one of the model's special tokens"));
            }
        }
        Ok(tokenizer.encode(&self.render(messages)?))
    }
}

#[cfg(feature = "native")]
impl ChatTemplate {
    pub fn new(template: &str) -> Result<Self> {
        /// Instructions that rendering may take: a template comes from a file.
        const FUEL: u64 = 1_000_000;
        let mut environment = minijinja::Environment::new();
        environment.set_fuel(Some(FUEL));
        environment
            .add_template_owned("chat", template.to_string())
            .map_err(|e| Error::usage(format!("the model's chat template: {e}")))?;
        Ok(ChatTemplate { environment })
    }

    fn render(&self, messages: &[Message]) -> Result<String> {
        let template = self.environment.get_template("chat").map_err(|e| Error::usage(e.to_string()))?;
        template
            .render(minijinja::context! { messages, add_generation_prompt => true })
            .map_err(|e| Error::usage(format!("the model's chat template: {e}")))
    }
}

/// Without an engine for templates, which would be most of what a browser downloads: the one of models made here.
#[cfg(not(feature = "native"))]
impl ChatTemplate {
    pub fn new(template: &str) -> Result<Self> {
        if template == crate::formats::CHAT_TEMPLATE {
            return Ok(ChatTemplate {});
        }
        Err(Error::usage("the model's chat template is not nanotern's own, the only one that this build renders"))
    }

    fn render(&self, messages: &[Message]) -> Result<String> {
        Ok(own_template(messages))
    }
}

/// What [`crate::formats::CHAT_TEMPLATE`] renders.
#[cfg(any(test, not(feature = "native")))]
fn own_template(messages: &[Message]) -> String {
    use crate::tokenizer::{ASSISTANT, END};
    let turn = |m: &Message| format!("<|{}|>{}{END}\n", m.role, m.content);
    messages.iter().map(turn).collect::<String>() + ASSISTANT
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn the_own_template_is_rendered_alike_with_and_without_an_engine() {
        let template = ChatTemplate::new(crate::formats::CHAT_TEMPLATE).unwrap();
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let all = [message("system", "Be <b>brief</b>.\n"), message("user", "A & {{ b }}?"), message("assistant", "")];
        for n in 0..=all.len() {
            assert_eq!(template.render(&all[..n]).unwrap(), own_template(&all[..n]));
        }
    }
}
