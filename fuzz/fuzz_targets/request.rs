//! Any body is a request or an error. The conversation of a request is a prompt or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::TextConfig;
use nanotern::infer::ChatTemplate;
use nanotern::serve::ChatRequest;
use nanotern::tokenizer::Tokenizer;
use nanotern_fuzz::Grammar;
use std::sync::LazyLock;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::new(include_str!("../grammars/request.txt")));
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::bytes);
static TEMPLATE: LazyLock<ChatTemplate> = LazyLock::new(|| {
    let template = ChatTemplate::new(&TextConfig::new(&TOKENIZER), &TOKENIZER).expect("our own template can be used");
    template.expect("the tokenizer of bytes has a template")
});

fuzz_target!(|input: &[u8]| {
    nanotern_fuzz::next_input();
    let made = GRAMMAR.maker(input).map(|mut maker| maker.text("request"));
    let body = made.as_deref().map_or(input, str::as_bytes);
    let Ok(request) = ChatRequest::parse(body, "small", TOKENIZER.vocab_size()) else { return };
    let _ = TEMPLATE.encode_conversation(&request.conversation, &TOKENIZER);
});
