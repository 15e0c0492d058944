"use strict";
(() => {
  const source = document.getElementById("projection-data");
  const box = document.querySelector(".turnable");
  const still = document.querySelector(".static");
  if (!source || !box || !window.Plotly) return;
  const test = document.createElement("canvas");
  const context = test.getContext("webgl2") || test.getContext("webgl");
  if (!context) return; // the static figure stays
  context.getExtension("WEBGL_lose_context")?.loseContext();

  const data = JSON.parse(source.textContent);
  const plot = document.getElementById("projection-plot");
  const card = box.querySelector(".card");
  const canvas = card.querySelector("canvas");
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const eye = { x: 1.15, y: 1.15, z: 0.7 };
  const middle = { x: 0, y: 0, z: -0.2 };
  let started = false;
  let hidden = new Set();

  const sheet = new Image();
  if (data.sprite) sheet.src = data.sprite.uri; else canvas.remove();

  const traces = () => {
    return data.groups.map((style, place) => {
      const members = [];
      data.group.forEach((each, point) => { if (each === place) members.push(point); });
      const take = (values) => members.map((point) => values[point]);
      return {
        type: "scatter3d", mode: "markers", hoverinfo: "none", customdata: members,
        x: take(data.x), y: take(data.y), z: take(data.z),
        visible: !hidden.has(place),
        marker: {
          // a cross covers less of its square than a disc
          size: (data.x.length > 1500 ? 3.2 : 4.5) * ({ circle: 1, square: 0.95, diamond: 1.2 }[style.symbol] || 1.6),
          symbol: style.symbol, opacity: 0.88,
          color: dark.matches ? style.dark : style.light, line: { width: 0 },
        },
      };
    });
  };
  const layout = (camera) => {
    const ink = getComputedStyle(document.documentElement);
    const axis = (number) => ({
      title: { text: `${data.axis} ${number}`, font: { size: 11, color: ink.getPropertyValue("--muted").trim() } },
      showticklabels: false, ticks: "", showspikes: false, zeroline: false,
      gridcolor: ink.getPropertyValue("--rule").trim(),
      linecolor: ink.getPropertyValue("--edge").trim(), showbackground: false,
    });
    return {
      margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "same",
      scene: {
        xaxis: axis(1), yaxis: axis(2), zaxis: axis(3), aspectmode: "data", dragmode: "orbit",
        bgcolor: "rgba(0,0,0,0)", camera: camera || { eye, center: middle }, hovermode: "closest",
      },
    };
  };
  const camera = () => plot._fullLayout?.scene?._scene?.getCamera?.() || plot.layout.scene.camera;
  const draw = () => {
    if (!started) return;
    Plotly.react(plot, traces(), layout(camera()), { displayModeBar: false, scrollZoom: false, responsive: true });
  };

  // The card: what is pointed at
  let pointer = null;
  const place = () => {
    const width = plot.clientWidth, height = plot.clientHeight;
    const at = pointer || { x: 0, y: 0 };
    const left = at.x + 18 + card.offsetWidth > width ? at.x - 18 - card.offsetWidth : at.x + 18;
    const top = Math.min(at.y + 12, height - card.offsetHeight - 6);
    card.style.left = `${Math.max(6, left)}px`;
    card.style.top = `${Math.max(6, top)}px`;
  };
  const show = (point) => {
    if (data.sprite) {
      const { columns, px } = data.sprite;
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      if (sheet.complete && sheet.naturalWidth) {
        pen.imageSmoothingQuality = "high";
        pen.drawImage(sheet, (point % columns) * px, Math.floor(point / columns) * px, px, px, 0, 0, canvas.width, canvas.height);
      }
    }
    card.querySelector(".card-category").textContent = data.names[data.category[point]];
    card.querySelector(".card-id").textContent = data.ids[point];
    card.hidden = false;
    place();
  };
  const track = (event) => {
    const frame = plot.getBoundingClientRect();
    pointer = { x: event.clientX - frame.left, y: event.clientY - frame.top };
    if (!card.hidden) place();
  };
  plot.addEventListener("pointermove", track, true);
  plot.addEventListener("pointerdown", track, true);

  // The legend, the view
  const legend = box.querySelector(".legend");
  const mark = () => {
    for (const button of legend.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.place))));
    }
    card.hidden = true;
  };
  legend.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const number = Number(button.dataset.place);
    if (!hidden.delete(number)) hidden.add(number);
    mark();
    draw();
  });
  for (const button of box.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      hidden = new Set(button.dataset.show === "all" ? [] : data.groups.keys());
      mark();
      draw();
    });
  }
  const turn = { left: [0.3, 0, 1], right: [-0.3, 0, 1], up: [0, 0.25, 1], down: [0, -0.25, 1], in: [0, 0, 0.8], out: [0, 0, 1.25] };
  for (const button of box.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      const step = turn[button.dataset.view];
      let next = { eye, up: { x: 0, y: 0, z: 1 }, center: middle };
      if (step) {
        const now = camera();
        const { x, y, z } = now.eye;
        const radius = Math.hypot(x, y, z) * step[2];
        const around = Math.atan2(y, x) + step[0];
        const height = Math.max(-1.5, Math.min(1.5, Math.asin(z / Math.hypot(x, y, z)) + step[1]));
        next = {
          center: now.center, up: { x: 0, y: 0, z: 1 },
          eye: {
            x: radius * Math.cos(height) * Math.cos(around),
            y: radius * Math.cos(height) * Math.sin(around), z: radius * Math.sin(height),
          },
        };
      }
      if (started) Plotly.relayout(plot, { "scene.camera": next });
    });
  }

  const begin = async () => {
    if (started) return;
    try {
      await Plotly.newPlot(plot, traces(), layout(), { displayModeBar: false, scrollZoom: false, responsive: true });
    } catch (error) {
      box.hidden = true; // whatever the reason, the static figure tells the same
      still.hidden = false;
      return;
    }
    started = true;
    plot.on("plotly_hover", (event) => show(event.points[0].customdata));
    plot.on("plotly_click", (event) => show(event.points[0].customdata));
    plot.on("plotly_unhover", () => { card.hidden = true; });
    plot.on("plotly_webglcontextlost", () => { box.hidden = true; still.hidden = false; });
    dark.addEventListener("change", draw);
    plot.dataset.ready = "true";
  };
  box.hidden = false;
  still.hidden = true;
  mark();
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    begin();
  }, { rootMargin: "400px" }).observe(box);
})();
