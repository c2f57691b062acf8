//! The prompt of a conversation. A jinja template of the model file gives it the form that the model was trained on.

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

/// A chat template.
pub struct ChatTemplate {
    #[cfg(feature = "native")]
    environment: minijinja::Environment<'static>,
}

impl ChatTemplate {
    /// The tokens of a conversation, up to the start of the answer.
    ///
    /// # Errors
    /// When a role is unknown, the template fails, or a message contains a special token: with one, its author could write
    /// turns of somebody else.
    pub fn encode(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        for message in messages {
            if !["system", "user", "assistant"].contains(&message.role.as_str()) {
                return Err(Error::usage(format!("role = {:?}: must be system, user or assistant", message.role)));
            }
            if tokenizer.encode_with_specials(&message.content).iter().any(|id| tokenizer.is_special(*id)) {
                return Err(Error::usage("a message contains one of the model's special tokens"));
            }
        }
        Ok(tokenizer.encode_with_specials(&self.render(messages)?))
    }
}

#[cfg(feature = "native")]
impl ChatTemplate {
    /// Reads a jinja template.
    ///
    /// # Errors
    /// When the template is malformed.
    pub fn new(template: &str) -> Result<Self> {
        /// The largest number of instructions of a rendering. The template is untrusted: it comes from a file.
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

/// Renders only nanotern's own template: an engine for templates would be most of what a browser downloads.
#[cfg(not(feature = "native"))]
impl ChatTemplate {
    /// Takes nanotern's own template.
    ///
    /// # Errors
    /// For any other template.
    pub fn new(template: &str) -> Result<Self> {
        if template == crate::formats::CHAT_TEMPLATE {
            return Ok(ChatTemplate {});
        }
        Err(Error::usage("the model's chat template is not nanotern's own: this build renders only that one"))
    }

    fn render(&self, messages: &[Message]) -> Result<String> {
        Ok(own_template(messages))
    }
}

/// The text that [`crate::formats::CHAT_TEMPLATE`] renders.
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
    fn both_renderers_of_the_own_template_agree() {
        let template = ChatTemplate::new(crate::formats::CHAT_TEMPLATE).unwrap();
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let all = [message("system", "Be <b>brief</b>.\n"), message("user", "A & {{ b }}?"), message("assistant", "")];
        for n in 0..=all.len() {
            assert_eq!(template.render(&all[..n]).unwrap(), own_template(&all[..n]));
        }
    }
}
