// The page of `videomae export --format web`: a model that runs in the browser, on a file or a camera.
// The same steps as `videomae classify`, by the numbers and rules in facts.json.
const at = (id) => document.getElementById(id);
const TOP = 5;
const FRAMES_TO_MEASURE = 12; // of a file, to find its rate
const USUAL_RATE = 30; // frames a second, where a browser does not say
const facts = await (await fetch("facts.json")).json();
const [, count, , high, wide] = facts.input.shape;
const preview = at("preview");
let ort, session, camera, turn = 0; // another turn has begun: what is under way is given up

function say(text, kind = "") {
  at("status").textContent = text;
  at("status").className = kind;
}

// The bilinear filter along one axis, widened where it becomes shorter: [first, weights] of each.
function filter(before, after) {
  const [step, reach] = [before / after, Math.max(before / after, 1)];
  return Array.from({ length: after }, (_, place) => {
    const centre = (place + 0.5) * step - 0.5;
    const first = Math.max(0, Math.ceil(centre - reach));
    const last = Math.min(before - 1, Math.floor(centre + reach));
    const weights = [];
    for (let k = first; k <= last; k++) weights.push(Math.max(0, 1 - Math.abs(k - centre) / reach));
    const sum = weights.reduce((a, b) => a + b);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// The size of a picture after resizing, and where its crop begins.
function sizes(width, height) {
  let [toWide, toHigh] = [width, height];
  if (facts.resize?.shortest_edge) {
    const short = Math.min(width, height);
    toWide = Math.floor((facts.resize.shortest_edge * width) / short);
    toHigh = Math.floor((facts.resize.shortest_edge * height) / short);
  } else if (facts.resize) [toWide, toHigh] = [facts.resize.width, facts.resize.height];
  const crop = facts.crop ?? [toHigh, toWide];
  return [toWide, toHigh, (toWide - crop[1]) >> 1, (toHigh - crop[0]) >> 1];
}

const canvas = document.createElement("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });

// The frame that a video element shows, resized and cropped: bytes (row, column, RGBA).
function look(video) {
  const [width, height] = [(canvas.width = video.videoWidth), (canvas.height = video.videoHeight)];
  context.drawImage(video, 0, 0);
  const bytes = context.getImageData(0, 0, width, height).data;
  const [toWide, toHigh, left, top] = sizes(width, height);
  const columns = filter(width, toWide).slice(left, left + wide);
  const rows = filter(height, toHigh).slice(top, top + high);
  const thin = new Float32Array(height * wide * 3);
  for (let y = 0; y < height; y++)
    columns.forEach(([first, weights], x) => {
      let [r, g, b] = [0, 0, 0];
      for (let k = 0, i = 4 * (y * width + first); k < weights.length; k++, i += 4) {
        r += weights[k] * bytes[i];
        g += weights[k] * bytes[i + 1];
        b += weights[k] * bytes[i + 2];
      }
      thin.set([r, g, b], 3 * (y * wide + x));
    });
  const made = new Uint8ClampedArray(high * wide * 4).fill(255);
  rows.forEach(([first, weights], y) => {
    for (let x = 0; x < wide; x++)
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++)
          sum += weights[k] * thin[3 * ((first + k) * wide + x) + channel];
        made[4 * (y * wide + x) + channel] = Math.round(sum);
      }
  });
  return made;
}

// Which of n frames make the clip in the middle of a video.
function chosen(n) {
  const stride = facts.frame_stride;
  const start = Math.max(0, n - (count - 1) * stride - 1) >> 1;
  return Array.from({ length: count }, (_, k) =>
    stride ? Math.min(start + k * stride, n - 1) : Math.floor((n * (k + 0.5)) / count),
  );
}

// Asks the model about frames, and shows its answer.
async function answer(frames, words) {
  const pixels = new Float32Array(count * 3 * high * wide);
  frames.forEach((bytes, frame) => {
    for (let channel = 0; channel < 3; channel++) {
      const [mean, std] = [facts.mean[channel], facts.std[channel]];
      const from = (3 * frame + channel) * high * wide;
      for (let k = 0; k < high * wide; k++)
        pixels[from + k] = (bytes[4 * k + channel] * facts.scale - mean) / std;
    }
  });
  const clip = new ort.Tensor("float32", pixels, [1, count, 3, high, wide]);
  const begin = performance.now();
  const logits = (await session.run({ [facts.input.name]: clip }))[facts.output.name].data;
  const ms = Math.round(performance.now() - begin);
  const top = Math.max(...logits);
  const powers = [...logits].map((value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b);
  const scores = [...logits].map((value, label) =>
    facts.output.activation === "softmax" ? powers[label] / sum
    : facts.output.activation === "sigmoid" ? 1 / (1 + Math.exp(-value))
    : value,
  );
  const order = scores.map((_, label) => label).sort((a, b) => scores[b] - scores[a]).slice(0, TOP);
  at("scores").replaceChildren(...order.map((label) => row(facts.labels[label], scores[label])));
  say(`${words}; ${ms} ms for the model`);
}

function row(label, score) {
  const item = document.createElement("li");
  const [name, number, bar, part] = ["span", "span", "i", "i"].map((tag) =>
    document.createElement(tag),
  );
  const share = Boolean(facts.output.activation);
  name.textContent = label.replaceAll("_", " ");
  number.textContent = share ? `${Math.round(100 * score)} %` : score.toPrecision(3);
  item.dataset.score = score;
  bar.className = "bar";
  part.style.width = `${100 * score}%`;
  bar.append(part);
  item.append(name, number, ...(share ? [bar] : []));
  return item;
}

function showFrames(frames) {
  at("frames").replaceChildren(
    ...frames.map((bytes, index) => {
      const picture = document.createElement("canvas");
      [picture.width, picture.height] = [wide, high];
      picture.getContext("2d").putImageData(new ImageData(bytes, wide, high), 0, 0);
      const image = new Image();
      image.src = picture.toDataURL();
      image.alt = `Frame ${index + 1} of ${frames.length}`;
      return image;
    }),
  );
}

const once = (target, name) =>
  new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));

// Frames a second of the file in the preview, by the times of its first frames.
async function rate() {
  if (!preview.requestVideoFrameCallback) return USUAL_RATE;
  const times = new Set();
  await preview.play();
  await new Promise((resolve) => {
    const note = (_, frame) => {
      times.add(frame.mediaTime);
      if (times.size < FRAMES_TO_MEASURE && !preview.ended) preview.requestVideoFrameCallback(note);
      else resolve();
    };
    preview.requestVideoFrameCallback(note);
    preview.addEventListener("ended", resolve, { once: true });
  });
  preview.pause();
  // The least step: where a slow device left frames out, others are longer.
  const sorted = [...times].sort((a, b) => a - b);
  const steps = sorted.slice(1).map((time, k) => time - sorted[k]);
  return steps.length ? 1 / Math.min(...steps) : USUAL_RATE;
}

// Frames of the file in the preview: up to the last that it shows, for its sound may be longer.
async function numFrames(own) {
  const byLength = Math.round(preview.duration * own);
  if (!preview.requestVideoFrameCallback) return byLength;
  const shown = new Promise((resolve) =>
    preview.requestVideoFrameCallback((_, frame) => resolve(Math.round(frame.mediaTime * own) + 1)),
  );
  preview.currentTime = preview.duration;
  const late = new Promise((resolve) => setTimeout(resolve, 2000, byLength));
  return Math.min(byLength, await Promise.race([shown, late]));
}

async function classify(file) {
  stop();
  const mine = ++turn;
  at("scores").replaceChildren();
  at("frames").replaceChildren();
  say("Reading the video", "busy");
  URL.revokeObjectURL(preview.src);
  preview.srcObject = null;
  preview.src = URL.createObjectURL(file);
  const opened = await Promise.race([once(preview, "loadeddata"), once(preview, "error")]);
  if (mine !== turn) return;
  if (opened.type === "error") {
    say(`${file.name} cannot be played by this browser; give it an mp4 or webm file`, "wrong");
    return;
  }
  preview.hidden = false;
  at("invite").hidden = true;
  const own = await rate();
  const shown = facts.fps || own;
  const total = await numFrames(own);
  if (mine !== turn) return;
  const ticks = facts.fps ? Math.floor(((total - 1) / own) * shown + 0.1) + 1 : total;
  const seen = new Map();
  for (const index of chosen(ticks)) {
    if (seen.has(index)) continue;
    // The middle of a frame's time, so that rounding cannot lead to its neighbour.
    preview.currentTime = facts.fps ? index / shown : (index + 0.5) / own;
    await once(preview, "seeked");
    if (mine !== turn) return;
    seen.set(index, look(preview));
    say(`Reading the video: ${seen.size} of ${count} frames`, "busy");
  }
  const frames = chosen(ticks).map((index) => seen.get(index));
  showFrames(frames);
  await answer(frames, `${seen.size} of ${ticks} frames, ${own.toFixed(own % 1 > 0.05 ? 2 : 0)} a second`);
  preview.loop = true;
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) preview.play();
}

