//! What a tab streams is what decoding at once gives, with the tokenizers that it reads. It names what it does not read.

use super::{NO_WEBGPU, Tab, bytes, common, families, micro, texts};
use nanotern::data::Corpus;
use nanotern::formats::ModelFile;
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::rng::Rng;
use nanotern::tokenizer::{SYSTEM, Tokenizer};
use nanotern::train::Session;
use serde_json::{Map, Value, json};

/// An untrained model.
fn untrained(tokenizer: &Tokenizer) -> ModelFile {
    let text = super::text();
    let corpus = Corpus::from_text("text", &text, &text, tokenizer.clone()).unwrap();
    let mut session = Session::new(serde_json::from_value(micro()).unwrap(), corpus, &common::fastest()).unwrap();
    pollster::block_on(session.model_file()).unwrap()
}

/// Requests for texts of mostly the tokens of a random text and a special one, in any order, with others between them.
fn requests(tokenizer: &Tokenizer, count: u32) -> Vec<Map<String, Value>> {
    let mut rng = Rng::new(1);
    let request = |seed| {
        let likely = tokenizer.encode_with_specials(&(texts::random_text(&mut rng) + SYSTEM)).unwrap();
        let bias: Map<String, Value> = likely.iter().map(|id| (id.to_string(), json!(10))).collect();
        let request = json!({"max_tokens": 20, "temperature": 2, "seed": seed, "logit_bias": bias});
        request.as_object().unwrap().clone()
    };
    (0..count).map(request).collect()
}

#[test]
fn random_texts_stream_as_they_decode() {
    let Some(tab) = Tab::api(NO_WEBGPU, "cpu") else { return };
    let bytes_alone = ("bytes", Tokenizer::bytes().to_json());
    let mut read = Vec::new();
    for (name, json) in families::all().into_iter().chain([bytes_alone]) {
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        let file = untrained(&tokenizer);
        tab.site.put("test.gguf", bytes(&file));
        let refusal = tab.browser.eval("return nanotern.load('/test.gguf').then(() => null, (error) => error.message)");
        if let Some(refusal) = refusal.as_str() {
            assert!(refusal.contains("not supported"), "{name}: {refusal}");
            continue;
        }
        read.push(name);
        let mut engine = Engine::new(&file, &common::fastest(), EngineOptions::default()).unwrap();
        let prompt = tokenizer.encode("q").unwrap();
        let (mut whole, mut broken) = (0, 0);
        for some in requests(&tokenizer, 1000).chunks(100) {
            let decoded = some.iter().map(|request| {
                let mut sampling = Sampling::default();
                sampling.update(request).unwrap();
                tokenizer.decode(&engine.generate(&prompt, sampling).unwrap().0)
            });
            let want: Vec<String> = decoded.collect();
            let have = tab.browser.eval(&format!(
                "const texts = []; \
                 for (const request of {}) {{ \
                     let text = ''; \
                     const answer = await nanotern.completions.create({{ ...request, prompt: 'q', stream: true }}); \
                     for await (const chunk of answer) text += chunk.choices[0].delta.content ?? ''; \
                     texts.push(text); \
                 }} \
                 return texts",
                json!(some)
            ));
            assert_eq!(have, json!(want), "{name}");
            broken += want.iter().filter(|text| text.contains('\u{fffd}')).count();
            whole += want.iter().filter(|text| text.chars().any(|c| c > '\u{7ff}' && c != '\u{fffd}')).count();
        }
        assert!(whole > 100 && broken > 100, "{name}: {whole} with long characters, {broken} with broken ones");
    }
    assert_eq!(read, ["GPT-2", "SmolLM", "bytes"]);
    tab.no_errors();
}
