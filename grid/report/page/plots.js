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

const figures = [...PLOTS];
for (const frame of document.querySelectorAll("figure.plots")) draw(frame, figures);
