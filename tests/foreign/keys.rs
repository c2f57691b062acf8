//! Every key of every architecture that others write, set to another value: it changes the model that is read, or it is refused.

use super::folders::{Made, file};
use super::gguf::raw;
use super::raw::string;
use nanotern::formats::ModelFile;
use serde_json::{Value, json};

/// What gguf 0.19 calls the keys of an architecture.
const KEYS: &str = "activation_sparsity_scale altup.active_idx altup.num_inputs attention.causal attention.clamp_kqv \
    attention.decay_lora_rank attention.gate_lora_rank attention.group_norm_epsilon attention.group_norm_groups \
    attention.head_count attention.head_count_kv attention.iclr_lora_rank attention.indexer.head_count \
    attention.indexer.key_length attention.indexer.top_k attention.key_length attention.key_length_mla \
    attention.key_length_swa attention.kv_lora_rank attention.layer_norm_epsilon attention.layer_norm_rms_epsilon \
    attention.max_alibi_bias attention.output_scale attention.q_lora_rank attention.relative_buckets_count attention.scale \
    attention.shared_kv_layers attention.sliding_window attention.sliding_window_pattern attention.temperature_length \
    attention.temperature_scale attention.value_length attention.value_length_mla attention.value_length_swa \
    attention.value_residual_mix_lora_rank attn_logit_softcapping block_count classifier.output_labels context_length \
    convnext.block_count convnext.embedding_length decoder_block_count decoder_start_token_id embedding_length \
    embedding_length_out embedding_length_per_layer_input embedding_scale expert_chunk_feed_forward_length expert_count \
    expert_feed_forward_length expert_gating_func expert_group_count expert_group_scale expert_group_used_count \
    expert_shared_count expert_shared_feed_forward_length expert_used_count expert_weights_norm expert_weights_scale \
    experts_per_group features_length feed_forward_length final_logit_softcapping full_attention_interval \
    interleave_moe_layer_step kda.head_dim leading_dense_block_count logit_scale moe_every_n_layers moe_latent_size \
    n_deepstack_layers nextn_predict_layers pooling_type posnet.block_count posnet.embedding_length rescale_every_n_layers \
    residual_scale rope.dimension_count rope.dimension_count_swa rope.dimension_sections rope.freq_base rope.freq_base_swa \
    rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor rope.scaling.finetuned \
    rope.scaling.original_context_length rope.scaling.type rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast \
    rope.scaling.yarn_beta_slow rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier router_logit_softcapping \
    shortconv.l_cache ssm.conv_kernel ssm.dt_b_c_rms ssm.group_count ssm.inner_size ssm.state_size ssm.time_step_rank \
    swiglu_clamp_exp swiglu_clamp_shexp swin_norm tensor_data_layout time_decay_extra_dim time_mix_extra_dim \
    token_shift_count use_parallel_residual vocab_size wkv.head_size";
/// Keys that say nothing of what a model computes.
const SILENT: [&str; 1] = ["rope.scaling.finetuned"];

/// Values of each type, none of which any of our models has.
fn values() -> Vec<(u32, Vec<u8>)> {
    let words = ["other", "yarn", "linear", "none", "longrope"].map(|word| (8, string(word.as_bytes())));
    let array = [&4u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[7, 0, 0, 0, 9, 0, 0, 0]].concat();
    let numbers = [(4, 7u32.to_le_bytes().to_vec()), (6, 0.7f32.to_le_bytes().to_vec()), (7, vec![1]), (9, array)];
    numbers.into_iter().chain(words).collect()
}

#[test]
fn every_key_of_a_file_is_honoured_or_refused() {
    let files = ["b158.i2_s", "llama.i2_s", "llama.tq2_0", "qwen2.tq2_0", "qwen3.i2_s"];
    for name in files {
        let plain = raw(&format!("{name}.gguf"));
        let arch = plain.clone().key("general.architecture").2[8..].to_vec();
        let arch = String::from_utf8(arch).unwrap();
        let model = ModelFile::from_gguf(&plain.bytes()).unwrap();
        for key in KEYS.split_whitespace().filter(|key| !SILENT.contains(key)) {
            for (kind, value) in values() {
                let mut changed = plain.clone();
                let full = format!("{arch}.{key}");
                if changed.keys.contains(&(full.clone().into_bytes(), kind, value.clone())) {
                    continue;
                }
                changed.set(&full, kind, &value);
                match ModelFile::from_gguf(&changed.bytes()) {
                    Ok(read) => {
                        // No scaling, or no factor of one, is what a file without that key has.
                        let none = key == "rope.scaling.type" && [string(b"none"), string(b"linear")].contains(&value);
                        assert!(none || read.config != model.config, "{name}: {key} {value:?} changes nothing");
                    }
                    Err(error) => {
                        let shape = error.contains("the configuration needs") || error.contains("make no model");
                        let beside = key.starts_with("rope.scaling") && error.contains("rope");
                        let head = key == "attention.key_length" && error.contains("value_length");
                        let tensors = key == "block_count" && error.contains("blk.");
                        assert!(error.contains(&full) || shape || beside || tensors || head, "{name}: {key}: {error}");
                    }
                }
            }
        }
    }
}

