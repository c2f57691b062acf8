#!/usr/bin/env python3
"""Compares inference with llama.cpp: the same ternary weights, on the same machine, in one run.

    cargo build --release
    pip install gguf numpy llama-cpp-python      # builds llama.cpp for this machine
    python benches/peers/inference.py            # --shapes 18m 125m --head f16 --rounds 5
    python benches/peers/inference.py --busy     # what a busy core costs

Writes models of random ternary weights, with one scale for each 256, as two files: tq2_0, which both programs read, and
q2_k, which holds the same weights exactly and for which llama.cpp has its fastest matrix products. Measures decoding with 1
and 2 threads and prefill of 128 and 512 tokens with 2. In a round the sides run one after the other and take turns at going
first. A figure is the median of the rounds. A ratio is the median of the rounds' ratios; above 1, nanotern is faster.
llama.cpp is called through its C interface in one process for all rounds, which is idle while nanotern runs: with flash
attention, one call of llama_decode for a prompt and one for each token. Both sides sample greedily (llama.cpp by numpy's
argmax over its logits in place) and feed back what they sampled. Loading the weights, allocating the buffers and one warm-up
measurement are not counted.
"""
import argparse, json, os, platform, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from train_step import cpu_model

# dim, layers, heads, kv heads, ffn, vocabulary
SHAPES = {
    "18m": (256, 6, 4, 4, 768, 50257),
    "125m": (768, 12, 12, 12, 2048, 50257),
    "560m": (1280, 24, 20, 20, 3584, 50257),
    "2b": (2560, 30, 20, 5, 6912, 128256),
}
CONTEXT, GROUP, PROMPT, DRAWN = 2048, 256, 16, 64
# name, kind, tokens, threads
WORKS = [("decode, 1 thread", "decode", DRAWN, 1), ("decode, 2 threads", "decode", DRAWN, 2),
         ("prefill 128, 2 threads", "prefill", 128, 2), ("prefill 512, 2 threads", "prefill", 512, 2)]
BUSY = ("decode", 512, 2)  # long enough for many time slices
QUIET = llama_cpp.llama_log_callback(lambda *_: None)


