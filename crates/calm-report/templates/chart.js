
// Beside the pointer, the values of every curve of the chart under it.
for (const figure of document.querySelectorAll("figure[data-values]")) {
  const series = JSON.parse(figure.dataset.values);
  const svg = figure.querySelector(".plot svg");
  if (!series.some((one) => one.points.length)) continue;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  svg.parentNode.append(tip);
  const shape = (name, attributes) => {
    const element = document.createElementNS(svg.namespaceURI, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return element;
  };
  const marks = shape("g", { "pointer-events": "none" });
  svg.append(marks);
  const hide = () => {
    tip.hidden = true;
    marks.replaceChildren();
  };
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    const near = (points) =>
      points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best), points[0]);
    const all = series.filter((one) => one.points.length);
    const at = near(all.map((one) => near(one.points)));
    const told = all
      .map((one) => ({ ...one, point: near(one.points) }))
      .filter((one) => Math.abs(one.point[0] - at[0]) <= 400)
      .sort((a, b) => a.point[1] - b.point[1]);
    marks.replaceChildren(
      shape("line", { x1: at[0], x2: at[0], y1: 120, y2: svg.viewBox.baseVal.height - 450, stroke: "#98A2B3", "stroke-width": 10 }),
      ...told.map((one) => shape("circle", { cx: one.point[0], cy: one.point[1], r: 40, fill: one.colour })),
    );
    const rows = told.map((one) => {
      const row = document.createElement("p");
      const value = document.createElement("strong");
      value.textContent = one.point[3];
      row.append(value, all.length > 1 ? " " + one.name : "");
      // A curve with fewer points tells its nearest one.
      if (one.point[2] !== at[2]) row.append(" at " + one.point[2]);
      return row;
    });
    const head = document.createElement("p");
    head.textContent = at[2];
    tip.replaceChildren(head, ...rows);
    tip.hidden = false;
    const left = at[0] / scale;
    const fits = left + 12 + tip.offsetWidth <= box.width;
    tip.style.left = (fits ? left + 12 : Math.max(0, left - 12 - tip.offsetWidth)) + "px";
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}
