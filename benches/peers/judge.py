#!/usr/bin/env python3
"""An independent judge: does stock llama.cpp compute the same from the same file?

    nanotern train --dataset text --data-path text.txt --set model.group_size=256
    nanotern export --format tq2_0 --output model.gguf
    pip install llama-cpp-python numpy       # builds llama.cpp
    python benches/peers/judge.py --model model.gguf --text text.txt

Both sides score the last tenth of the text in windows of the context, and continue it greedily from 25 positions. Prints both
perplexities and the number of equal continuations. llama.cpp quantises activations in blocks of 256, nanotern by token, so
a feed-forward layer wider than 256 gives slightly different results.
"""
import argparse, json, subprocess, tempfile
from pathlib import Path

import numpy as np
from llama_cpp import Llama


def nanotern(args, *words):
    command = [args.nanotern, *words, "--model", args.model, "--backend", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def llama_nats(llm, ids, window):
    """Mean cross-entropy of the windows of ids."""
    nats = []
    for start in range(0, len(ids) - window, window):
        llm.reset()
        llm.eval(ids[start : start + window])
        logits = np.array(llm.scores[:window], dtype=np.float64)
        top = logits.max(1, keepdims=True)
        lse = top[:, 0] + np.log(np.exp(logits - top).sum(1))
        nats.extend(lse - logits[np.arange(window), ids[start + 1 : start + window + 1]])
    return float(np.mean(nats))


def llama_greedy(llm, prompt, tokens):
    out = []
    llm.reset()
    for token in llm.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        if token == llm.token_eos():
            break
        out.append(token)
        if len(out) == tokens:
            break
    return llm.detokenize(out).decode(errors="replace")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, help="GGUF in tq2_0 or tq1_0")
    ap.add_argument("--text", required=True, type=Path)
    ap.add_argument("--nanotern", default="target/release/nanotern")
    ap.add_argument("--window", type=int, default=256, help="the model's context")
    ap.add_argument("--tokens", type=int, default=24, help="tokens of a continuation")
    args = ap.parse_args()
    text = args.text.read_text(encoding="utf-8")
    text = text[int(len(text) * 0.9) :]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as held_out:
        held_out.write(text)
        held_out.flush()
        ours = json.loads(nanotern(args, "eval", "perplexity", "--data-path", held_out.name, "--json"))
    kv_f32 = dict(type_k=0, type_v=0)
    llm = Llama(args.model, n_ctx=args.window, n_batch=args.window, logits_all=True, verbose=False, **kv_f32)
    ids = llm.tokenize(text.encode(), add_bos=False, special=False)
    theirs = llama_nats(llm, ids, args.window)
    print(f"perplexity: ours {ours['perplexity']:.3f}, llama.cpp {np.exp(theirs):.3f}, over {ours['tokens']} tokens")
    same, rng = 0, np.random.default_rng(0)
    for start in rng.integers(0, len(ids) - 100, 25):
        prompt = llm.detokenize(ids[start : start + 24]).decode(errors="ignore")
        have = llama_greedy(llm, llm.tokenize(prompt.encode(), add_bos=False, special=False), args.tokens)
        words = ("generate", "--prompt", prompt, "--max-tokens", str(args.tokens), "--temperature", "0")
        same += have.rstrip() == nanotern(args, *words)[len(prompt) :].rstrip()
    print(f"greedy continuations of {args.tokens} tokens that are the same: {same} of 25")


if __name__ == "__main__":
    main()
