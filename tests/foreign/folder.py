"""What a folder of Hugging Face computes, in float64 and without a line of nanotern or transformers: `python folder.py FOLDER [IDS]`.

Written after the definitions of transformers 5.24: `AutoBitLinear` (a packed code is multiplied by the scale of its matrix, and inputs are
rounded to 8 bits), and a dense layer, which keeps its inputs. Without IDS it takes those of 200 random triples for which no rounding of
an input comes near a tie, so that every program computes the same function of them. Prints JSON. Needs numpy and safetensors.
"""
import json
import sys
from pathlib import Path
import numpy as np
from safetensors import safe_open

folder = Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
quantization = config.get("quantization_config")
assert quantization in (None, {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"})
bitnet = {"BitNetForCausalLM": True, "LlamaForCausalLM": False}[config["architectures"][0]]
assert config["model_type"] == ("bitnet" if bitnet else "llama") and not config["attention_bias"]
stored = {}


def bf16(path):
    """The tensors of type BF16, which numpy lacks."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    for name, info in json.loads(raw[8:8 + size]).items():
        if info.get("dtype") == "BF16":
            start, end = (8 + size + offset for offset in info["data_offsets"])
            bits = np.frombuffer(raw[start:end], np.uint16).astype(np.uint32) << 16
            yield name, bits.view(np.float32).reshape(info["shape"])


file = folder / "model.safetensors"
stored.update(bf16(file))
with safe_open(file, "np") as tensors:
    assert tensors.metadata() == {"format": "pt"}
    stored.update({name: tensors.get_tensor(name) for name in tensors.keys() if name not in stored})
used, tie = set(), [np.inf]


def get(name):
    used.add(name)
    return stored[name]


def value(name):
    return get(name).astype(np.float64)


def linear(name, x):
    w = get(f"{name}.weight")
    if w.dtype != np.uint8:
        assert quantization is None
        return x @ w.astype(np.float64).T
    codes = np.concatenate([w >> shift & 3 for shift in (0, 2, 4, 6)]).astype(np.float64) - 1.0
    assert codes.max() <= 1.0
    scaled = x * (127.0 / np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5))
    tie[0] = min(tie[0], np.abs(np.abs(scaled) % 1.0 - 0.5).min())
    rounded = np.clip(np.round(scaled), -128, 127) * np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5) / 127.0
    return rounded @ codes.T * value(f"{name}.weight_scale")[0]


def rms(name, x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * value(f"{name}.weight")


def frequencies(dim):
    freq = config["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    if scaling["rope_type"] == "linear":
        return freq / scaling["factor"]
    if scaling["rope_type"] == "llama3":
        length, low, high = (scaling[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
        assert isinstance(length, int)
        smooth = np.clip((length * freq / (2 * np.pi) - low) / (high - low), 0.0, 1.0)
        return (1 - smooth) * freq / scaling["factor"] + smooth * freq
    assert scaling == {"rope_type": "default"}
    return freq


def rotate(x, freq):
    half = x.shape[-1] // 2
    c, s = (f(np.arange(len(x))[:, None] * freq)[:, None] for f in (np.cos, np.sin))
    return np.concatenate([x[..., :half] * c - x[..., half:] * s, x[..., :half] * s + x[..., half:] * c], -1)


def forward(ids):
    n, heads, kv, hd = len(ids), config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    table = value("model.embed_tokens.weight")
    assert table.shape == (config["vocab_size"], config["hidden_size"])
    x = table[ids]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = rms(at + "input_layernorm", x)
        q, k, v = (linear(f"{at}self_attn.{t}_proj", h).reshape(n, -1, hd) for t in "qkv")
        q, k = (rotate(t, frequencies(hd)) for t in (q, k))
        k, v = (np.repeat(t, heads // kv, 1) for t in (k, v))
        s = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(hd) + np.triu(np.full((n, n), -np.inf), 1)
        s = np.exp(s - s.max(-1, keepdims=True))
        y = np.einsum("hij,jhd->ihd", s / s.sum(-1, keepdims=True), v).reshape(n, -1)
        x = x + linear(at + "self_attn.o_proj", rms(at + "self_attn.attn_sub_norm", y) if bitnet else y)
        h = rms(at + "post_attention_layernorm", x)
        g, u = (linear(f"{at}mlp.{t}_proj", h) for t in ("gate", "up"))
        y = u * {"relu2": lambda: np.maximum(g, 0.0) ** 2, "silu": lambda: g / (1.0 + np.exp(-g))}[config["hidden_act"]]()
        x = x + linear(at + "mlp.down_proj", rms(at + "mlp.ffn_sub_norm", y) if bitnet else y)
    head = table if config["tie_word_embeddings"] else value("lm_head.weight")
    return rms("model.norm", x) @ head.T


if len(sys.argv) > 2:
    ids = [int(word) for word in sys.argv[2].split(",")]
else:
    rng, best = np.random.default_rng(1), -1.0
    for candidate in rng.integers(0, config["vocab_size"], (200, 3)):
        tie[0] = np.inf
        forward(candidate)
        if tie[0] > best:
            best, ids = tie[0], candidate.tolist()
logits = forward(ids)
assert used == set(stored), f"not used: {set(stored) - used}"
print(json.dumps({"ids": ids, "logits": logits.tolist()}))
