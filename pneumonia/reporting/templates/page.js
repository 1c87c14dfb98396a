"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const PALETTES = {
    light: {
      page: "#ffffff", ink: "#1c1e21", soft: "#5a6068", line: "#e3e5e8",
      blue: "#0072b2", orange: "#d55e00", green: "#00795c", purple: "#a8487f",
      yellow: "#a87900", sky: "#2b8cc4", grey: "#8a9098",
      scale: [[0, "#cfd8dc"], [0.35, "#7fbfc4"], [0.7, "#2a7fb0"], [1, "#2b1d78"]],
    },
    dark: {
      page: "#1d2125", ink: "#e6e8ea", soft: "#a6adb5", line: "#363c43",
      blue: "#5cb3f0", orange: "#ff9a5c", green: "#3fd0a4", purple: "#e79bc6",
      yellow: "#f0c040", sky: "#9fd8ff", grey: "#858d96",
      scale: [[0, "#3a4a5e"], [0.35, "#2f7f8f"], [0.7, "#5fc28a"], [1, "#fbe67a"]],
    },
  };

  // Figures name colours such as "@blue": what they are depends on light and dark.
  const paint = (value, palette) => {
    if (typeof value === "string") return value.startsWith("@") ? palette[value.slice(1)] ?? value : value;
    if (Array.isArray(value)) return value.map((one) => paint(one, palette));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, paint(one, palette)]));
    }
    return value;
  };

  const layoutOf = (given, palette) => {
    const layout = {
      paper_bgcolor: palette.page, plot_bgcolor: palette.page, autosize: true,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 12, color: palette.ink },
      margin: { l: 58, r: 14, t: 8, b: 46 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
      hoverlabel: { bgcolor: palette.page, bordercolor: palette.line, font: { color: palette.ink }, align: "left" },
      dragmode: "zoom",
      ...given,
    };
    for (const name of ["xaxis", "yaxis"]) {
      if (layout[name]) {
        layout[name] = { gridcolor: palette.line, zerolinecolor: palette.line, linecolor: palette.soft, automargin: true, ...layout[name] };
        if (layout[name].title) layout[name].title = { standoff: 10, ...layout[name].title };
      }
    }
    return layout;
  };

  // Without the bar of buttons, one of which would send the data to plotly's makers.
  const config = { responsive: true, displayModeBar: false };
  const figures = [...document.querySelectorAll("script.figure")].map((script) => ({
    place: document.getElementById(script.dataset.plot), ...JSON.parse(script.textContent),
  }));
  const draw = async (figure) => {
    const palette = PALETTES[dark.matches ? "dark" : "light"];
    await Plotly.react(figure.place, paint(figure.data, palette), layoutOf(paint(figure.layout, palette), palette), config);
    figure.place.dataset.drawn = "yes";
  };
  const drawAll = async () => {
    for (const figure of figures) {
      await draw(figure);
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.ready = "yes";
  };
  dark.addEventListener("change", drawAll);
  drawAll();

  const valueOf = (cell) => {
    const text = cell.textContent.trim();
    const number = parseFloat(text.replaceAll(",", ""));
    const clock = /^(\d+:)?\d+:\d\d$/.test(text) ? text.split(":").reduce((sum, part) => 60 * sum + Number(part), 0) : NaN;
    return Number.isNaN(clock) ? (Number.isNaN(number) || !cell.classList.contains("number") ? text : number) : clock;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th button").forEach((button, column) => {
      button.addEventListener("click", () => {
        const heading = button.parentElement;
        const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => sign * compare(valueOf(a.cells[column]), valueOf(b.cells[column])));
        table.tBodies[0].append(...rows);
      });
    });
  }

  const entries = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((changes) => {
    for (const change of changes) {
      if (!change.isIntersecting) continue;
      for (const link of entries.values()) link.removeAttribute("aria-current");
      const link = entries.get(change.target.id);
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      if (list.scrollWidth > list.clientWidth) {
        list.scrollTo({ left: link.offsetLeft - 40, behavior: calm.matches ? "auto" : "smooth" });
      }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main section")) seen.observe(section);
})();
