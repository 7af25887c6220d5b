"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const state = { measure: "raw", weights: "curves" };
  const charts = new Map(); // dataset -> view of its curves
  const maps = new Map(); // dataset -> view of its rank map
  const $$ = (selector) => [...document.querySelectorAll(selector)];
  const checked = (name) => $$(`input[name=${name}]:checked`).map((input) => input.value);

  // A table arrives by column, with numbers and strings once each.
  const rows = (columns) => {
    const names = Object.keys(columns);
    const length = names.length ? columns[names[0]].length : 0;
    return Array.from({ length }, (_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]])));
  };
  const embed = async (id, spec, datasets) => {
    const named = { ...spec, datasets };
    // of its warnings Vega gives one for every layer that has nothing to draw, as a chart without seeds
    const options = { renderer: "svg", actions: false, logLevel: 1 };
    const { view } = await vegaEmbed(document.getElementById(id), named, options);
    return view;
  };

  // The scores of the refitted weights, or of those before the refit: other tables in the same charts.
  const showWeights = () => {
    const weights = checked("weights")[0] ?? "curves";
    if (weights === state.weights) return;
    state.weights = weights;
    for (const [key, view] of charts) {
      const { values, tables } = data[weights][key];
      for (const [name, columns] of Object.entries(tables)) view.data(name, rows(columns));
      view.signal("limits", values.limits);
    }
  };
  const showCurves = async () => {
    showWeights();
    document.body.dataset.measure = state.measure = checked("measure")[0];
    const curves = [...checked("curve"), "gap"];
    const roles = ["path", ...checked("role")];
    await Promise.all([...charts.values()].map((view) =>
      view.signal("measure", state.measure).signal("curves", curves).signal("roles", roles).runAsync()));
  };
  const showDatasets = () => {
    const keys = $$("input[name=dataset]").length ? new Set(checked("dataset")) : null;
    for (const element of $$("[data-dataset]")) element.hidden = keys !== null && !keys.has(element.dataset.dataset);
    window.dispatchEvent(new Event("resize")); // a chart that was hidden had no width
  };

  const cells = (map, series, stage) => map.layers.flatMap((layer, i) =>
    map.matrices.map((matrix, j) => ({ layer, matrix, rank: series.ranks[stage][i * map.matrices.length + j] }))
      .filter((cell) => cell.rank !== null));
  const showMap = async (key) => {
    const map = data.maps[key];
    const series = map.series[Number(document.querySelector(`select[data-map=${key}]`).value || 0)];
    const wanted = Number(document.getElementById("stage").value);
    const stage = Math.min(wanted, series.ranks.length - 1);
    const place = stage < wanted ? `last stage, ${stage}` : `stage ${stage}`;
    const lines = [`${place} · ${series.captions[stage]}`, series.remarks[stage], series.outside[stage]];
    document.getElementById(`caption-${key}`).textContent = lines.filter(Boolean).join(" · ");
    const view = maps.get(key);
    await view.data("cells", cells(map, series, stage)).runAsync();
  };
  const showMaps = async () => {
    document.getElementById("stage-number").textContent = document.getElementById("stage").value;
    await Promise.all([...maps.keys()].map(showMap));
  };

  const start = async () => {
    for (const [key, { values, tables }] of Object.entries(data.curves)) {
      const params = data.curve_spec.params.map((p) => p.name in values ? { ...p, value: values[p.name] } : p);
      const spec = { ...data.curve_spec, params };
      const named = Object.fromEntries(Object.entries(tables).map(([name, columns]) => [name, rows(columns)]));
      charts.set(key, await embed(`curve-${key}`, spec, named));
    }
    for (const [key, map] of Object.entries(data.maps)) {
      if (map === null) {
        document.getElementById(`caption-${key}`).textContent = "No matrix of a layer is adapted: there is no map.";
        continue;
      }
      if (map.series.length > 1) {
        const select = document.querySelector(`select[data-map=${key}]`);
        map.series.forEach(({ label }, index) => select.append(new Option(label, index)));
        select.addEventListener("change", () => showMap(key));
      }
      maps.set(key, await embed(`map-${key}`, map.spec, { cells: [] }));
    }
    await Promise.all([showCurves(), showMaps()]);
    document.getElementById("controls").addEventListener("change", (event) =>
      event.target.name === "dataset" ? showDatasets() : showCurves());
    document.getElementById("stage").addEventListener("input", showMaps);
    document.body.dataset.ready = "true"; // what a test waits for
  };
  start();
})();
