// Draws the plots into their places; where that fails, the picture below them is shown instead.
const touch = matchMedia("(pointer: coarse)").matches;  // there a finger on a plot scrolls the page
const options = {
  responsive: true,
  displaylogo: false,
  displayModeBar: touch ? false : "hover",
  modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
};

function toggle(button, places) {
  const visible = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", visible);
  for (const place of places) {
    const traces = [...place.data.keys()].filter((number) => place.data[number].name === button.value);
    Plotly.restyle(place, { visible }, traces);
  }
}

function draw(frame, figures) {
  const unplotted = () => frame.classList.add("unplotted");
  const places = [...frame.querySelectorAll(".plot")];
  try {
    for (const place of places) {
      const { data, layout } = figures.shift();
      Plotly.newPlot(place, data, { ...layout, dragmode: touch ? false : "zoom" }, options).catch(unplotted);
    }
    for (const button of frame.querySelectorAll("button")) {
      button.addEventListener("click", () => toggle(button, places));
    }
  } catch {
    unplotted();
  }
}

// A plot of thousands of cells takes half a second: it is drawn when the reader comes near.
const figures = [...PLOTS];
const undrawn = new Map();
const near = new IntersectionObserver((entries) => {
  for (const { target: frame } of entries.filter((entry) => entry.isIntersecting)) {
    near.unobserve(frame);
    draw(frame, undrawn.get(frame));
  }
}, { rootMargin: "800px" });
for (const frame of document.querySelectorAll("figure.plots")) {
  undrawn.set(frame, figures.splice(0, frame.querySelectorAll(".plot").length));
  near.observe(frame);
}
