// Shows the figures' values under the pointer or by arrow keys: the nearest point of every line.
(() => {
  const figures = JSON.parse(document.getElementById("readings-data").textContent);
  const NEAR = 0.02; // of the width: points further away than this belong to another place
  const FEW = 4; // of more lines in a group, only the least and the greatest value are told

  const nearest = (values, x) =>
    values.reduce((best, one, at) => (Math.abs(one - x) < Math.abs(values[best] - x) ? at : best), 0);
  const written = (value) => String(value).replace("-", "\u2212");

  function told(figure, x) {
    const groups = new Map();
    for (const line of figure.lines) {
      const at = nearest(line.x, x);
      if (Math.abs(line.x[at] - x) > NEAR * (figure.limits[1] - figure.limits[0])) continue;
      if (!groups.has(line.group)) groups.set(line.group, []);
      groups.get(line.group).push([line.name, line.y[at]]);
    }
    const parts = [];
    for (const [group, lines] of groups) {
      if (group && lines.length > FEW) {
        const values = lines.map(([, y]) => y);
        const ends = [Math.min(...values), Math.max(...values)].map(written).join(" to ");
        parts.push(`${group}: ${ends}${figure.unit} (${lines.length} seeds)`);
      } else {
        const names = lines.map(([name, y]) => `${name}: ${written(y)}${figure.unit}`).join(", ");
        parts.push(group && group !== "seeds" ? `${group} (${names})` : names);
      }
    }
    const place = figure.names[x] ?? `${figure.x} ${written(x)}`;
    return `${place} \u00b7 ${parts.join("; ")}`;
  }

  for (const [name, figure] of Object.entries(figures)) {
    const plot = document.getElementById(`plot-${name}`);
    const hair = document.createElement("div");
    hair.className = "hair";
    hair.hidden = true;
    const reading = document.createElement("p");
    reading.className = "reading";
    reading.setAttribute("role", "status");
    plot.append(hair);
    plot.after(reading);
    plot.tabIndex = 0;
    const places = [...new Set(figure.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const [low, high] = figure.limits;
    let at = -1;

    function show(place) {
      at = Math.min(places.length - 1, Math.max(0, place));
      const share = figure.left + ((places[at] - low) / (high - low)) * (figure.right - figure.left);
      hair.hidden = false;
      hair.style.left = `${100 * share}%`;
      hair.style.top = `${100 * figure.top}%`;
      hair.style.height = `${100 * (figure.bottom - figure.top)}%`;
      reading.textContent = told(figure, places[at]);
    }

    function point(event) {
      const box = plot.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width - figure.left) / (figure.right - figure.left);
      show(nearest(places, low + share * (high - low)));
    }

    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      show(at + (event.key === "ArrowLeft" ? -1 : 1));
      event.preventDefault();
    });
  }
})();
