// Draws the plots into their places; where that fails, the picture below them is shown instead.
const frame = document.querySelector("figure.plots");
const places = [...frame.querySelectorAll(".plot")];
const touch = matchMedia("(pointer: coarse)").matches;  // there a finger on a plot scrolls the page
const options = {
  responsive: true,
  displaylogo: false,
  displayModeBar: touch ? false : "hover",
  modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
};

function toggle(button) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  for (const place of places) {
    const traces = [...place.data.keys()].filter((number) => place.data[number].name === button.value);
    Plotly.restyle(place, { visible: shown }, traces);
  }
}

try {
  places.forEach((place, number) => {
    const layout = { ...PLOTS[number].layout, dragmode: touch ? false : "zoom" };
    Plotly.newPlot(place, PLOTS[number].data, layout, options).catch(() => frame.classList.add("unplotted"));
  });
  for (const button of frame.querySelectorAll("button")) button.addEventListener("click", () => toggle(button));
} catch {
  frame.classList.add("unplotted");
}