# ---------------------------------------------------------------- the files
def ternary(rng, rows, dim, kind):
    """A random ternary matrix in blocks of 256 codes and a scale, as tq2_0 or as q2_k with the same weights."""
    blocks = rows * dim // GROUP
    codes = rng.integers(0, 3, (blocks, 2, 4, 32), dtype=np.uint8)
    packed = (codes << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(2, dtype=np.uint8).reshape(blocks, 64)
    scale = (rng.uniform(0.8, 1.6, (blocks, 1)) / np.sqrt(dim)).astype(np.float16).view(np.uint8)
    if kind == "tq2_0":
        parts, kind = [packed, scale], gguf.GGMLQuantizationType.TQ2_0
    else:  # value = scale * (1 * code - 1)
        ones = np.full((blocks, 16), 0x11, np.uint8)
        parts, kind = [ones, packed, scale, scale], gguf.GGMLQuantizationType.Q2_K
    return np.concatenate(parts, 1).reshape(rows, -1), kind


def table(rng, rows, dim, head):
    """The embedding, which is also the head."""
    values = 0.02 * rng.standard_normal((rows, dim), dtype=np.float32)
    kind = gguf.GGMLQuantizationType[head.upper()]
    return gguf.quants.quantize(values, kind), kind


def write_model(path, shape, kind, head):
    dim, layers, heads, kv_heads, ffn, vocab = SHAPES[shape]
    rng = np.random.default_rng(1)
    out = gguf.GGUFWriter(path, "bitnet")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(dim)
    out.add_block_count(layers)
    out.add_feed_forward_length(ffn)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(dim // heads)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(vocab)
    out.add_tokenizer_model("none")

    def norm(name, n):
        out.add_tensor(name, np.ones(n, np.float32))

    def matrix(name, rows, cols):
        data, dtype = ternary(rng, rows, cols, kind)
        out.add_tensor(name, data, raw_dtype=dtype)

    data, dtype = table(rng, vocab, dim, head)
    out.add_tensor("token_embd.weight", data, raw_dtype=dtype)
    norm("output_norm.weight", dim)
    kv_dim = dim // heads * kv_heads
    for b in (f"blk.{i}" for i in range(layers)):
        for name, n in (("attn", dim), ("attn_sub", dim), ("ffn", dim), ("ffn_sub", ffn)):
            norm(f"{b}.{name}_norm.weight", n)
        matrix(f"{b}.attn_q.weight", dim, dim)
        matrix(f"{b}.attn_k.weight", kv_dim, dim)
        matrix(f"{b}.attn_v.weight", kv_dim, dim)
        matrix(f"{b}.attn_output.weight", dim, dim)
        matrix(f"{b}.ffn_gate.weight", ffn, dim)
        matrix(f"{b}.ffn_up.weight", ffn, dim)
        matrix(f"{b}.ffn_down.weight", dim, ffn)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---------------------------------------------------------------- the llama.cpp side
class Llama:
    """A model in llama.cpp, with one sequence."""

    def __init__(self, path):
        self.c = c = llama_cpp
        options = c.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = c.llama_model_load_from_file(str(path).encode(), options)
        options = c.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = 1024, 512, 512
        options.flash_attn_type = 1
        self.context = self.model and c.llama_init_from_model(self.model, options)
        if not self.context:
            sys.exit(f"llama.cpp cannot open {path}")
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.rng = np.random.default_rng(2)

    def close(self):
        self.c.llama_free(self.context)
        self.c.llama_model_free(self.model)

    def feed(self, tokens):
        """Runs tokens in one call; returns the likeliest next token."""
        ids = (self.c.llama_token * len(tokens))(*tokens)
        if self.c.llama_decode(self.context, self.c.llama_batch_get_one(ids, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        logits = self.c.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())

    def measure(self, kind, tokens, threads):
        """Tokens per second."""
        self.c.llama_set_n_threads(self.context, threads, threads)
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        prompt = self.rng.integers(0, self.vocab, tokens if kind == "prefill" else PROMPT).tolist()
        start = time.perf_counter()
        token = self.feed(prompt)
        if kind == "decode":
            start = time.perf_counter()
            for _ in range(tokens):
                token = self.feed([token])
        return tokens / (time.perf_counter() - start)

    def median(self, work, repeats):
        return statistics.median([self.measure(*work) for _ in range(repeats + 1)][1:])


# ---------------------------------------------------------------- our side
def ours(args, path, work):
    kind, tokens, threads = work
    command = [args.nanotern, "bench", kind, "--json", "--backend", "cpu", "--model", str(path)]
    command += ["--tokens", str(tokens), "--threads", str(threads), "--repeats", str(args.repeats)]
    command += ["--prompt", str(PROMPT)] if kind == "decode" else []
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return report["tok_per_s"]


class Spinner:
    """Keeps one core busy. On Linux the process is pinned to it."""

    def __enter__(self):
        core = max(os.sched_getaffinity(0))
        code = f"import os; os.sched_setaffinity(0, {{{core}}}); print('spins', flush=True)\nwhile True: pass"
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


# ---------------------------------------------------------------- the rounds
def rates(sides, rounds, label):
    """Tokens per second of each side in each round."""
    found = {side: [] for side in sides}
    for n in range(rounds):
        order = list(sides)
        for side in order[n % len(order) :] + order[: n % len(order)]:
            found[side].append(sides[side]())
        figures = ", ".join(f"{side} {found[side][-1]:.1f}" for side in sides)
        print(f"{label}, round {n + 1}: {figures} tok/s", file=sys.stderr, flush=True)
    return found


def compare(args, shape, files):
    """The rows of the table for one shape."""
    llamas = {kind: Llama(path) for kind, path in files.items()}
    for name, *work in WORKS:
        sides = {"nanotern": lambda: ours(args, files["tq2_0"], work)}
        for kind, llama in llamas.items():
            sides[kind] = lambda llama=llama: llama.median(work, args.repeats)
        found = rates(sides, args.rounds, f"{shape}, {name}")
        ratio = {kind: statistics.median(a / b for a, b in zip(found["nanotern"], found[kind])) for kind in llamas}
        cells = [f"{statistics.median(found['nanotern']):,.0f}"]
        cells += [cell for kind in llamas for cell in (f"{statistics.median(found[kind]):,.0f}", f"{ratio[kind]:.2f}x")]
        print(f"| {shape} | {name} | {' | '.join(cells)} |", flush=True)
    for llama in llamas.values():
        llama.close()


def compare_busy(args, shape, files):
    """The rows of the table for one shape: each side alone, and beside a process that keeps a core busy."""
    llama = Llama(files["tq2_0"])

    def both(measure):
        alone = measure()
        with Spinner():
            return alone, measure()

    for side, measure in (
        ("nanotern", lambda: ours(args, files["tq2_0"], BUSY)),
        ("llama.cpp", lambda: llama.median(BUSY, args.repeats)),
    ):
        pairs = []
        for n in range(args.rounds):
            pairs.append(both(measure))
            alone, busy = pairs[-1]
            print(f"{shape}, {side}, round {n + 1}: {alone:.1f}, busy {busy:.1f} tok/s", file=sys.stderr, flush=True)
        alone, busy = (statistics.median(column) for column in zip(*pairs))
        share = statistics.median(b / a for a, b in pairs)
        print(f"| {shape} | {side} | {alone:,.0f} | {busy:,.0f} | {share:.2f} |", flush=True)
    llama.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target"))
    suffix = ".exe" if os.name == "nt" else ""
    parser.add_argument("--nanotern", default=str(target / "release" / f"nanotern{suffix}"), help="the program")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["18m", "125m"])
    parser.add_argument("--head", choices=("f16", "q8_0"), default="f16", help="how the embedding is stored")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="measurements a round, of which the median counts")
    parser.add_argument("--busy", action="store_true", help="what a busy core costs each side in decoding")
    args = parser.parse_args()
    llama_cpp.llama_log_set(QUIET, None)
    llama_cpp.llama_backend_init()
    load = os.getloadavg()[0]
    print(f"Random ternary weights, tables in {args.head}; {cpu_model()} ({os.cpu_count()} logical cores),")
    print(f"{platform.system()}; llama-cpp-python {llama_cpp.__version__}. Tokens a second, medians of {args.rounds} rounds.")
    print("" if load < 0.5 else f"Load average {load:.1f} before the run: other programs ran too, these figures are noise.\n")
    kinds = ["tq2_0"] if args.busy else ["tq2_0", "q2_k"]
    if args.busy:
        print("| shape | decode, 2 threads | alone | one core busy | busy / alone |\n|---|---|---:|---:|---:|")
    else:
        print("| shape | work | nanotern | llama.cpp tq2_0 | ratio | llama.cpp q2_k | ratio |\n|---|---|" + "---:|" * 5)
    for shape in args.shapes:
        with tempfile.TemporaryDirectory() as folder:
            files = {kind: Path(folder) / f"{kind}.gguf" for kind in kinds}
            for kind, path in files.items():
                write_model(path, shape, kind, args.head)
            (compare_busy if args.busy else compare)(args, shape, files)


if __name__ == "__main__":
    main()
