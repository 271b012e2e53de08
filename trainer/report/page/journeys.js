// Single trips: the real one as a broad band, each run's over it, narrower and narrower, so that all are seen.

const journeys = data.journeys;
const shown = { at: 0, order: journeys.trips.map((_, i) => i) };
const RUN_COLOURS = 6, DASHES = ["solid", "dash", "dot", "dashdot"], BORDERS = ["solid", "dashed", "dotted", "dashed"];
const numberOf = (name) => data.usage.generated.findIndex((set) => set.name === name);

const told = {
  apart: (made) => made.apart,
  expansions: (made) => made.expansions,
  missed: (made) => (made.reached === null ? null : Number(!made.reached)),
};
const most = (trip, tell) => Math.max(...trip.generated.map((made) => (made ? tell(made) ?? -1 : -1)));
const orderOf = (by) => (trip) => (by in told ? -most(trip, told[by]) : trip.row);

function orderJourneys(by) {
  shown.order = journeys.trips.map((_, i) => i);
  const order = orderOf(by);
  shown.order.sort((a, b) => order(journeys.trips[a]) - order(journeys.trips[b]) || a - b);
  showJourney(0);
}

const present = () => journeys.trips[shown.order[shown.at]];

/** Everybody's trip of the present journey, the real one first. */
function parties() {
  const trip = present();
  const all = journeys.names.map((name, i) => {
    const colour = `--run-${journeys.numbers[i] % RUN_COLOURS}`, form = journeys.numbers[i] % DASHES.length;
    return { name, made: trip.generated[i], colour, dash: DASHES[form], border: BORDERS[form], width: Math.max(7 - 2 * i, 2) };
  });
  return [{ name: "real", made: trip.real, colour: "--band", dash: "solid", border: "solid", width: 11 }, ...all];
}

function journeyTraces() {
  if (!journeys.trips.length) return [];
  const traces = [];
  for (const { made, colour: name, dash, width } of parties()) {
    if (!made) continue;
    const roads = unpacked(made.streets, Uint32Array);
    const line = trace({ ...lineOf(Array.from(roads, (road) => road >> 1)), colour: name, width });
    line.line.dash = dash;
    traces.push(line);
  }
  return [...traces, ...endTraces()];
}

/** Where the present journey starts and is to end. */
function ends() {
  const { made } = parties().find((party) => party.made);
  const first = unpacked(made.streets, Uint32Array)[0];
  return [["start", "circle", endOf(first, false)], ["destination", "square", endOf(present().destination, true)]];
}

function endTraces() {
  return ends().map(([, symbol, [x, y]]) => ({
    type: "scatter", mode: "markers", x: [x], y: [y], hoverinfo: "skip",
    marker: { symbol, size: 12, color: "--card", line: { color: "--ink", width: 3 } },
  }));
}

function endLabels() {
  return ends().map(([text, , [x, y]]) => ({
    x, y, text, showarrow: false, yshift: 20, borderpad: 2, bgcolor: "--card", bordercolor: "--rule", font: { size: 12, color: "--ink" },
  }));
}

function journeyKeys() {
  if (!journeys.trips.length) return [];
  return parties().map(({ name, colour: variable, width, border }) => entry(name, variable, Math.min(width, 8), border));
}

const COLUMNS = [
  ["length", (made) => made.km?.toFixed(2) + " km"],
  ["duration", (made) => made.minutes?.toFixed(1) + " min"],
  ["roads", (made) => made.roads],
  ["farthest from real", (made) => (made.apart === null ? "" : Math.round(made.apart * 1000) + " m")],
  ["arrives", (made) => ({ true: "yes", false: "no" })[made.reached] ?? ""],
  ["roads expanded", (made) => made.expansions ?? ""],
  ["log-probability", (made) => made.logProb?.toFixed(2) ?? ""],
];

function cell(kind, text) {
  return Object.assign(document.createElement(kind), { textContent: text });
}

function row(first, others, kind) {
  const line = document.createElement("tr");
  line.append(Object.assign(cell("th", first), { scope: kind === "td" ? "row" : "col" }), ...others.map((text) => cell(kind, text)));
  return line;
}

function journeyTable() {
  const table = document.createElement("table");
  const used = COLUMNS.filter(([, tell]) => parties().some(({ made }) => made && tell(made) !== ""));
  table.createTHead().append(row("", used.map(([title]) => title), "th"));
  const body = table.createTBody();
  for (const { name, made } of parties()) {
    body.append(row(name, used.map(([, tell]) => (made ? tell(made) : "–")), "td"));
  }
  return table;
}

function showJourney(at) {
  const count = journeys.trips.length;
  if (!count) return;
  shown.at = (at + count) % count;
  const when = new Date(present().start * 1000).toISOString().slice(0, 16).replace("T", " ");
  document.getElementById("which").textContent = `trip ${present().row + 1}, ${when} (${shown.at + 1} of ${count})`;
  document.getElementById("journey").replaceChildren(journeyTable());
  drawMap();
  const box = { x: [Infinity, -Infinity], y: [Infinity, -Infinity] };
  for (const { made } of parties()) {
    if (!made) continue;
    const { x, y } = lineOf(Array.from(unpacked(made.streets, Uint32Array), (road) => road >> 1));
    for (const [values, side] of [[x, box.x], [y, box.y]]) {
      for (const value of values) {
        if (value < side[0]) side[0] = value;
        if (value > side[1]) side[1] = value;
      }
    }
  }
  show(padded(box, 0.15));
}
