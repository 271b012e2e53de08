"use strict";
// Charts: figures as plotly takes them, drawn in the colours of the page's present theme.

const data = JSON.parse(document.getElementById("data").textContent);
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;

/** The present value of a style variable, "--ink". */
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/** A figure with the names of style variables replaced by their values. */
function coloured(value) {
  if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
  if (Array.isArray(value)) return value.length && typeof value[0] === "number" ? value : value.map(coloured);
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each)]));
}

const FONT = { family: 'system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif', size: 12, color: "--quiet" };

function axis(settings) {
  const look = { gridcolor: "--rule", zerolinecolor: "--rule", linecolor: "--rule", automargin: true, fixedrange: true };
  return { ...look, ...settings, title: { standoff: 8, ...settings.title } };
}

function chartLayout({ xaxis, yaxis, ...others }) {
  return coloured({
    font: FONT, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    margin: { l: 56, r: 12, t: 12, b: 44 }, hovermode: "x unified",
    hoverlabel: { bgcolor: "--card", bordercolor: "--rule", font: { ...FONT, color: "--ink" } },
    ...others, xaxis: axis(xaxis), yaxis: axis(yaxis),
  });
}

function drawCharts() {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const { traces, layout, height } = data.charts[place.dataset.chart];
    if (height) place.style.height = `${height}px`;
    Plotly.react(place, coloured(traces), chartLayout(layout), { displayModeBar: false, responsive: true });
  }
}
