"""Makes the models of this folder and what a plain program in float64 computes of them: `python make.py` (needs numpy, safetensors).

Shapes and values are random, from seeds. Linear layers see their input as int8 codes, one scale for a token. `short` are three
tokens for which no rounding of an activation comes near a tie, so that every program computes the same function of them.
"""
import struct
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
TIE = [np.inf]


def codes(x):
    top = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5)
    scaled = x * (127.0 / top)
    TIE[0] = min(TIE[0], np.abs(np.abs(scaled) % 1.0 - 0.5).min())
    return np.clip(np.round(scaled), -128, 127) * (top / 127.0)


def rms(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def rotate(x, freq):
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * freq
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.concatenate([x[..., :half] * c - x[..., half:] * s, x[..., :half] * s + x[..., half:] * c], -1)


def yarn(freq, m):
    """Frequencies and what turned vectors are multiplied by, after `_compute_yarn_parameters` in transformers."""
    y, hd = m["yarn"], m["head"]
    pair = lambda turns: hd * np.log(y["original"] / (turns * 2 * np.pi)) / (2 * np.log(m["theta"]))
    low, high = max(np.floor(pair(y["fast"])), 0), min(np.ceil(pair(y["slow"])), hd - 1)
    kept = 1 - np.clip((np.arange(hd // 2) - low) / (high - low), 0, 1)
    assert 0 < kept.sum() < hd // 2 and np.any((kept > 0) & (kept < 1)), kept
    return freq / y["factor"] * (1 - kept) + freq * kept, (0.1 * np.log(y["factor"]) + 1) * y["attention"]


def forward(m, ids):
    """Logits (n, vocab). Rotary pairs are half-split here; the writer of a file may permute rows."""
    n, w, heads, kv, hd, eps = len(ids), m["w"], m["heads"], m["kv"], m["head"], m["eps"]
    x = w["token_embd"][ids]
    mask = np.triu(np.full((n, n), -np.inf), 1)
    freq, turned = m["theta"] ** (-np.arange(0, hd, 2) / hd) / m.get("factors", 1.0), 1.0
    if "yarn" in m:
        freq, turned = yarn(freq, m)
    # Dense matrices see their input as it is.
    linear = lambda name, x: (x if name in m.get("dense", ()) else codes(x)) @ w[name].T + w.get(f"{name}.bias", 0.0)
    for i in range(m["layers"]):
        at = lambda name: f"blk.{i}.{name}"
        h = rms(x, w[at("attn_norm")], eps)
        q, k, v = (linear(at(f"attn_{t}"), h).reshape(n, -1, hd) for t in "qkv")
        if at("attn_q_norm") in w:
            q, k = (rms(x, w[at(f"attn_{t}_norm")], eps) for x, t in ((q, "q"), (k, "k")))
        q, k = turned * rotate(q, freq), turned * rotate(k, freq)
        k, v = (np.repeat(t, heads // kv, 1) for t in (k, v))
        s = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(hd) + mask
        s = np.exp(s - s.max(-1, keepdims=True))
        y = np.einsum("hij,jhd->ihd", s / s.sum(-1, keepdims=True), v).reshape(n, -1)
        if at("attn_sub_norm") in w:
            y = rms(y, w[at("attn_sub_norm")], eps)
        x = x + linear(at("attn_output"), y)
        h = rms(x, w[at("ffn_norm")], eps)
        g, u = (linear(at(f"ffn_{t}"), h) for t in ("gate", "up"))
        y = u * (np.maximum(g, 0.0) ** 2 if m["relu2"] else g / (1.0 + np.exp(-g)))
        if at("ffn_sub_norm") in w:
            y = rms(y, w[at("ffn_sub_norm")], eps)
        x = x + linear(at("ffn_down"), y)
    return rms(x, w["output_norm"], eps) @ w.get("output", w["token_embd"]).T


def expectations(m, path, rng):
    vocab = len(m["w"]["token_embd"])
    tokens = rng.integers(0, vocab, (2, 24))
    text = [list(t) for t in tokens]
    margin = np.zeros((2, 16))
    for i in range(2):
        for step in range(16):
            last = forward(m, text[i])[-1]
            best = np.argsort(-last, kind="stable")
            margin[i, step] = last[best[0]] - last[best[1]]
            text[i].append(int(best[0]))
    shorts = []
    for _ in range(400):
        short = rng.integers(0, vocab, 3)
        TIE[0] = np.inf
        logits = forward(m, short)
        shorts.append((TIE[0], short, logits))
    tie, short, logits = max(shorts, key=lambda s: s[0])
    f32, i32 = (lambda x: np.ascontiguousarray(x, np.float32)), (lambda x: np.ascontiguousarray(x, np.int32))
    save_file({
        "tokens": i32(tokens), "logits": f32([forward(m, t) for t in tokens]), "short.tokens": i32(short),
        "short.logits": f32(logits), "greedy": i32([t[24:] for t in text]), "greedy_margin": f32(margin),
    }, path)
    print(path.name, f"short is {tie:.1e} of a step from a tie")


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def gguf(path, keys, tensors):
    """keys: name to a value; tensors: name to (rows first shape, type id, bytes)."""
    kinds = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, value in keys.items():
        head += string(key)
        if isinstance(value, str):
            head += struct.pack("<I", 8) + string(value)
        elif isinstance(value, list):
            kind = 8 if isinstance(value[0], str) else 5
            head += struct.pack("<IIQ", 9, kind, len(value))
            head += b"".join(string(v) if kind == 8 else struct.pack("<i", v) for v in value)
        else:
            kind, form = kinds[type(value)]
            head += struct.pack("<I", kind) + struct.pack(form, value)
    data = b""
    for name, (shape, kind, raw) in tensors.items():
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def i2_s(w, scale):
    cells = (w.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = cells[:, 0] << 6 | cells[:, 1] << 4 | cells[:, 2] << 2 | cells[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def tq2_0(w, scale):
    cells = (w.reshape(-1, 2, 4, 32) + 1).astype(np.uint8)
    packed = (cells[:, :, 0] | cells[:, :, 1] << 2 | cells[:, :, 2] << 4 | cells[:, :, 3] << 6).reshape(-1, 64)
    tail = np.full((len(packed), 1), scale, np.float16).view(np.uint8)
    return np.concatenate([packed, tail], 1).tobytes()


def keys_of(arch, m, vocab):
    own = {"context_length": 64, "embedding_length": m["dim"], "block_count": m["layers"], "feed_forward_length": m["ffn"],
           "attention.head_count": m["heads"], "attention.head_count_kv": m["kv"], "rope.freq_base": float(m["theta"]),
           "attention.layer_norm_rms_epsilon": m["eps"], "attention.key_length": m["head"],
           "attention.value_length": m["head"], "rope.dimension_count": m["head"], "vocab_size": vocab}
    if isinstance(m["factors"], float) and m["factors"] != 1.0:
        own |= {"rope.scaling.type": "linear", "rope.scaling.factor": m["factors"]}
    if "yarn" in m:
        y = m["yarn"]
        own |= {"rope.scaling.type": "yarn", "rope.scaling.factor": y["factor"], "rope.scaling.attn_factor": y["attention"],
                "rope.scaling.original_context_length": y["original"], "rope.scaling.yarn_beta_fast": y["fast"],
                "rope.scaling.yarn_beta_slow": y["slow"], "rope.scaling.finetuned": True}
    return {"general.architecture": arch, **{f"{arch}.{k}": v for k, v in own.items()}}


def model(seed, arch, shape, vocab, tied, sub_norm, encoding, dense=(), factors=1.0, biases=(), scaled=(), **more):
    rng = np.random.default_rng(seed)
    dim, ffn, layers, heads, kv, hd = shape
    m = dict(dim=dim, ffn=ffn, layers=layers, heads=heads, kv=kv, head=hd, eps=float(np.float32(1e-5)), theta=500000.0,
             relu2=arch == "bitnet-b1.58", w={}, dense=dense, factors=factors, **more)
    tensors = {}
    if not isinstance(factors, float):
        m["factors"] = np.float32(factors)
        tensors["rope_freqs.weight"] = (m["factors"].shape, 0, m["factors"].tobytes())

    def add(name, values, kind, raw=None):
        m["w"][name] = np.asarray(values, np.float64)
        tensors[f"{name}.weight"] = (values.shape, kind, values.tobytes() if raw is None else raw)

    add("token_embd", rng.normal(0, 1.0, (vocab, dim)).astype(np.float16), 1)
    for i in range(layers):
        norm = lambda name, n: add(f"blk.{i}.{name}", rng.normal(1, 0.2, n).astype(np.float32), 0)

        def matrix(name, outs, ins, permuted=0):
            name = f"blk.{i}.{name}"
            # llama.cpp turns half-split pairs of rows into adjacent ones.
            store = lambda w: w.reshape(permuted, 2, hd // 2, -1).swapaxes(1, 2).reshape(outs, -1) if permuted else w
            if name in dense:
                w = rng.normal(0, ins ** -0.5, (outs, ins)).astype(np.float16)
                return add(name, w, 1, store(w).tobytes())
            w = rng.choice([-1, 0, 1], (outs, ins), p=[0.3, 0.4, 0.3])
            scale = np.float32(rng.uniform(1.0, 1.6) * ins ** -0.5)
            scale = np.float32(np.float16(scale)) if encoding is tq2_0 else scale
            part, own = name.rsplit(".", 1)[1], scale
            if part in scaled:
                # The scale is a tensor of its own, beside another in the matrix.
                own = np.float32(1.0 if encoding is tq2_0 else 0.5)
                factor = np.float32(rng.uniform(1.0, 1.6) * ins ** -0.5)
                tensors[f"{name}.scale"] = ((1,), 0, factor.tobytes())
                scale = np.float32(own * factor)
            add(name, w * np.float64(scale), 35 if encoding is tq2_0 else 36, encoding(store(w), own))
            if part in biases:
                bias = rng.normal(0, 0.3, outs).astype(np.float32)
                m["w"][f"{name}.bias"] = np.asarray(bias, np.float64)
                tensors[f"{name}.bias"] = ((outs,), 0, store(bias[:, None]).tobytes() if permuted else bias.tobytes())

        permute = arch == "llama"
        norm("attn_norm", dim)
        matrix("attn_q", heads * hd, dim, heads * permute)
        matrix("attn_k", kv * hd, dim, kv * permute)
        matrix("attn_v", kv * hd, dim)
        if arch == "qwen3":
            norm("attn_q_norm", hd)
            norm("attn_k_norm", hd)
        if sub_norm:
            norm("attn_sub_norm", heads * hd)
        matrix("attn_output", dim, heads * hd)
        norm("ffn_norm", dim)
        matrix("ffn_gate", ffn, dim)
        matrix("ffn_up", ffn, dim)
        if sub_norm:
            norm("ffn_sub_norm", ffn)
        matrix("ffn_down", dim, ffn)
    add("output_norm", rng.normal(1, 0.2, dim).astype(np.float32), 0)
    if not tied:
        add("output", rng.normal(0, 0.2, (vocab, dim)).astype(np.float16), 1)
    return m, tensors, rng


def write(name, *options, **more):
    m, tensors, rng = model(*options, **more)
    gguf(HERE / f"{name}.gguf", keys_of(options[1], m, options[3]), tensors)
    expectations(m, HERE / f"{name}.expect.safetensors", rng)


# A head that is no part of the width, rows that fill no run of 128, and a width that no group of 128 divides.
write("b158.i2_s", 1, "bitnet-b1.58", (96, 160, 2, 4, 2, 40), 64, True, True, i2_s)
# Rows of rotary pairs are permuted, their frequencies are halved, the head is a tensor of its own, and one matrix is dense.
write("llama.tq2_0", 2, "llama", (256, 256, 1, 4, 1, 64), 32, False, False, tq2_0, ("blk.0.attn_k",), 2.0)
# Norms of queries and keys, and heads that are no part of the width.
write("qwen3.i2_s", 3, "qwen3", (64, 96, 2, 4, 2, 24), 48, False, False, i2_s)
# Biases, YaRN, and some matrices of ones that have their scale beside them.
write("qwen2.tq2_0", 4, "qwen2", (256, 256, 1, 4, 2, 64), 32, True, False, tq2_0, biases=("attn_q", "attn_k", "attn_v"),
      scaled=("attn_q", "ffn_down"), yarn=dict(factor=4.0, original=16, fast=8.0, slow=1.0, attention=1.125))
# Every product has a bias, of which rows of rotary pairs are permuted too; frequencies have factors of their own.
write("llama.i2_s", 5, "llama", (64, 96, 1, 4, 2, 16), 32, True, False, i2_s, factors=[1.0, 1.0, 1.25, 1.75, 3.0, 8.0, 8.0, 8.0],
      biases=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), scaled=("attn_k",))
