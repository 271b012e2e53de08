// The map: usage of streets by real and generated trips, and their difference.

const map = document.getElementById("map");
const usage = data.usage;
for (const set of [usage.real, ...usage.generated]) {
  const counts = unpacked(set.counts, Uint32Array);
  set.rate = Float64Array.from(counts, (count) => (count * 1000) / set.trips);
}
const short = (value) => String(Number(value.toPrecision(3)));

/** Classes of a layer: colour, width and text of each, from the least to the greatest. */
function usageClasses() {
  const breaks = usage.usageBreaks;
  const texts = ["up to " + short(breaks[0]), ...breaks.slice(1).map((b, i) => `${short(breaks[i])}–${short(b)}`), "over " + short(breaks.at(-1))];
  return texts.map((text, i) => ({ text, colour: `--usage-${Math.min(i, 6)}`, width: 1 + i * 0.5 }));
}

function differenceClasses() {
  const breaks = usage.differenceBreaks;
  const side = (word, sign) => breaks.map((b, i) => ({
    text: i + 1 < breaks.length ? `${sign}${short(b)} to ${sign}${short(breaks[i + 1])}` : `${sign}${short(b)} and more`,
    colour: `--${word}-${i + 3 - breaks.length}`, width: 1.5 + i,
  }));
  const middle = { text: `within ±${short(breaks[0])}`, colour: "--street", width: 1 };
  return [...side("less", "−").reverse(), middle, ...side("more", "+")];
}

const above = (value, breaks) => breaks.filter((b) => value > b).length;

/** Streets by class; -1: not used at all. */
function classOf(layer, run, street) {
  if (layer === "difference") {
    const by = run.rate[street] - usage.real.rate[street];
    const steps = above(Math.abs(by), usage.differenceBreaks);
    return usage.differenceBreaks.length + Math.sign(by) * steps;
  }
  const rate = (layer === "real" ? usage.real : run).rate[street];
  return rate > 0 ? above(rate, usage.usageBreaks) : -1;
}

const layers = new Map();

/** Lines of a layer, unused streets first, and its classes. */
function layerOf(layer, run) {
  const key = `${layer} ${run.name}`;
  if (!layers.has(key)) {
    const classes = layer === "difference" ? differenceClasses() : usageClasses();
    const members = classes.map(() => []), unused = [];
    for (let street = 0; street < streets.lengths.length; street++) {
      const found = layer === "journeys" ? -1 : classOf(layer, run, street);
      (found < 0 ? unused : members[found]).push(street);
    }
    const order = classes.map((_, i) => i).sort((a, b) => classes[a].width - classes[b].width);
    const lines = [{ ...lineOf(unused), colour: "--street", width: 1 }];
    for (const i of order) lines.push({ ...lineOf(members[i]), colour: classes[i].colour, width: classes[i].width });
    layers.set(key, { classes: layer === "journeys" ? [] : classes, lines });
  }
  return layers.get(key);
}

function trace({ x, y, of, colour: name, width, ...more }) {
  return { type: "scatter", mode: "lines", x, y, customdata: of, line: { color: name, width }, hoverinfo: "none", ...more };
}

const chosenLayer = () => document.querySelector("[name=layer]:checked").value;
const chosenRun = () => usage.generated[document.getElementById("run").selectedIndex];

function mapLayout(range) {
  const bare = { visible: false, ...(range ? { autorange: false } : {}) };
  return coloured({
    font: FONT, paper_bgcolor: "--page", plot_bgcolor: "--page", margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false,
    dragmode: "pan", hovermode: "closest", uirevision: "map",
    xaxis: { ...bare, range: range?.x ?? whole().x }, yaxis: { ...bare, range: range?.y ?? whole().y, scaleanchor: "x" },
  });
}

/** The city with a margin. */
function whole() {
  const box = { x: [Infinity, -Infinity], y: [Infinity, -Infinity] };
  streets.points.forEach((step, i) => {
    const side = i % 2 ? box.y : box.x;
    side[0] = Math.min(side[0], step * streets.metres);
    side[1] = Math.max(side[1], step * streets.metres);
  });
  return padded(box, 0.03);
}

function padded({ x, y }, share) {
  const pad = Math.max(x[1] - x[0], y[1] - y[0], 200) * share;
  return { x: [x[0] - pad, x[1] + pad], y: [y[0] - pad, y[1] + pad] };
}

function drawMap() {
  const layer = chosenLayer(), run = chosenRun();
  const { classes, lines } = layerOf(layer, run);
  const extra = layer === "journeys" ? journeyTraces() : [];
  const traces = coloured([...lines.map(trace), ...extra]);
  const annotations = extra.length ? coloured(endLabels()) : [];
  const view = map.layout && { x: map.layout.xaxis.range, y: map.layout.yaxis.range };
  document.getElementById("run-choice").hidden = layer === "real" || layer === "journeys";
  drawLegend(layer, classes);
  return Plotly.react(map, traces, { ...mapLayout(view), annotations }, { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: false });
}

function drawLegend(layer, classes) {
  const legend = document.getElementById("legend");
  const about = { real: "Visits per 1,000 trips", generated: "Visits per 1,000 trips", difference: "Generated minus real, visits per 1,000 trips" }[layer];
  const entries = classes.map(({ text, colour: name, width }) => entry(text, name, width + 1));
  legend.replaceChildren(...(about ? [Object.assign(document.createElement("strong"), { textContent: about })] : []), ...entries, ...(layer === "journeys" ? journeyKeys() : []));
  map.setAttribute("aria-label", `Map of the city: ${about ?? "single trips"}`);
}

function entry(text, name, width, style = "solid") {
  const span = document.createElement("span"), swatch = document.createElement("i");
  swatch.style.borderTop = `${width}px ${style} var(${name})`;
  span.append(swatch, text);
  return span;
}

function zoomBy(factor) {
  const about = (range) => {
    const middle = (range[0] + range[1]) / 2, half = ((range[1] - range[0]) / 2) * factor;
    return [middle - half, middle + half];
  };
  return Plotly.relayout(map, { "xaxis.range": about(map.layout.xaxis.range), "yaxis.range": about(map.layout.yaxis.range) });
}

const show = ({ x, y }) => Plotly.relayout(map, { "xaxis.range": [...x], "yaxis.range": [...y] });

function tellStreet(point) {
  const street = point.customdata;
  if (street === undefined) return;
  const run = chosenRun(), real = usage.real.rate[street], made = run.rate[street];
  const by = made - real;
  document.getElementById("readout").textContent =
    `Street ${street}: real ${short(real)}, ${run.name} ${short(made)} visits per 1,000 trips (${by < 0 ? "−" : "+"}${short(Math.abs(by))})`;
}
