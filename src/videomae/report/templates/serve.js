// The page of `videomae serve`: sends a video to the service it comes from, and shows the answer.
"use strict";
const at = (id) => document.getElementById(id);
const RECORD_SECONDS = 3;
let video = null; // the File or Blob that is looked at
let running = null; // the request on its way
let shown = {}; // tab -> the video and options whose answer it shows

function say(text, kind = "") {
  at("status").textContent = text;
  at("status").className = kind;
}

// Sends the video; resolves with the response's body, rejects with the words of a problem.
function post(path, fields, as) {
  running?.abort();
  const form = new FormData();
  form.append("file", video, video.name || "recording.webm");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  const request = (running = new XMLHttpRequest());
  request.open("POST", path);
  request.responseType = "blob";
  request.upload.onprogress = (event) =>
    say(`Uploading: ${Math.round((100 * event.loaded) / event.total)} %`, "busy");
  request.upload.onload = () => say("Decoding the frames, then asking the model", "busy");
  return new Promise((resolve, reject) => {
    request.onerror = () => reject("The service cannot be reached; does it still run?");
    request.onload = async () => {
      if (request.status === 200) {
        resolve(as === "json" ? JSON.parse(await request.response.text()) : request.response);
        return;
      }
      try {
        reject(JSON.parse(await request.response.text()).detail);
      } catch {
        reject(`The service answered with status ${request.status}.`);
      }
    };
    request.send(form);
  });
}

async function classify() {
  const found = await post("v1/classify", { top_k: 5, frames: true }, "json");
  at("scores").replaceChildren(
    ...found.predictions.map(({ label, score }) => {
      const row = document.createElement("li");
      const [name, number, bar, part] = ["span", "span", "i", "i"].map((tag) =>
        document.createElement(tag),
      );
      name.textContent = label.replaceAll("_", " ");
      number.textContent = found.are_shares ? `${Math.round(100 * score)} %` : score.toPrecision(3);
      bar.className = "bar";
      part.style.width = `${100 * score}%`;
      bar.append(part);
      row.append(name, number, ...(found.are_shares ? [bar] : []));
      return row;
    }),
  );
  at("frames").replaceChildren(
    ...found.frames.map((address, index) => {
      const image = new Image();
      image.src = address;
      image.alt = `Frame ${index + 1} of ${found.frames.length}`;
      return image;
    }),
  );
  const { num_frames: count, width, height } = found.video;
  const few = `${found.frames.length} of ${count.toLocaleString()} frames`;
  say(`${few}, ${width} × ${height} px`);
}

async function reconstruct() {
  const clip = await post("v1/reconstruct", {
    mask: at("mask").value,
    mask_ratio: at("ratio").value,
    format: "gif",
  });
  URL.revokeObjectURL(at("clip").src);
  at("clip").src = URL.createObjectURL(clip);
  at("clip").hidden = false;
  say("Reconstructed.");
}

const JOBS = { classify, reconstruct };
const options = () => at("mask") && `${at("mask").value} ${at("ratio").value}`;
const tab = () => document.querySelector("[aria-selected=true]").getAttribute("aria-controls");

async function answer() {
  const job = tab();
  const key = job === "reconstruct" ? options() : "";
  if (!video || !JOBS[job] || shown[job] === key) return;
  const [size, most] = [video.size / 1e6, Number(at("app").dataset.maxMb)];
  if (size > most) {
    say(`${video.name} has ${size.toFixed(1)} MB; at most ${most} MB are taken here`, "wrong");
    return;
  }
  try {
    await JOBS[job]();
    shown[job] = key;
  } catch (problem) {
    say(String(problem), "wrong");
  }
}

function look(file) {
  video = file;
  shown = {};
  at("scores")?.replaceChildren();
  at("frames")?.replaceChildren();
  if (at("clip")) at("clip").hidden = true;
  const [place, other] = file.type.startsWith("image/")
    ? [at("picture"), at("preview")]
    : [at("preview"), at("picture")];
  URL.revokeObjectURL(place.src);
  place.src = URL.createObjectURL(file);
  other.hidden = true;
  answer();
}

function show(place) {
  place.hidden = false;
  at("invite").hidden = true;
}

at("picture").onload = () => show(at("picture"));
at("preview").oncanplay = () => {
  show(at("preview"));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) at("preview").play();
};
at("picture").onerror = at("preview").onerror = (event) => {
  // The service reads more kinds of files than a browser shows.
  event.target.hidden = true;
  at("invite").hidden = false;
  at("invite").textContent = video.name;
};

at("file").onchange = (event) => event.target.files[0] && look(event.target.files[0]);
for (const name of ["dragenter", "dragover", "dragleave", "drop"])
  at("drop").addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) look(event.dataTransfer.files[0]);
  });
for (const each of ["dragover", "drop"])
  window.addEventListener(each, (event) => event.preventDefault());

for (const button of document.querySelectorAll(".example"))
  button.onclick = async () => {
    const found = await fetch(button.dataset.address);
    const content = await found.blob();
    look(new File([content], button.textContent.trim(), { type: content.type }));
  };

if (navigator.mediaDevices?.getUserMedia && window.MediaRecorder) {
  at("record").hidden = false;
  at("record").onclick = async () => {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (error) {
      say(`The camera cannot be used: ${error.message}`, "wrong");
      return;
    }
    const parts = [];
    const recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      look(new File(parts, "recording.webm", { type: recorder.mimeType }));
    };
    recorder.start();
    say(`Recording ${RECORD_SECONDS} seconds`, "busy");
    setTimeout(() => recorder.stop(), 1000 * RECORD_SECONDS);
  };
}

const tabs = [...document.querySelectorAll("[role=tab]")];
function select(chosen) {
  for (const each of tabs) {
    const on = each === chosen;
    each.setAttribute("aria-selected", on);
    each.tabIndex = on ? 0 : -1;
    at(each.getAttribute("aria-controls")).hidden = !on;
  }
  answer();
}
for (const [index, each] of tabs.entries()) {
  each.onclick = () => select(each);
  each.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    next.focus();
    select(next);
  };
}
if (at("ratio")) {
  at("ratio").oninput = () =>
    (at("share").textContent = `${Math.round(100 * at("ratio").value)} %`);
  at("ratio").onchange = at("mask").onchange = answer;
}
