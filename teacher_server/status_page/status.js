// Asks status.json every second and shows what it says. Elements say what they show: data-show is a place in the
// record, data-as a format; a figure's data-lines are names in record.series.
"use strict";

const PERIOD_MS = 1000;
const PATIENCE_MS = 3000; // without an answer the server counts as unreachable
const SECONDS = 120; // that a chart shows
const MEANINGS = {
  starting: "warming up, takes no requests yet",
  ready: "takes requests",
  stuck: "a batch does not end: the process should be restarted",
  leaving: "still answers, but balancers should send no more",
  draining: "refuses new requests, finishes those that are here",
};

const localized = (value, options) => value.toLocaleString("en", options);

const FORMATS = {
  number: (value) =>
    value < 1e5
      ? localized(value, { maximumFractionDigits: value < 10 ? 1 : 0 })
      : localized(value, { notation: "compact", maximumSignificantDigits: 3 }),
  whole: (value) => localized(value),
  share: (value) =>
    localized(value, { style: "percent", ...(value < 0.1 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 }) }),
  ms: (value) => {
    const [amount, unit] = value < 1000 ? [value, "ms"] : [value / 1000, "s"];
    return `${localized(amount, { maximumFractionDigits: amount < 10 ? 1 : 0 })} ${unit}`;
  },
  bytes: (value) => {
    const [amount, unit] = value < 2 ** 30 ? [value / 2 ** 20, "MiB"] : [value / 2 ** 30, "GiB"];
    return `${localized(amount, { maximumSignificantDigits: 3 })} ${unit}`;
  },
  memory: (kinds) =>
    Object.entries(kinds)
      .map(([kind, bytes]) => `${FORMATS.bytes(bytes)} ${kind}`)
      .join(", "),
  time: (seconds) => {
    const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
    if (days) return `${days} d ${hours} h`;
    if (hours) return `${hours} h ${minutes} min`;
    return `${minutes ? `${minutes} min ` : ""}${Math.floor(seconds % 60)} s`;
  },
  short: (digest) => digest.slice(0, 12),
  sizes: (model) =>
    `${model.n_layer} layers, ${model.n_head} heads, ${model.n_embd} wide, blocks of ${model.block_size}, ` +
    `vocabulary ${localized(model.vocab_size)}`,
  cells: (grid) =>
    `${grid.rows} × ${grid.columns} cells, ${degrees(grid.cell_lat)} × ${degrees(grid.cell_lng)}` +
    (grid.downsample > 1 ? `, ${grid.downsample} × ${grid.downsample} of them in one` : ""),
  bounds: (grid) =>
    `${degrees(grid.min_lat)} to ${degrees(grid.max_lat)} north, ${degrees(grid.min_lng)} to ${degrees(grid.max_lng)} east`,
};

const degrees = (value) => `${localized(value, { maximumFractionDigits: 6 })}°`;
const formatted = (value, as) => (value == null ? "–" : as ? FORMATS[as](value) : String(value));
const valueAt = (record, path) => path.split(".").reduce((part, name) => part[name], record);

function say(element, text) {
  if (element.textContent !== text) element.textContent = text; // so that screen readers hear changes only
}

