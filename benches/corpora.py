#!/usr/bin/env python3
"""Peak memory and time of `data prepare` on six kinds of text, and of the same after a BPE was trained on each.

usage: corpora.py NANOTERN TOKENIZER.json [MEGABYTES]     (by default 1000; needs six times that on the disk)
"""
import os, random, subprocess, sys, tempfile, time

program, tokenizer = (os.path.abspath(path) for path in sys.argv[1:3])
size = int(sys.argv[3]) * 10**6 if len(sys.argv) > 3 else 10**9
random.seed(1)
words = ["".join(random.choices("etaoinshrdlu", k=random.randint(1, 9))) for _ in range(20000)]


def english(end):
    return lambda: " ".join(random.choices(words, k=12)) + end


KINDS = {
    "LF": english(".\n"),
    "CRLF": english(".\r\n"),
    "one line": english(". "),
    "Chinese": lambda: "".join(chr(random.randint(0x4E00, 0x9FA5)) for _ in range(60)) + "。",
    "DNA": lambda: "".join(random.choices("ACGT", k=200)),
    "blanks": lambda: " " * 200,
}

with tempfile.TemporaryDirectory(dir=".") as folder:
    corpus = os.path.join(folder, "corpus.txt")
    for kind, unit in KINDS.items():
        with open(corpus, "w", newline="", encoding="utf-8") as file:
            part = "".join(unit() for _ in range(20000))  # repeated: making 1 GB of it would take longer than encoding it
            length = len(part.encode())
            for _ in range(size // length + 1):
                file.write(part)
        for name in (tokenizer, "bpe"):
            command = [program, "data", "prepare", "--input", corpus, "--output", f"{folder}/out", "--tokenizer", name]
            start = time.monotonic()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.monotonic() - start
            name = os.path.basename(name)
            print(f"{kind:10} {name:24} {seconds:7.1f} s {usage.ru_maxrss / 1024:7.0f} MiB, ended with {status}", flush=True)
