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

/// A chat template and the tokenizer its text is for.
pub struct ChatTemplate {
    environment: minijinja::Environment<'static>,
}

/// Instructions that rendering may take: a template comes from a file.
const FUEL: u64 = 1_000_000;

impl ChatTemplate {
    pub fn new(template: &str) -> Result<Self> {
        let mut environment = minijinja::Environment::new();
        environment.set_fuel(Some(FUEL));
        environment
            .add_template_owned("chat", template.to_string())
            .map_err(|e| Error::usage(format!("the model's chat template: {e}")))?;
        Ok(ChatTemplate { environment })
    }

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
        let template = self.environment.get_template("chat").map_err(|e| Error::usage(e.to_string()))?;
        let text = template
            .render(minijinja::context! { messages, add_generation_prompt => true })
            .map_err(|e| Error::usage(format!("the model's chat template: {e}")))?;
        Ok(tokenizer.encode(&text))
    }
}
