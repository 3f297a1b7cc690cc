"""The look of the report: one style sheet and the few lines of script that draw the figures and switch instruments.

Quiet on purpose: one column of dark text on white, thin rules instead of boxes, figures aligned on the decimal, one
accent colour for the strategy and one for losses. It prints as it looks. No font, image or script from elsewhere.
"""

INK, MUTED, RULE, ACCENT, LOSS, OTHER = "#1b2530", "#66727f", "#e4e8ec", "#1f5c99", "#b4483c", "#a3adb8"

STYLE = """
:root { --ink: #1b2530; --muted: #66727f; --rule: #e4e8ec; --accent: #1f5c99; --loss: #b4483c; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1080px; padding: 44px 32px 72px; background: #fff; color: var(--ink);
  font: 14px/1.5 Inter, "Segoe UI", system-ui, -apple-system, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
header p { margin: 0; color: var(--muted); }
h1 { margin: 0 0 2px; font-size: 26px; font-weight: 600; letter-spacing: -0.015em; line-height: 1.25; }
h2 { margin: 44px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--rule);
  font-size: 16px; font-weight: 600; letter-spacing: -0.005em; }
h3 { margin: 26px 0 8px; font-size: 13px; font-weight: 600; }
p.note { margin: 8px 0 0; color: var(--muted); font-size: 12.5px; max-width: 78ch; }
code, .hash { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12px; }
.hash { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 20px 0 0; }
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 8px 24px;
  margin: 4px 0 14px; }
.tile b { display: block; font-size: 22px; font-weight: 600; letter-spacing: -0.02em; line-height: 1.3; }
.tile span { color: var(--muted); font-size: 12px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 500; color: var(--muted); font-size: 12px; vertical-align: bottom; }
thead th { border-bottom-color: #cfd6dd; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
.text { text-align: left; }
td.label { text-align: left; color: var(--ink); white-space: normal; }
tr.best td { background: #f3f7fb; font-weight: 600; }
.loss { color: var(--loss); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 44px; align-items: start; }
.months { table-layout: fixed; }
.months td, .months th { padding: 5px 6px; text-align: right; font-size: 12px; }
.months td:first-child, .months th:first-child { text-align: left; color: var(--muted); padding-left: 0; }
.months td:last-child { font-weight: 600; padding-right: 6px; }
.months td { border-bottom: 1px solid #fff; }
.tabs { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 18px; }
.tabs button { padding: 2px 0 4px; border: 0; border-bottom: 2px solid transparent; background: none;
  color: var(--muted); font: inherit; cursor: pointer; }
.tabs button:hover { color: var(--ink); }
.tabs button:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
.tabs button[aria-selected="true"] { color: var(--ink); border-color: var(--accent); font-weight: 600; }
.figure { width: 100%; }
.scroll { max-height: 460px; overflow: auto; }
.scroll thead th { position: sticky; top: 0; background: #fff; }
ul.plain { margin: 0; padding: 0; list-style: none; }
ul.plain li { padding: 3px 0; }
pre { margin: 0; padding: 12px 14px; background: #f6f8fa; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.said { margin: 16px 0 0; padding: 6px 14px; border-left: 3px solid var(--loss); background: #fbf6f5; }
.paper { display: none; }
@media screen and (max-width: 760px) { body { padding: 24px 16px 48px; } .pair { grid-template-columns: 1fr; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } h2 { margin-top: 26px; } .tabs { display: none; }
  .paper { display: block; }
  .scroll { max-height: none; overflow: visible; } .wide { overflow: visible; } table { font-size: 10px; }
  th, td { padding: 2px 6px; } .months td, .months th { font-size: 9px; padding: 3px 4px; }
  tr, .tile, .figure, pre { break-inside: avoid; } h2, h3 { break-after: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } @page { margin: 14mm; } }
"""

SCRIPT = """
(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var drawn = {};
  function draw(root) {
    root.querySelectorAll(".figure").forEach(function (node) {
      if (drawn[node.id]) { return; }
      drawn[node.id] = true;
      var figure = figures[node.id];
      Plotly.newPlot(node, figure.data, figure.layout, { displayModeBar: false, responsive: true });
    });
  }
  var cells = Array.prototype.slice.call(document.querySelectorAll("section.cell"));
  var tabs = Array.prototype.slice.call(document.querySelectorAll(".tabs button"));
  function show(at) {
    cells.forEach(function (cell, i) { cell.hidden = i !== at; });
    tabs.forEach(function (tab, i) { tab.setAttribute("aria-selected", String(i === at)); });
    draw(cells[at]);
  }
  tabs.forEach(function (tab, i) { tab.addEventListener("click", function () { show(i); }); });
  if (cells.length) { show(0); }
  document.querySelectorAll(".shared").forEach(draw);
}());
"""
