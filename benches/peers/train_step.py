#!/usr/bin/env python3
"""Compares training speed with PyTorch: the same network, batch and optimizers, on the same machine, in one run.

    cargo build --release
    pip install torch                       # torch.compile needs a C++ compiler too
    python benches/peers/train_step.py      # --rounds 5 --steps 5 --threads 2
    python benches/peers/train_step.py --config nano-125m --batch 1 --seq 512 --steps 1 --rounds 3 --peers eager

The work is forward, backward, clipping and update (Muon with 3 Newton-Schulz iterations for the ternary matrices, AdamW for the
rest) of a preset on batches of random tokens, in f32; by default the tiny preset and 8 x 256 tokens. The sides are `nanotern
bench train-step` on the CPU and the PyTorch model below, eager and under torch.compile. Each has a process of its own. In a
round they run one after the other, take turns at going first, and are stopped (SIGSTOP) while the others run. Compilation
and two warm-up steps are not counted. A round's figure is the median of its steps. Prints a Markdown table; the rounds go to
standard error. PyTorch's threads often wait for each other, so other programs slow it down more than their share: run
nothing else. Peak memory is the largest resident set of a process over its life, including what it loads and compiles.
"""
import argparse, json, math, os, platform, resource, signal, statistics, subprocess, sys, time
from pathlib import Path

GROUP = 128
# dim, layers, heads, ffn, vocabulary: the presets whose keys and values have as many heads as the queries
PRESETS = {
    "tiny": (256, 4, 4, 512, 4096),
    "d20": (256, 6, 4, 768, 50257),
    "nano-125m": (768, 12, 12, 2048, 50257),
}
NAMES = {"nanotern": "nanotern", "eager": "PyTorch, eager", "compile": "PyTorch, torch.compile"}


# ---------------------------------------------------------------- the PyTorch side
def build(torch, preset, context):
    """A preset and its optimizer: (model, step). `step(model, inputs, targets)` trains once, returns the loss."""
    nn, F = torch.nn, torch.nn.functional
    DIM, LAYERS, HEADS, FFN, VOCAB = preset

    class Straight(torch.autograd.Function):
        """Forward: the quantised value. Backward: the identity."""

        @staticmethod
        def forward(ctx, x, x_hat):
            return x_hat.view_as(x)

        @staticmethod
        def backward(ctx, dy):
            return dy, None

    def ternary(w):
        """Each GROUP consecutive inputs of a row share an f16 scale, the mean of |w|."""
        with torch.no_grad():
            g = w.reshape(w.shape[0], -1, GROUP)
            s = g.abs().mean(-1, keepdim=True).clamp_min(2.0**-14).half().to(w.dtype)
            w_hat = (((g > 0.5 * s).to(w.dtype) - (g < -0.5 * s).to(w.dtype)) * s).reshape(w.shape)
        return Straight.apply(w, w_hat)

    def int8(x):
        """One step for each token."""
        with torch.no_grad():
            a = x.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127.0
            x_hat = (x / a).round_().clamp_(-127, 127).mul_(a)
        return Straight.apply(x, x_hat)

    class BitLinear(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))

        def forward(self, x_hat):
            return F.linear(x_hat, ternary(self.weight))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (BitLinear(DIM, DIM) for _ in range(4))
            self.gate, self.up, self.down = BitLinear(DIM, FFN), BitLinear(DIM, FFN), BitLinear(FFN, DIM)
            self.norm1, self.norm2, self.norm3, self.norm4 = (nn.RMSNorm(n, eps=1e-6) for n in (DIM, DIM, DIM, FFN))

        def forward(self, x, cos, sin):
            def rope(t):
                t1, t2 = t.chunk(2, -1)
                return torch.cat([t1 * cos - t2 * sin, t2 * cos + t1 * sin], -1)

            batch, seq, _ = x.shape
            u = int8(self.norm1(x))
            q, k, v = (p(u).view(batch, seq, HEADS, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True)
            x = x + self.o(int8(self.norm3(y.transpose(1, 2).reshape(batch, seq, DIM))))
            u = int8(self.norm2(x))
            return x + self.down(int8(self.norm4(F.silu(self.gate(u)) * self.up(u))))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, DIM)
            nn.init.normal_(self.embed.weight, std=0.02)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.norm = nn.RMSNorm(DIM, eps=1e-6)
            half = DIM // HEADS // 2
            angle = torch.outer(torch.arange(context).double(), 10000.0 ** (-torch.arange(half).double() / half))
            self.register_buffer("cos", angle.cos().float(), persistent=False)
            self.register_buffer("sin", angle.sin().float(), persistent=False)

        def forward(self, inputs, targets):
            x = self.embed(inputs)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            logits = F.linear(self.norm(x), self.embed.weight)  # the head is the embedding
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def muon(w, g, m, lr=0.02, beta=0.95):
        m.mul_(beta).add_(g, alpha=1 - beta)
        x = (1 - beta) * g + beta * m  # Nesterov
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / (x.norm() + 1e-7)
        for _ in range(3):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        w.add_(x.T if tall else x, alpha=-lr * math.sqrt(max(1.0, w.shape[0] / w.shape[1])))

    def adamw(w, g, m, v, t, lr=3e-3, b1=0.9, b2=0.95):
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        w.addcdiv_(m / (1 - b1**t), (v / (1 - b2**t)).sqrt_().add_(1e-8), value=-lr)

    model, t = Model(), 0
    named = list(model.named_parameters())
    state = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in named}

    def step(forward, inputs, targets):
        nonlocal t
        t += 1
        loss = forward(inputs, targets)
        loss.backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for _, p in named]).norm()
            scale = torch.clamp(1.0 / (norm + 1e-6), max=1.0)
            for name, p in named:
                g, (m, v) = p.grad * scale, state[name]
                if name.startswith("layers.") and p.ndim == 2:
                    muon(p, g, m)
                else:
                    adamw(p, g, m, v, t)
                p.grad = None
        return loss.item()

    return model, step