/// Keys of the classes of configurations in transformers 5.24 and of files on the hub, each with other values.
fn settings() -> Vec<(&'static str, Vec<Value>)> {
    let numbers = || vec![json!(7), json!(0.7), json!("other"), json!(true), json!([7])];
    let sizes = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "vocab_size",
        "rms_norm_eps",
        "rope_theta",
        "input_bits",
        "weight_bits",
        "partial_rotary_factor",
        "attention_multiplier",
        "logits_scaling",
        "final_logit_softcapping",
        "num_experts",
        "original_max_position_embeddings",
        "attention_chunk_size",
        "query_pre_attn_scalar",
        "layer_norm_eps",
    ];
    let mut list: Vec<_> = sizes.map(|key| (key, numbers())).into();
    for key in
        ["use_sliding_window", "use_mrope", "use_qk_norm", "mlp_bias", "rope_interleaved", "no_rope_layers", "alibi"]
    {
        list.push((key, vec![json!(true), json!(7)]));
    }
    list.extend([
        ("architectures", vec![json!(["MistralForCausalLM"]), json!("LlamaForCausalLM"), json!(null)]),
        ("model_type", vec![json!("mistral"), json!(7)]),
        ("hidden_act", vec![json!("gelu"), json!(7), json!(["silu"])]),
        ("attention_bias", vec![json!("other"), json!(7), json!([true])]),
        ("tie_word_embeddings", vec![json!("other"), json!(7)]),
        ("layer_types", vec![json!(["full_attention", "sliding_attention"]), json!(["other"])]),
        ("eos_token_id", vec![json!(7), json!([7, 8])]),
        ("bos_token_id", vec![json!(7)]),
        ("pad_token_id", vec![json!(7)]),
        ("unk_token_id", vec![json!(7)]),
    ]);
    list
}

/// Of `rope_scaling`, and of `quantization_config`.
fn inner() -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let mut list = vec![
        (
            "rope_scaling",
            "rope_type",
            ["linear", "dynamic", "longrope", "llama3", "proportional"].map(|kind| json!(kind)).into(),
        ),
        ("rope_scaling", "truncate", vec![json!(false)]),
        ("rope_scaling", "mrope_section", vec![json!([16, 24, 24])]),
        ("quantization_config", "quant_method", vec![json!("gptq"), json!(7)]),
        ("quantization_config", "linear_class", vec![json!("bitlinear"), json!("other"), json!(7)]),
        ("quantization_config", "quantization_mode", vec![json!("online"), json!("other")]),
        ("quantization_config", "use_rms_norm", vec![json!(true)]),
        ("quantization_config", "modules_to_not_convert", vec![json!(["q_proj"])]),
        ("quantization_config", "bits", vec![json!(4)]),
    ];
    for key in [
        "factor",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "long_factor",
        "partial_rotary_factor",
    ] {
        list.push(("rope_scaling", key, vec![json!(2.5), json!("other")]));
    }
    list
}

/// Whether another value of a key, which was set, was honoured: it made another model, or was refused by its name.
fn is_honoured(made: &Made, key: &str, plain: &ModelFile) {
    let shown = format!("{}: {key}", made.config["architectures"]);
    match made.read(1) {
        Ok(read) => {
            let other = read.config != plain.config || read.text != plain.text || read.tensors != plain.tensors;
            assert!(other, "{shown} changes nothing: {}", made.config);
        }
        Err(error) => {
            let shape = error.contains("the model needs") || error.contains("its keys make no model");
            let tensors = error.contains("is missing") || error.contains("is unknown to the architecture");
            let inner = key == "rope_type" && error.contains("rotary");
            assert!(error.contains(key) || shape || tensors || inner, "{shown}: {error}");
        }
    }
}

#[test]
fn every_key_of_a_folder_is_honoured_or_refused() {
    for (name, architecture) in [
        ("b158.i2_s.gguf", "BitNetForCausalLM"),
        ("b158.i2_s.gguf", "BitnetForCausalLM"),
        ("llama.i2_s.gguf", "LlamaForCausalLM"),
        ("qwen2.tq2_0.gguf", "Qwen2ForCausalLM"),
        ("qwen3.i2_s.gguf", "Qwen3ForCausalLM"),
    ] {
        let made = Made::new(&file(name), architecture);
        let plain = made.read(1).unwrap();
        for (key, values) in settings() {
            for value in values.into_iter().filter(|value| *value != made.config[key]) {
                let mut changed = made.clone();
                changed.config[key] = value;
                is_honoured(&changed, key, &plain);
            }
        }
        let mut scaled = made.clone();
        scaled.config["rope_scaling"] =
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
        let plain = scaled.read(1).unwrap();
        for (outer, key, values) in inner() {
            for value in values {
                let mut changed = scaled.clone();
                changed.config[outer][key] = value;
                is_honoured(&changed, key, &plain);
            }
        }
        scaled.config["rope_scaling"]["mscale"] = json!(0.7);
        scaled.config["rope_scaling"]["mscale_all_dim"] = json!(1.0);
        is_honoured(&scaled, "mscale", &plain);
        // What says nothing of the result, and windows that are not used.
        let mut silent = made.clone();
        for key in
            ["dtype", "transformers_version", "_name_or_path", "use_cache", "initializer_range", "attention_dropout"]
        {
            silent.config[key] = json!("other");
        }
        (silent.config["use_mrope"], silent.config["use_sliding_window"]) = (json!(false), json!(false));
        if architecture.starts_with("Qwen") {
            (silent.config["sliding_window"], silent.config["max_window_layers"]) = (json!(4096), json!(1));
        }
        assert_eq!(silent.read(1), made.read(1), "{architecture}");
    }
}
