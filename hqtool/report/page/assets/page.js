// Draws the charts of a report. All data lie in the page; nothing is fetched.
"use strict";

const PAGE = JSON.parse(document.getElementById("page-data").textContent);
const choices = new Map();  // "group/control" -> option chosen
const views = new Map();  // chart -> its view
let shownSite = PAGE.firstSite;

// --- data: columns as they are embedded -> rows

function column(stored) {
  if (Array.isArray(stored)) return stored;
  if (stored.flags) return [...stored.flags].map(Number);
  if (stored.count) {
    return Array.from({ length: stored.count }, (_, at) => sinhOf(stored, stored.start + 2 * at));
  }
  if (stored.at) return stored.at.map((place) => (place === null ? null : stored.of[place]));
  return stored.n.map((n) => (n === null ? null : sinhOf(stored, n)));
}

function sinhOf({ unit, step }, position) {
  return unit * Math.sinh(position * step);
}

function rows(stored, others) {
  if (stored.together) {
    return stored.together.flatMap(({ site, ...told }) => {
      const { data } = PAGE.sites[site];
      return rows(data[stored.set], data).map((row) => ({ ...row, ...told }));
    });
  }
  const series = stored.series || {};
  const plain = stored.beside ? rows(others[stored.beside], others)
    : unpacked(Object.entries(stored).filter(([name]) => name !== "series"));
  if (!series.by) return plain;
  return series.names.flatMap((name, place) => {
    const own = unpacked(Object.entries(series.columns).map(([key, all]) => [key, all[place]]));
    return own.map((row, at) => ({ ...plain[at], ...row, [series.by]: name }));
  });
}

function unpacked(entries) {
  const columns = entries.map(([name, stored]) => [name, column(stored)]);
  const length = columns.length ? columns[0][1].length : 0;
  return Array.from({ length }, (_, at) =>
    Object.fromEntries(columns.map(([name, values]) => [name, values[at]])));
}

// --- specifications: choices made, facts and data of the site put in

function merged(one, other) {
  if (!isObject(one) || !isObject(other)) return other;
  const found = { ...one };
  for (const [key, value] of Object.entries(other)) found[key] = merged(found[key], value);
  return found;
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function filled(spec, site) {
  if (Array.isArray(spec)) return spec.map((part) => filled(part, site));
  if (!isObject(spec)) return spec;
  if ("$" in spec) return site.facts[spec.$];
  const found = {};
  for (const [key, value] of Object.entries(spec)) {
    found[key] = key === "data" ? dataOf(value.name, site) : filled(value, site);
  }
  return found;
}

function dataOf(name, site) {
  const sets = site && name in site.data ? site.data : PAGE.data;
  return { values: rows(sets[name], sets) };
}

function specOf(chart) {
  const { controls } = firstOf(chart.group);
  const changed = controls.reduce((spec, control, place) => {
    const chosen = choices.get(`${chart.group}/${place}`) || Object.keys(control.options)[0];
    return merged(spec, control.options[chosen]);
  }, chart.spec);
  return filled(changed, chart.ofSite ? PAGE.sites[shownSite] : null);
}

function firstOf(group) {
  return Object.values(PAGE.charts).find((chart) => chart.group === group);
}

// --- drawing

const tooltip = new vegaTooltip.Handler({ disableDefaultStyle: true });

function draw(figure) {
  const chart = PAGE.charts[figure.dataset.chart];
  const place = figure.querySelector(".drawing");
  if (chart.ofSite && !PAGE.sites.length) return;
  if (views.has(chart)) views.get(chart).finalize();
  const compiled = vegaLite.compile(specOf(chart), {
    config: PAGE.config, logger: vega.logger(vega.Error),
  });
  const view = new vega.View(vega.parse(compiled.spec, null, { ast: true }), {
    renderer: "svg", container: place, hover: true, expr: vega.expressionInterpreter,
    tooltip: tooltip.call, logLevel: vega.Error,
  });
  view.addEventListener("click", (event, item) => {
    const site = item && item.datum && item.datum.site;
    if (!chart.ofSite && Number.isInteger(site)) openSite(site, figure);
  });
  view.run();
  views.set(chart, view);
  drawWhenNear.unobserve(figure);  // drawn twice, it would change under the reader's pointer
  figure.dataset.drawn = "yes";
  delete figure.dataset.ready;
  view.runAsync().then(() => { if (views.get(chart) === view) figure.dataset.ready = "yes"; });
}

function redraw(condition) {
  for (const figure of figures) {
    if (figure.dataset.drawn && condition(PAGE.charts[figure.dataset.chart])) draw(figure);
  }
}

// --- controls

function selectOf(label, options, onChange) {
  const select = document.createElement("select");
  for (const text of options) select.append(new Option(text, text));
  select.addEventListener("change", () => onChange(select.value));
  const whole = document.createElement("label");
  whole.append(`${label} `, select);
  return whole;
}

function addControls(figure) {
  const chart = PAGE.charts[figure.dataset.chart];
  if (firstOf(chart.group) !== chart) return;
  chart.controls.forEach((control, place) => {
    const onChange = (chosen) => {
      choices.set(`${chart.group}/${place}`, chosen);
      redraw((other) => other.group === chart.group);
    };
    figure.querySelector(".controls").append(
      selectOf(control.label, Object.keys(control.options), onChange));
  });
}

// --- the site that is shown

function addSitePicker() {
  const place = document.getElementById("site-picker");
  if (!place || !PAGE.sites.length) return;
  const select = document.createElement("select");
  let group = null;
  PAGE.sites.forEach((site, at) => {
    if (!group || group.label !== site.group) {
      group = document.createElement("optgroup");
      group.label = site.group;
      select.append(group);
    }
    group.append(new Option(site.label, at));
  });
  select.addEventListener("change", () => showSite(Number(select.value)));
  const label = document.createElement("label");
  label.append("Site ", select);
  const step = (by, text) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () =>
      showSite((shownSite + by + PAGE.sites.length) % PAGE.sites.length));
    return button;
  };
  place.append(label, step(-1, "previous"), step(1, "next"));
}

function showSite(site) {
  shownSite = site;
  const place = document.getElementById("site-picker");
  place.querySelector("select").value = site;
  const { facts, label, group } = PAGE.sites[site];
  for (const told of document.querySelectorAll(".site-shown")) {
    told.textContent = `${group}: ${label}. ${facts.summary}`;
  }
  redraw((chart) => chart.ofSite);
}

// Where it was asked for, if the site is drawn in that section; else in the section of sites.
function openSite(site, asked) {
  showSite(site);
  const section = asked.closest("section");
  const drawnThere = section.querySelector(".site-shown");
  const heading = drawnThere ? section.querySelector("h2") : document.getElementById("site");
  heading.scrollIntoView();
  heading.focus({ preventScroll: true });
}

// --- the page

const figures = [...document.querySelectorAll("figure[data-chart]")];
document.documentElement.classList.add("scripted");
figures.forEach(addControls);
addSitePicker();
if (PAGE.sites.length) showSite(shownSite);

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-site]");
  if (!link) return;
  event.preventDefault();
  openSite(Number(link.dataset.site), link);
});

const drawWhenNear = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }
}, { rootMargin: "800px" });
figures.forEach((figure) => drawWhenNear.observe(figure));

function drawAll() {
  figures.filter((figure) => !figure.dataset.drawn).forEach(draw);
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
}
window.addEventListener("beforeprint", drawAll);