function stop() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  at("camera").textContent = "Use the camera";
}

// Answers about the last frames of the camera, again and again.
async function watch() {
  const mine = ++turn;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`, "wrong");
    return;
  }
  at("camera").textContent = "Stop the camera";
  preview.loop = false;
  preview.srcObject = camera;
  preview.hidden = false;
  at("invite").hidden = true;
  await preview.play();
  const span = facts.frame_stride ? (count - 1) * facts.frame_stride + 1 : 4 * count;
  const kept = [];
  let [asking, next] = [false, 0];
  const note = async (_, frame) => {
    if (mine !== turn || !camera) return;
    preview.requestVideoFrameCallback(note);
    if (facts.fps && frame.mediaTime < next) return;
    next = frame.mediaTime + 0.9 / (facts.fps || USUAL_RATE);
    kept.push(look(preview));
    if (kept.length > span) kept.shift();
    if (kept.length < span) say(`Watching: ${kept.length} of ${span} frames`, "busy");
    else if (!asking) {
      asking = true;
      const frames = chosen(span).map((index) => kept[index]);
      await answer(frames, `The last ${span} frames of the camera`);
      if (mine === turn) showFrames(frames);
      asking = false;
    }
  };
  preview.requestVideoFrameCallback(note);
}

at("file").onchange = (event) => event.target.files[0] && classify(event.target.files[0]);
for (const name of ["dragenter", "dragover", "dragleave", "drop"])
  at("drop").addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) classify(event.dataTransfer.files[0]);
  });
for (const each of ["dragover", "drop"])
  window.addEventListener(each, (event) => event.preventDefault());
at("camera").onclick = () => {
  if (!camera) return watch();
  turn++;
  stop();
  preview.hidden = true;
  at("invite").hidden = false;
  say("The camera is off.");
};

say("Loading the model", "busy");
try {
  ort = await import("./ort/ort.wasm.bundle.min.mjs");
  ort.env.wasm.wasmPaths = { wasm: new URL("ort/ort-wasm-simd-threaded.wasm", location.href).href };
  ort.env.wasm.numThreads = 1; // more need headers that plain servers do not send
  const model = await (await fetch("model.onnx")).arrayBuffer();
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  say(`The model is here: ${(model.byteLength / 1e6).toFixed(1)} MB. Nothing to look at yet.`);
  at("camera").hidden = !(navigator.mediaDevices?.getUserMedia && preview.requestVideoFrameCallback);
} catch (error) {
  say(`The model cannot be loaded (${error.message}); was npm install run in this folder?`, "wrong");
}
