// What the controls do.

const THEMES = [["", "◐ Auto", "as the system has it"], ["light", "○ Light", "light"], ["dark", "● Dark", "dark"]];
const root = document.documentElement;
const at = (id) => document.getElementById(id);

function setTheme(theme) {
  root.dataset.theme = theme;
  const [, text, meaning] = THEMES.find(([name]) => name === theme);
  at("theme").textContent = text;
  at("theme").setAttribute("aria-label", `Theme: ${meaning}`);
  drawAll();
}

function drawAll() {
  drawCharts();
  drawMap();
}

function chooseLayer() {
  const single = chosenLayer() === "journeys";
  at("stepper").hidden = at("journey").hidden = !single;
  if (single) showJourney(shown.at);
  else drawMap();
}

/** The wheel scrolls the page until somebody has clicked into the map. */
map.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && document.activeElement !== map) event.stopPropagation();
}, { capture: true });
map.addEventListener("pointerdown", () => map.focus({ preventScroll: true }));
map.addEventListener("keydown", (event) => {
  const factor = { "+": 0.7, "=": 0.7, "-": 1 / 0.7 }[event.key];
  if (factor) zoomBy(factor);
});

at("theme").addEventListener("click", () => {
  const now = THEMES.findIndex(([name]) => name === (root.dataset.theme ?? ""));
  setTheme(THEMES[(now + 1) % THEMES.length][0]);
});
at("closer").addEventListener("click", () => zoomBy(0.6));
at("farther").addEventListener("click", () => zoomBy(1 / 0.6));
at("whole").addEventListener("click", () => show(whole()));
at("run").addEventListener("change", drawMap);
at("earlier").addEventListener("click", () => showJourney(shown.at - 1));
at("later").addEventListener("click", () => showJourney(shown.at + 1));
at("order").addEventListener("change", (event) => orderJourneys(event.target.value));
for (const choice of document.querySelectorAll("[name=layer]")) choice.addEventListener("change", chooseLayer);
for (const option of at("order").options) option.disabled = !journeys.trips.some((trip) => most(trip, told[option.value] ?? (() => 0)) > -1);
at("run").append(...usage.generated.map(({ name }) => new Option(name)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

/** Paper is light, and as wide as it is. */
function forPaper(printing) {
  root.classList.toggle("printing", printing);
  root.dataset.theme = printing ? "light" : forPaper.theme;
  for (const table of document.querySelectorAll("details.numbers")) {
    if (printing) table.dataset.open = table.open;
    table.open = printing || table.dataset.open === "true";
  }
  drawAll();
  for (const place of [map, ...document.querySelectorAll("[data-chart]")]) {
    Plotly.relayout(place, printing ? { autosize: false, width: place.clientWidth, height: place.clientHeight } : { autosize: true, width: null, height: null });
  }
}
addEventListener("beforeprint", () => { forPaper.theme = root.dataset.theme ?? ""; forPaper(true); });
addEventListener("afterprint", () => forPaper(false));

drawAll();
map.on("plotly_hover", ({ points }) => tellStreet(points[0]));
