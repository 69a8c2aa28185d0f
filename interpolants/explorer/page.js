// Draws the figures of a path's page once their panel is shown, in the colours of the page; moves the particles; and lets
// menus and tabs choose what is shown. The panels may come and go, as they do in a live page.
(() => {
  "use strict";
  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  // Text and grid in the page's colours. Black, one of the colours of curves, would not be seen on a dark page.
  function themed(spec) {
    const [text, line] = [colour("--text"), colour("--line")];
    const layout = structuredClone(spec.layout);
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
    delete layout.height; // that of its place
    layout.font = { ...layout.font, color: text, family: "system-ui, sans-serif", size: 13 };
    layout.hoverlabel = { bgcolor: colour("--card"), font: { color: text } };
    for (const key of Object.keys(layout).filter((key) => /^[xy]axis/.test(key)))
      layout[key] = { ...layout[key], gridcolor: line, linecolor: line, zerolinecolor: line, showline: true,
                      title: { font: { size: 13 }, ...layout[key].title } };
    const data = structuredClone(spec.data);
    for (const trace of data)
      for (const part of [trace.line, trace.marker]) if (part?.color === "#000000") part.color = text;
    return { data, layout };
  }

  const figures = new Map(); // place -> what was drawn there
  function draw(place) {
    const spec = JSON.parse(place.querySelector(".spec").textContent);
    const plot = document.createElement("div");
    plot.style.cssText = "width:100%;height:100%";
    place.append(plot);
    const { data, layout } = themed(spec);
    Plotly.newPlot(plot, data, layout, {
      displaylogo: false, displayModeBar: "hover", plotlyServerURL: "", // no button that uploads the figure
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"],
    });
    figures.set(place, { spec, plot });
    const particles = place.closest(".particles");
    const plots = [...(particles?.querySelectorAll(".js-plotly-plot") ?? [])];
    if (plots.length === 2) animate(particles, plots, spec.layout.meta.colors);
  }
  // Not when they are scrolled to: on paper and in a picture of the whole page they would be missing.
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (!target.offsetWidth) continue; // in a panel that is not shown
      const drawn = figures.get(target);
      if (drawn?.plot.isConnected) Plotly.Plots.resize(drawn.plot);
      else draw(target);
    }
  });

  function retheme() {
    for (const [place, { spec, plot }] of figures) {
      if (!place.isConnected) { figures.delete(place); continue; }
      const { data, layout } = themed(spec);
      const particles = place.closest(".particles");
      Plotly.react(plot, particles ? plot.data : data, layout).then(() => particles?.dispatchEvent(new Event("redraw")));
    }
  }

  // Particles: positions are float32 by frame, particle and coordinate, those of the SDE by scale before that.
  function animate(box, plots, colours) {
    const given = JSON.parse(box.querySelector(".frames").textContent);
    const unpack = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    const [frames, count] = given.shape;
    const sides = [unpack(given.ode), unpack(given.sde)];
    const control = (name) => box.querySelector(name);
    const [time, scale, play] = [control(".time"), control(".scale"), control(".play")];
    const start = (side, frame) => ((side ? +scale.value * frames : 0) + frame) * count * 2;

    function destinations(side) {
      const [last, points] = [frames - 1, sides[side]];
      return Array.from({ length: count }, (_, n) => {
        const [x, y] = points.subarray(start(side, last) + 2 * n);
        const distances = given.centres[last].map(([cx, cy]) => Math.hypot(x - cx, y - cy));
        return colours[distances.indexOf(Math.min(...distances))];
      });
    }
    const rings = (frame) => {
      const [x, y] = [[], []];
      given.centres[frame].forEach(([cx, cy], k) => {
        for (let n = 0; n <= 48; n++) {
          x.push(cx + given.radii[frame][k] * Math.cos((n * Math.PI) / 24));
          y.push(cy + given.radii[frame][k] * Math.sin((n * Math.PI) / 24));
        }
        x.push(null); y.push(null);
      });
      return [x, y];
    };
    const trails = (side, frame) => {
      const [x, y] = [[], []];
      for (let n = 0; n < given.trails; n++) {
        for (let f = 0; f <= frame; f++) {
          const at = start(side, f) + 2 * n;
          x.push(sides[side][at]); y.push(sides[side][at + 1]);
        }
        x.push(null); y.push(null);
      }
      return [x, y];
    };
    const points = (side, frame) => {
      const all = sides[side].subarray(start(side, frame), start(side, frame) + 2 * count);
      return [all.filter((_, n) => n % 2 === 0), all.filter((_, n) => n % 2 === 1)].map((v) => Array.from(v));
    };

    let ends = [destinations(0), destinations(1)];
    function show() {
      const frame = +time.value;
      control(".time-value").textContent = `t = ${given.times[frame].toFixed(3)}`;
      control(".scale-value").textContent = `w × ${given.scales[+scale.value]}`;
      const parts = [0, 1].map((side) => [rings(frame), trails(side, frame), points(side, frame)]);
      for (const [side, plot] of plots.entries()) {
        plot.data.forEach((trace, n) => { [trace.x, trace.y] = parts[side][n]; });
        plot.data[2].marker.color = ends[side];
        plot.layout.datarevision = (plot.layout.datarevision ?? 0) + 1;
        Plotly.react(plot, plot.data, plot.layout);
      }
    }
    let running = 0;
    function stop() { clearInterval(running); running = 0; play.textContent = "▶"; }
    function go() {
      if (+time.value === frames - 1) time.value = 0;
      play.textContent = "❚❚";
      running = setInterval(() => {
        if (!box.isConnected) return stop();
        time.value = +time.value + 1;
        show();
        if (+time.value === frames - 1) stop();
      }, 60);
    }
    play.addEventListener("click", () => (running ? stop() : go()));
    time.addEventListener("input", () => { stop(); show(); });
    scale.addEventListener("input", () => { ends[1] = destinations(1); show(); });
    box.addEventListener("redraw", show);
    show();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) { time.value = frames - 1; show(); } else go();
  }

  // Menus of conversions, and tabs.
  function choose(box) {
    const [source, to] = [".source", ".target"].map((name) => box.querySelector(name).value);
    for (const part of box.querySelectorAll(".conversion"))
      part.hidden = part.classList.contains("same") ? source !== to : part.dataset.pair !== `${source} ${to}`;
  }
  document.addEventListener("change", ({ target }) => {
    const box = target.closest?.(".conversions");
    if (box) choose(box);
  });
  document.addEventListener("click", ({ target }) => {
    if (!target.matches?.(".explorer.tabs [role=tab]")) return;
    for (const tab of target.parentElement.children) {
      const chosen = tab === target;
      tab.setAttribute("aria-selected", chosen);
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
  });

  function look() {
    document.querySelectorAll(".conversions").forEach(choose); // a live page keeps the menus where the panel changes
    for (const place of document.querySelectorAll(".explorer .figure")) {
      if (place.querySelector(".js-plotly-plot")) continue;
      sized.unobserve(place); // a live page may have put another figure into a place that was drawn
      sized.observe(place);
    }
  }
  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
  look();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme);
  new MutationObserver(retheme).observe(document.body, { attributes: true, attributeFilter: ["class"] });
})();