function made(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function drawn(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** The least of 1, 2, 5, 10, 20, ... that is not below the value. */
function roundTop(value) {
  const unit = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 5, 10].map((step) => step * unit).find((top) => top >= value);
}

/** Runs of values without a gap, each a list of points "x y"; nulls are gaps. */
function runs(values, top) {
  const found = [];
  values.forEach((value, x) => {
    if (value === null) return;
    if (x === 0 || values[x - 1] === null) found.push([]);
    found.at(-1).push(`${x} ${(100 - (96 * value) / top).toFixed(2)}`);
  });
  return found;
}

const lineOf = (points) => `M${points.join("L")}h0`; // a single point is a dot, by its round caps
const areaOf = (points) => `M${points[0].split(" ")[0]} 100L${points.join("L")}V100Z`;

/** Lines over the last two minutes. Under a pointer the caption tells that second's values. */
class Chart {
  constructor(figure) {
    this.names = figure.dataset.lines.split(" ");
    this.options = { since: "2 min ago", ...figure.dataset };
    this.svg = drawn("svg", { viewBox: `0 0 ${SECONDS - 1} 100`, preserveAspectRatio: "none", role: "img" });
    this.area = drawn("path", { class: "area" });
    this.paths = this.names.map((name) => drawn("path", { class: name }));
    this.cursor = drawn("path", { class: "cursor" });
    this.svg.append(this.area, ...this.paths, this.cursor);
    this.top = made("span", { className: "top" });
    [this.left, this.right] = [made("span"), made("span")];
    const caption = made("figcaption");
    caption.append(this.left, this.right);
    figure.append(this.top, this.svg, caption);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.caption();
  }

  draw(series) {
    this.lines = this.names.map((name) => series[name]);
    const most = Math.max(0, ...this.lines.flat());
    const top = Number(this.options.top) || roundTop(most);
    this.lines.forEach((line, i) => this.paths[i].setAttribute("d", runs(line, top).map(lineOf).join("")));
    if (this.lines.length === 1) this.area.setAttribute("d", runs(this.lines[0], top).map(areaOf).join(""));
    say(this.top, formatted(top, this.options.as));
    const told = `last ${this.values(SECONDS - 1)}; at most ${formatted(most, this.options.as)}`;
    this.svg.setAttribute("aria-label", `${this.options.unit} over two minutes: ${told}`);
    this.caption();
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const x = event && Math.round(((event.clientX - box.left) / box.width) * (SECONDS - 1));
    this.at = event && Math.min(Math.max(x, 0), SECONDS - 1);
    this.cursor.setAttribute("d", event ? `M${this.at} 0V100` : "");
    this.caption();
  }

  caption() {
    const pointed = this.at != null && this.lines;
    say(this.left, pointed ? `${SECONDS - this.at} s ago` : this.options.since);
    say(this.right, pointed ? this.values(this.at) : "now");
  }

  values(at) {
    const values = this.lines.map((line) => formatted(line[at], this.options.as));
    if (values.length === 1) return `${values[0]} ${this.options.unit}`;
    return values.map((value, i) => `${this.names[i]} ${value}`).join(", ");
  }
}

const charts = [...document.querySelectorAll("figure")].map((figure) => new Chart(figure));
const waiting = Array(SECONDS).fill(null); // the server keeps no history of its queue, so the page does

function showOutcomes(outcomes) {
  const total = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
  const rows = Object.entries(outcomes).map(([outcome, count]) => {
    const row = made("tr");
    row.append(
      made("th", { scope: "row", textContent: outcome }),
      made("td", { textContent: FORMATS.whole(count) }),
      made("td", { textContent: FORMATS.share(count / total) }),
    );
    return row;
  });
  if (rows.length) document.getElementById("outcome-rows").replaceChildren(...rows);
}

/** The server's teachers, where it has several, each a way to its own page. */
function showModels(models) {
  document.getElementById("models-section").hidden = models.length < 2;
  const rows = models.map(({ name, state, reason }) => {
    const [row, head] = [made("tr"), made("th", { scope: "row" })];
    head.append(made("a", { href: `?model=${encodeURIComponent(name)}`, textContent: name }));
    row.append(head, made("td", { textContent: [state.toLowerCase(), reason].filter(Boolean).join(": ") }));
    return row;
  });
  document.getElementById("model-rows").replaceChildren(...rows);
}

function showState(state, meaning) {
  document.body.dataset.state = state.replace(" ", "-");
  document.title = `${state} · ${document.querySelector("h1").textContent}`;
  say(document.getElementById("state"), state);
  say(document.getElementById("meaning"), meaning);
}

function show(record) {
  for (const element of document.querySelectorAll("[data-show]")) {
    say(element, formatted(valueAt(record, element.dataset.show), element.dataset.as));
  }
  for (const bar of document.querySelectorAll("[data-bar]")) {
    const percent = Math.min(valueAt(record, bar.dataset.bar), 1) * 100;
    bar.firstElementChild.setAttribute("width", percent);
    bar.setAttribute("aria-valuenow", Math.round(percent));
  }
  showOutcomes(record.totals.outcomes);
  showModels(record.models);
  for (const chart of charts) chart.draw({ ...record.series, waiting });
  showState(record.state, MEANINGS[record.state]);
}

class Refused extends Error {}

async function ask() {
  const answer = await fetch(`status.json${location.search}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) throw new Refused("it asks for a token or a client certificate");
  if (!answer.ok) throw new Refused(`it answers with status ${answer.status}`);
  return answer.json();
}

let lastAnswer = "";

async function poll() {
  waiting.shift();
  try {
    const record = await ask();
    waiting.push(record.queue.tokens);
    show(record);
    lastAnswer = `; the numbers are of ${new Date().toLocaleTimeString("en-GB")}`;
  } catch (error) {
    waiting.push(null);
    showState("not reachable", (error instanceof Refused ? error.message : "no answer") + lastAnswer);
  }
}

async function follow() {
  for (;;) {
    const next = Date.now() + PERIOD_MS;
    if (!document.hidden) await poll(); // when nobody looks the server is left alone
    await new Promise((resolve) => setTimeout(resolve, Math.max(next - Date.now(), 100)));
  }
}

follow();
