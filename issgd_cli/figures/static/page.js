// The curves of figures 2-4: one quantity at a time, a panel a setting.
(() => {
  "use strict";
  const views = JSON.parse(document.getElementById("data").textContent);
  if (!views.length) return;

  const byId = (id) => document.getElementById(id);
  const AXES = { steps: "steps", seconds: "time", examples: "examples" };
  const FEW = 40; // of so few points each is shown
  const HEIGHT = 230;
  const hidden = new Set(); // labels
  let plots = [];

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const choice = (type, name, value, text, checked, changed) => {
    const input = element("input", { type, name, value, checked });
    input.addEventListener("change", changed);
    return element("label", {}, input, ` ${text}`);
  };
  const written = (value) => (value == null ? "\u2013" : String(Number(value.toPrecision(4))));

  // Curves have points of their own: the nearest one of each is shown, not only those that lie under the cursor.
  const nearest = (plot, series, index) => {
    const values = plot.data[series];
    for (let far = 0; far < values.length; far++) {
      if (values[index - far] != null) return index - far;
      if (values[index + far] != null) return index + far;
    }
    return index;
  };

  // An even grid is told by its ends.
  const positions = ({ x, median }) => {
    if (!x.ends) return x;
    const [first, last] = x.ends;
    return median.map((_, place) => first + ((last - first) * place) / (median.length - 1));
  };

  const seriesOf = (curve) => {
    const shade = `${curve.color}26`;
    const made = [{
      label: curve.label, stroke: curve.color, width: curve.width * 0.9, dash: curve.dash, value: (_, v) => written(v),
      points: { show: curve.median.length <= FEW, size: 6, fill: curve.color },
    }];
    if (curve.lower) {
      const quartile = { stroke: shade, width: 1, points: { show: false }, class: "quartile" };
      made.push({ ...quartile, label: `${curve.label}, quartile 1` }, { ...quartile, label: `${curve.label}, quartile 3` });
    }
    return made.map((series) => ({ ...series, of: curve.label, show: !hidden.has(curve.label) }));
  };

  const draw = (panel, name, width, logarithmic) => {
    const positive = (values) => (logarithmic ? values.map((v) => (v > 0 ? v : null)) : values);
    const series = [{ label: panel.label, value: (_, v) => written(v) }];
    const bands = [];
    const tables = panel.curves.map((curve) => {
      series.push(...seriesOf(curve));
      const last = series.length - 1;
      if (curve.lower) bands.push({ series: [last, last - 1], fill: `${curve.color}26` });
      return [positions(curve), curve.median, ...(curve.lower ? [curve.lower, curve.upper] : [])].map((v, i) => (i ? positive(v) : v));
    });
    const grid = { stroke: "#e8e8e8", width: 1 };
    const place = element("div", {});
    byId("panels").append(element("h3", { textContent: panel.title }), place);
    if (!tables.length) {
      place.append(element("p", { className: "source", textContent: "No records along this axis." }));
      return;
    }
    plots.push(new uPlot({
      width, height: HEIGHT, series, bands,
      scales: {
        x: { time: false },
        y: logarithmic ? { distr: 3 } : { range: (_, low, high) => [Math.min(0, low), high > low ? high + 0.04 * (high - Math.min(0, low)) : low + 1] },
      },
      axes: [
        { label: panel.label, labelSize: 18, size: 34, labelFont: "12px system-ui", font: "11px system-ui", grid },
        { label: name, labelSize: 18, size: 48, labelFont: "12px system-ui", font: "11px system-ui", grid },
      ],
      cursor: { dataIdx: nearest, y: false },
    }, uPlot.join(tables), place));
  };

  const radio = () => document.querySelector("input[name=axis]:checked").value;

  const redraw = () => {
    plots.forEach((plot) => plot.destroy());
    plots = [];
    byId("panels").replaceChildren();
    const view = views[byId("quantity").value];
    byId("source").textContent = view.source;
    for (const panel of view.axes[radio()]) draw(panel, view.name, byId("panels").clientWidth, byId("logarithmic").checked);
  };

  const choose = () => {
    const view = views[byId("quantity").value];
    const before = document.querySelector("input[name=axis]:checked")?.value;
    const axis = before in view.axes ? before : Object.keys(view.axes)[0];
    byId("axes").replaceChildren(
      ...Object.keys(AXES).filter((each) => each in view.axes)
        .map((each) => choice("radio", "axis", each, AXES[each], each === axis, redraw)));
    const labels = [...new Set(Object.values(view.axes).flat().flatMap((panel) => panel.curves.map((curve) => curve.label)))];
    byId("methods").replaceChildren(...labels.map((label) => choice("checkbox", "method", label, label, !hidden.has(label), (event) => {
      if (event.target.checked) hidden.delete(label);
      else hidden.add(label);
      for (const plot of plots) {
        plot.series.forEach((series, place) => series.of === label && plot.setSeries(place, { show: event.target.checked }));
      }
    })));
    redraw();
  };

  for (const source of new Set(views.map((view) => view.source))) {
    const options = views.map((view, value) => [view, value]).filter(([view]) => view.source === source)
      .map(([view, value]) => element("option", { value, textContent: view.name }));
    byId("quantity").append(element("optgroup", { label: source }, ...options));
  }
  byId("quantity").addEventListener("change", choose);
  byId("logarithmic").addEventListener("change", redraw);

  // What can be drawn here makes room: its picture is among the figures.
  document.querySelectorAll("#headline [data-curves]").forEach((figure) => byId("figures").firstElementChild.after(figure));
  byId("headline").hidden = !byId("headline").querySelector("figure");
  byId("curves").hidden = false;
  choose();
  new ResizeObserver(() => plots.forEach((plot) => {
    const width = byId("panels").clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  })).observe(byId("panels"));
})();
