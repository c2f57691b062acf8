// Pictures of training: the loss, a matrix, and a histogram of its latent weights.

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [480, 200, 34, 20];

function shape(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

/** Losses by step, raw and smoothed. `vals` are [step, loss] of the validation text. */
export function drawCurve(svg, losses, vals, steps) {
  // The loss of a skipped step is NaN: it is not drawn.
  const finite = (points) => points.filter(([, loss]) => Number.isFinite(loss));
  const [points, held] = [finite(losses.map((loss, i) => [i + 1, loss])), finite(vals)];
  const top = Math.ceil(Math.max(1, ...[...points, ...held].map(([, loss]) => loss)));
  const x = (step) => LEFT + (WIDTH - LEFT - 6) * step / steps;
  const y = (loss) => 12 + (HEIGHT - BOTTOM - 12) * (1 - loss / top);
  const parts = [];
  for (let tick = 0; tick <= top; tick += Math.ceil(top / 6)) {
    parts.push(shape("path", { class: "axis", d: `M${LEFT} ${y(tick)}H${WIDTH - 6}` }));
    parts.push(shape("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  parts.push(shape("text", { x: LEFT, y: HEIGHT - 4 }, "0"));
  parts.push(shape("text", { x: WIDTH - 6, y: HEIGHT - 4, "text-anchor": "end" }, `${steps} steps`));
  const place = ([step, loss]) => `${x(step).toFixed(1)} ${y(loss).toFixed(1)}`;
  const path = (points) => points.length ? `M${points.map(place).join("L")}` : "";
  let mean = points[0]?.[1];
  const smooth = points.map(([step, loss]) => [step, mean += 0.3 * (loss - mean)]);
  parts.push(shape("path", { class: "raw-loss", d: path(points) }), shape("path", { class: "train-loss", d: path(smooth) }));
  for (const [step, loss] of held) parts.push(shape("circle", { class: "val-loss", cx: x(step), cy: y(loss), r: 3 }));
  svg.replaceChildren(...parts);
}

/** Draws one pixel for each weight. */
export function drawCodes(canvas, { outs, dim, codes }) {
  canvas.width = dim;
  canvas.height = outs;
  const style = getComputedStyle(canvas);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const colours = ["--minus", "--zero", "--plus"].map((name) => {
    context.fillStyle = style.getPropertyValue(name);
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  });
  const image = context.createImageData(dim, outs);
  codes.forEach((code, i) => image.data.set(colours[code + 1], 4 * i));
  context.putImageData(image, 0, 0);
}

/** A histogram of latent weights from -3 to 3 scales, in the colours of their codes. */
export function drawHistogram(svg, histogram) {
  const most = Math.max(...histogram);
  const [width, floor] = [300 / histogram.length, 112];
  const bars = [...histogram].map((count, i) => {
    const scales = (i + 0.5) / histogram.length * 6 - 3;
    const height = 104 * count / most;
    const name = scales < -0.5 ? "minus" : scales > 0.5 ? "plus" : "zero";
    return shape("rect", { class: name, x: i * width, y: floor - height, width: width - 0.4, height });
  });
  const ticks = [-2, -1, 0, 1, 2].map((scales) =>
    shape("text", { x: (scales + 3) * 50, y: 126, "text-anchor": "middle" }, String(scales).replace("-", "\u2212")));
  svg.replaceChildren(...bars, shape("path", { class: "axis", d: `M0 ${floor}H300` }), ...ticks);
}

/** The shares of -1, 0 and 1 in per cent. */
export function shares(codes) {
  const counts = [0, 0, 0];
  for (const code of codes) counts[code + 1] += 1;
  return counts.map((n) => Math.round(100 * n / codes.length));
}
