"""Makes a small folder as microsoft/bitnet-b1.58-2B-4T-bf16 has it, with the loss and the gradients that transformers computes of
it. Needs torch, transformers, accelerate and safetensors.

    TORCHDYNAMO_DISABLE=1 python train.py online           # makes the folder and its expectations
    TORCHDYNAMO_DISABLE=1 python train.py FOLDER --only     # expectations of a folder that is there, beside it
"""
import json, os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import numpy as np, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
folder, only = sys.argv[1], "--only" in sys.argv
if not only:
    os.makedirs(folder, exist_ok=True)
    dim, ffn, vocab = 64, 64, 96
    config = dict(architectures=["BitNetForCausalLM"], model_type="bitnet", hidden_size=dim, intermediate_size=ffn,
                  num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=64, vocab_size=vocab,
                  rms_norm_eps=1e-5, rope_theta=500000.0, hidden_act="relu2", tie_word_embeddings=True,
                  max_position_embeddings=64, bos_token_id=0, eos_token_id=1, torch_dtype="bfloat16",
                  quantization_config=dict(quant_method="bitnet", linear_class="autobitlinear", quantization_mode="online"))
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f, indent=2)
    g = torch.Generator().manual_seed(7)
    normal = lambda *shape, std: (torch.randn(*shape, generator=g) * std).to(torch.bfloat16)
    near = lambda n: (1 + 0.1 * torch.randn(n, generator=g)).to(torch.bfloat16)
    p = "model.layers.0."
    tensors = {"model.embed_tokens.weight": normal(vocab, dim, std=0.1), "model.norm.weight": near(dim),
               p + "input_layernorm.weight": near(dim), p + "post_attention_layernorm.weight": near(dim),
               p + "self_attn.attn_sub_norm.weight": near(dim), p + "mlp.ffn_sub_norm.weight": near(ffn)}
    for name, outs, ins in [("self_attn.q", dim, dim), ("self_attn.k", 64, dim), ("self_attn.v", 64, dim),
                            ("self_attn.o", dim, dim), ("mlp.gate", ffn, dim), ("mlp.up", ffn, dim), ("mlp.down", dim, ffn)]:
        tensors[f"{p}{name}_proj.weight"] = normal(outs, ins, std=0.1)
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})

model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
model.train()
rng = np.random.default_rng(5)
vocab = model.config.vocab_size
ids = torch.tensor(rng.integers(0, vocab, (2, 9)))
for p in model.parameters():
    p.requires_grad_(True)
logits = model(ids[:, :-1]).logits
loss = torch.nn.functional.cross_entropy(logits.reshape(-1, vocab), ids[:, 1:].reshape(-1))
loss.backward()
out = {"tokens": ids.to(torch.int32).contiguous(), "loss": loss.detach().double().reshape(1)}
for name, parameter in model.named_parameters():
    if parameter.grad is not None:
        out[name] = parameter.grad.detach().float().contiguous()
save_file(out, f"{folder.rstrip('/')}.train.safetensors" if not only else sys.argv[3])
print(float(loss), sorted(out))