def worker(kind, args):
    """Reads a number of steps from each line of standard input and answers with a line of JSON."""
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    preset = PRESETS[args.config]
    model, step = build(torch, preset, args.seq)
    forward = torch.compile(model) if kind == "compile" else model
    vocab, shape = preset[-1], (args.batch, args.seq)
    inputs, targets = torch.randint(vocab, shape), torch.randint(vocab, shape)
    losses = [step(forward, inputs, targets) for _ in range(2)]
    assert abs(losses[0] - math.log(vocab)) < 0.3, losses
    print(json.dumps({"torch": torch.__version__, "loss": losses[0]}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step(forward, inputs, targets)
            seconds.append(time.perf_counter() - start)
        rss = peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
        print(json.dumps({"seconds": seconds, "rss": rss}), flush=True)


# ---------------------------------------------------------------- the rounds
def peak_bytes(usage):
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Peer:
    """A PyTorch process, stopped unless it runs steps. Its process group includes the helpers of torch.compile."""

    def __init__(self, kind, args):
        command = [sys.executable, os.path.abspath(__file__), "--worker", kind, "--threads", str(args.threads)]
        command += ["--config", args.config, "--batch", str(args.batch), "--seq", str(args.seq)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, start_new_session=True, **pipes)
        self.about = self.answer()
        self.signal(signal.SIGSTOP)

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the PyTorch process ended: see above (pip install torch; torch.compile needs a C++ compiler)")
        return json.loads(line)

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def run(self, steps):
        self.signal(signal.SIGCONT)
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.signal(signal.SIGSTOP)
        return answer

    def close(self):
        self.signal(signal.SIGKILL)
        self.process.wait()


def ours(args):
    command = f"bench train-step --json --config {args.config} --backend cpu --threads {args.threads} --steps {args.steps}"
    command = f"{command} --set train.batch_size={args.batch} --set model.seq_len={args.seq}".split()
    process = subprocess.Popen([args.nanotern, *command], stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{args.nanotern} {' '.join(command)}: exit code {process.returncode}")
    report = json.loads(text)
    assert report["tokens_per_step"] == args.batch * args.seq, report
    return {"seconds": report["seconds"], "rss": peak_bytes(usage), "device": report["device"]}


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    suffix = ".exe" if os.name == "nt" else ""
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target"))
    parser.add_argument("--nanotern", default=str(target / "release" / f"nanotern{suffix}"), help="the program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="counted steps a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", choices=PRESETS, default="tiny", help="the preset")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--seq", type=int, default=256, help="tokens a sequence")
    parser.add_argument("--peers", nargs="+", choices=("eager", "compile"), default=["eager", "compile"])
    parser.add_argument("--worker", choices=("eager", "compile"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args)
    version = subprocess.run([args.nanotern, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    load = os.getloadavg()[0]
    peers = {}
    sides = ["nanotern", *args.peers]
    rounds = {side: [] for side in sides}
    try:
        for kind in args.peers:
            peers[kind] = Peer(kind, args)
        for n in range(args.rounds):
            first = n % len(sides)
            for side in sides[first:] + sides[:first]:
                run = peers[side].run(args.steps) if side in peers else ours(args)
                run["rate"] = args.batch * args.seq / statistics.median(run["seconds"])
                rounds[side].append(run)
            figures = ", ".join(f"{side} {rounds[side][-1]['rate']:.0f}" for side in sides)
            print(f"round {n + 1}: {figures} tok/s", file=sys.stderr, flush=True)
    finally:
        for peer in peers.values():
            peer.close()

    about = f"{version}, {rounds['nanotern'][0]['device']}; PyTorch {peers[args.peers[0]].about['torch']}"
    print(f"Training step, preset {args.config}, {args.batch} x {args.seq} tokens, Muon included; {args.threads} threads")
    print(f"of {cpu_model()} ({os.cpu_count()} logical cores), {platform.system()}; {about}.")
    print(f"Median (least to most) of {args.rounds} interleaved rounds of {args.steps} steps.")
    print("" if load < 0.5 else f"Load average {load:.1f} before the run: other programs ran too, these figures are noise.\n")
    print("| | tok/s | least to most | nanotern is faster by | peak memory |")
    print("|---|---:|---:|---:|---:|")
    for side in sides:
        rates = [run["rate"] for run in rounds[side]]
        times = statistics.median(o["rate"] / r for o, r in zip(rounds["nanotern"], rates))
        rss = max(run["rss"] for run in rounds[side]) / 2**20
        ratio = "" if side == "nanotern" else f"{times:.2f}x"
        print(f"| {NAMES[side]} | {statistics.median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} | {ratio} | {rss:,.0f} MiB |")


if __name__ == "__main__":
    main()
