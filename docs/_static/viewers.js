/* Put a viewer's page, with its sliders, in the place of its still picture. */
"use strict";

function stillOf(paragraph) {
  let before = paragraph.previousElementSibling;
  while (before && !before.querySelector("img")) before = before.previousElementSibling;
  return before && (before.querySelector(".cell_output") || before);
}

function makeButton(link) {
  const paragraph = link.parentElement;
  const still = stillOf(paragraph);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sliders-button";
  button.textContent = "Move the sliders here";
  link.textContent = "Open on a page of its own";
  let frame = null;
  button.addEventListener("click", () => {
    const opens = !frame;
    if (opens) {
      frame = document.createElement("iframe");
      frame.className = "sliders-frame";
      frame.title = "Viewer with sliders: " + link.dataset.alt;
      frame.src = link.href;
      paragraph.before(frame);
    } else {
      frame.remove();
      frame = null;
    }
    if (still) still.hidden = opens;
    button.setAttribute("aria-expanded", String(opens));
    button.textContent = opens ? "Back to the still picture" : "Move the sliders here";
  });
  button.setAttribute("aria-expanded", "false");
  paragraph.prepend(button);
}

for (const link of document.querySelectorAll("a.sliders-link")) makeButton(link);

// A viewer's page tells how tall it is; no other frame is on these pages.
window.addEventListener("message", (event) => {
  for (const frame of document.querySelectorAll("iframe.sliders-frame")) {
    const height = Number(event.data && event.data.viewerHeight);
    if (frame.contentWindow === event.source && height > 0) frame.style.height = height + 2 + "px";
  }
});
