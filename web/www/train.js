// The part of the page that trains. It runs the steps of a session of nanotern.js until the user pauses, and draws them.

import { download, element } from "./dom.js";
import { drawCodes, drawCurve, drawHistogram, shares } from "./draw.js";
import { smallText } from "./text.js";

const STEP_SECONDS = 0.25; // from one reading of the statistics to the next
const PICTURE_MS = 700; // from one picture of the weights to the next
const SAMPLES = 10; // per run

export function setUpTraining({ device, failed, dismiss, chatWith }) {
  const ui = Object.fromEntries([...document.querySelectorAll("#train [id]")].map((node) => [node.id, node]));
  const form = ui.shape;
  const fields = form.elements;
  let session = null; // { training, losses, vals, steps, seconds, ... }
  let running = false;

  function config() {
    const number = (name) => Number(fields[name].value);
    const [dim, total_steps] = [number("dim"), number("total_steps")];
    const heads = dim / 32;
    return {
      model: { dim, layers: number("layers"), heads, kv_heads: heads, ffn: 2 * dim, seq_len: number("seq_len"),
        group_size: 64, mhc_streams: number("mhc_streams") },
      train: { batch_size: number("batch_size"), total_steps, seed: number("seed"), eval_windows: 8 },
      optim: { warmup_steps: Math.min(20, Math.ceil(total_steps / 10)) },
    };
  }

  function show() {
    const done = session && session.losses.length === session.steps;
    for (const field of fields) if (field.matches("input, select, textarea")) field.disabled = Boolean(session);
    ui.start.hidden = ui.intro.hidden = Boolean(session);
    ui.views.hidden = !session;
    ui.start.disabled = !device();
    ui.pause.hidden = !session || done;
    ui.pause.textContent = running ? "Pause" : "Resume";
    ui.pause.disabled = false;
    ui.end.hidden = !session || running;
    ui.results.hidden = !session?.losses.length || running;
    ui["save-mhc"].hidden = session?.training.info.config.model.mhc_streams === 1;
    if (session) say();
  }

  function say() {
    const { losses, steps, seconds, training: { info } } = session;
    const state = running ? "Training" : losses.length === steps ? "Done" : "Paused";
    if (ui.state.textContent !== state) ui.state.textContent = state; // a screen reader reads it
    const speed = seconds ? `, ${Math.round(losses.length * info.tokens_per_step / seconds).toLocaleString()} tok/s` : "";
    ui.training.textContent = `${state}: step ${losses.length} of ${steps}${speed}. `
      + `${info.parameters.toLocaleString()} parameters, ${(info.device_bytes / 2 ** 20).toFixed(1)} MiB on the device.`;
  }

  async function start() {
    dismiss();
    ui.start.disabled = true;
    ui.training.textContent = "Preparing";
    try {
      const wanted = config();
      const training = await device().train(fields.text.value, wanted);
      session = { training, losses: [], vals: [], steps: wanted.train.total_steps, seconds: 0, sampled: 0, drawn: 0 };
      ui.samples.replaceChildren();
      ui.matrix.replaceChildren(...training.info.matrices.map((name) => new Option(name)));
      await run();
    } catch (error) {
      ui.training.textContent = "";
      failed(error);
      show();
    }
  }

  async function run() {
    const mine = session;
    const { training, losses, steps } = mine;
    running = true;
    show();
    let n = 1;
    try {
      if (!losses.length) await picture(mine);
      while (running && session === mine && losses.length < steps) {
        const begun = performance.now();
        const stats = await training.step(n);
        const seconds = (performance.now() - begun) / 1000;
        mine.seconds += seconds;
        losses.push(...stats.map(({ loss }) => loss ?? NaN));
        n = Math.max(1, Math.min(16, 2 * n, Math.round(n * STEP_SECONDS / seconds)));
        if (session !== mine) return;
        draw(mine);
        if (performance.now() - mine.drawn > PICTURE_MS) await picture(mine);
        if (losses.length >= steps * (mine.sampled + 1) / SAMPLES) await sample(mine);
      }
      if (session === mine) await picture(mine);
    } catch (error) {
      failed(error);
    }
    running = false;
    show();
  }

  function draw({ losses, vals, steps }) {
    drawCurve(ui.curve, losses, vals, steps);
    const val = vals.length ? `, validation ${vals.at(-1)[1].toFixed(3)}` : "";
    ui.loss.textContent = `${losses.at(-1).toFixed(3)} nats a byte${val}`;
    say();
  }

  async function picture(mine) {
    const matrix = await mine.training.weights(ui.matrix.value);
    if (session !== mine) return;
    drawCodes(ui.codes, matrix);
    drawHistogram(ui.histogram, matrix.histogram);
    ui.shares.textContent = `${shares(matrix.codes).join(" / ")} %, ${matrix.outs} by ${matrix.dim}`;
    mine.drawn = performance.now();
  }

  async function sample(mine) {
    const { training, losses, vals, steps } = mine;
    mine.sampled = Math.floor(losses.length * SAMPLES / steps);
    vals.push([losses.length, await training.validate()]);
    const prompt = fields.text.value.slice(0, 9);
    const text = await training.sample(prompt, { max_tokens: 60, temperature: 0.4, seed: losses.length });
    if (session !== mine) return;
    ui.samples.prepend(element("li", {}, element("span", {}, `step ${losses.length}`), prompt + text));
    draw(mine);
  }

  async function saveModel(kind) {
    download(`model.${kind}`, (await session.training.export())[kind]);
  }

  function setText(text) {
    fields.text.value = text;
    count();
  }

  function count() {
    ui.length.textContent = `${new Blob([fields.text.value]).size.toLocaleString()} bytes.`;
  }

  const on = (id, action) => ui[id].addEventListener("click", () => action()?.catch?.(failed));
  form.addEventListener("submit", (event) => { event.preventDefault(); start(); });
  fields.text.addEventListener("input", count);
  on("pause", () => {
    if (!running) return run();
    running = false;
    ui.pause.disabled = true; // until the current step has ended
  });
  on("end", async () => { await session?.training.free(); reset(); });
  on("use", async () => chatWith(await session.training.use()));
  on("save-gguf", () => saveModel("gguf"));
  on("save-mhc", () => saveModel("mhc"));
  on("text-pick", () => ui["text-file"].click());
  on("text-small", () => { if (!session) setText(smallText()); });
  ui["text-file"].addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (file && !session) setText(await file.text());
    target.value = "";
  });
  ui.matrix.addEventListener("change", () => { if (session) picture(session).catch(failed); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (session) picture(session).catch(failed); });

  // The session has ended, perhaps with its device.
  function reset() {
    session = null;
    running = false;
    ui.training.textContent = ui.state.textContent = "";
    show();
  }
  setText(smallText());
  show();
  return { reset, ready: show };
}
