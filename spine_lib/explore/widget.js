// The one front end: pictures, charts, sliders, captions and chips, in a notebook and in a saved
// page. It shows what its model holds and reports wheel, pointer, touch, keys and brush. In a
// notebook anywidget calls `render` and the model is Python's; in a saved page `startPage` makes
// the models and answers them.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const at = (share, count) => clamp(Math.floor(share * count), 0, count - 1);
const UNDER_WAY = 3; // reports that may wait for their answer, so that Python is never idle
let serial = 0; // makes two equal reports differ

function make(kind, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(kind), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

// Sends what hands do, once in a frame of the screen; what is newer replaces what still waits.
class Reporter {
  constructor(model) {
    Object.assign(this, { model, id: Math.random(), sent: 0, done: 0, waiting: {}, wanted: {} });
    model.on("change:answered", () => this.flush());
  }

  // The value as the hand has it, while answers to older reports still come in.
  get(name) { return name in this.wanted ? this.wanted[name] : this.model.get(name); }

  report(changes) {
    if (this.waiting.pointer?.[0] === "press" && changes.pointer?.[0] === "hover") return;
    Object.assign(this.wanted, changes);
    Object.assign(this.waiting, changes);
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.flush(); });
  }

  flush() {
    const [id, number] = this.model.get("answered");
    if (id === this.id) this.done = number;
    if (this.done < this.sent - UNDER_WAY + 1 || this.frame) return;
    if (Object.keys(this.waiting).length) {
      const report = { answered: [this.id, ++this.sent], ...this.waiting }; // answered even if one fails
      this.waiting = {};
      this.model.send(report);
    } else if (this.done === this.sent) this.wanted = {};
  }
}

// Calls now, and once after each group of changes of these traits; returns what stops it.
function follow(model, names, call) {
  let queued = false;
  const queue = () => {
    if (!queued) queueMicrotask(() => { queued = false; call(); });
    queued = true;
  };
  for (const name of names) model.on(`change:${name}`, queue);
  call();
  return () => names.forEach((name) => model.off(`change:${name}`, queue));
}

const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
  Home: -1e9, End: 1e9 };

function showPicture(model, el, hand) {
  const figure = make("figure", el, { className: "spine-picture" });
  const head = make("figcaption", figure);
  const title = make("span", head);
  const frame = make("div", figure, { className: "spine-frame" });
  const stage = make("div", frame, { className: "spine-stage" });
  const canvas = make("canvas", stage, { tabIndex: 0 }, { role: "img" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const lines = [0, 1].map(() => make("i", stage, { className: "spine-line" }));
  const ring = make("i", stage, { className: "spine-ring", hidden: true });
  const letters = ["left", "right", "top", "bottom"].map((side) =>
    make("b", frame, { className: `spine-${side}` }));
  const bar = make("b", frame, { className: "spine-bar" });
  const view = { scale: 1, x: 0, y: 0 };
  const fingers = new Map();
  let asked = 0, drawn = 0, drag = null, turned = 0;

  const button = (textContent, title, onclick) =>
    make("button", head, { type: "button", textContent, title, onclick });
  button("full screen", "Fill the screen with this view", fillScreen);
  button("PNG", "Save this view as a PNG", () => {
    const href = canvas.toDataURL("image/png");
    make("a", null, { href, download: `${title.textContent || "view"}.png` }).click();
  });
  const whole = button("whole", "Show the whole picture again", () => zoom(1, 0, 0));

  function fillScreen() {
    if (document.fullscreenElement) return document.exitFullscreen();
    // Where the browser does not let an element fill the screen, it fills the page.
    return figure.requestFullscreen().catch(() => figure.classList.toggle("spine-full"));
  }

  async function draw() {
    const [source, alt] = [model.get("image"), model.get("alt")];
    const number = ++asked;
    const image = source instanceof ImageData
      ? source
      : await createImageBitmap(new Blob([source]), { colorSpaceConversion: "none" });
    if (number < drawn) return; // a later picture was decoded first
    drawn = number;
    const { width, height } = image, margins = model.get("marks").length ? 36 : 0;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (image === source) context.putImageData(image, 0, 0);
    else context.drawImage(image, 0, 0);
    canvas.setAttribute("aria-label", alt);
    const across = `${Math.round((width * model.get("size_px")) / Math.max(width, height)) + margins}px`;
    const ratio = `${width / height}`;
    if (figure.style.width === across && frame.style.getPropertyValue("--ratio") === ratio) return;
    frame.style.setProperty("--ratio", ratio); // not each time, as the page is laid out anew
    el.style.width = el.style.maxWidth = figure.style.width = across;
  }

  function decorate() {
    title.textContent = model.get("title");
    letters.forEach((letter, n) => { letter.textContent = model.get("marks")[n] ?? ""; });
    canvas.classList.toggle("spine-brush", Boolean(model.get("tool")));
  }

  // Puts the cursor and the scale bar where the zoom has them.
  function place() {
    canvas.style.transform = `translate(${view.x}px,${view.y}px) scale(${view.scale})`;
    whole.hidden = view.scale === 1;
    const cursor = model.get("cursor"), crossed = model.get("lines") ? "1" : "0";
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    lines.forEach((line, n) => {
      line.hidden = cursor.length === 0;
      const [x, y] = cursor.length ? cursor : [0, 0];
      line.style.left = `${view.x + x * width * view.scale}px`;
      line.style.top = `${view.y + y * height * view.scale}px`;
      line.dataset.kind = (n ? "across" : "down") + crossed;
    });
    const [mm, share] = model.get("bar").length ? model.get("bar") : [0, 0];
    let shorter = 1;
    while ((share * view.scale) / shorter > 0.4) shorter *= 2;
    bar.textContent = mm ? `${Number((mm / shorter).toPrecision(3))} mm` : "";
    bar.style.width = `${(share * view.scale * width) / shorter}px`;
  }

  function zoom(scale, x, y) {
    view.scale = clamp(scale, 1, 16);
    view.x = clamp(x, stage.clientWidth * (1 - view.scale), 0);
    view.y = clamp(y, stage.clientHeight * (1 - view.scale), 0);
    place();
  }

  function zoomAt(x, y, factor) {
    const box = stage.getBoundingClientRect(), scale = clamp(view.scale * factor, 1, 16);
    const [left, top] = [x - box.x, y - box.y], grown = scale / view.scale;
    zoom(scale, left - (left - view.x) * grown, top - (top - view.y) * grown);
  }

  function share(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height]
      .map((value) => Number(clamp(value, 0, 1).toFixed(5)));
  }

  const point = (kind, event) => hand.report({ pointer: [kind, ...share(event), ++serial] });

  function goTo(wanted) {
    const index = clamp(wanted, 0, model.get("last"));
    if (index !== hand.get("index")) hand.report({ index });
  }

  function dragKind(event) {
    if (fingers.size === 2) return "pinch";
    if (event.button === 2 || event.shiftKey) return model.get("window").length ? "window" : "pan";
    if (event.button === 1 || event.ctrlKey) return "pan";
    if (model.get("tool")) return "stroke";
    return event.pointerType === "touch" ? (view.scale > 1 ? "pan" : "swipe") : "press";
  }

  function spread() {
    const [a, b] = [...fingers.values()];
    const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
    return { apart, x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 };
  }

  const moves = {
    press: (event) => point("press", event),
    window(event, dx, dy) {
      const [centre, width] = drag.window;
      hand.report({ window: [centre - 2 * dy, Math.max(width + 4 * dx, 1)] });
    },
    pan: (event, dx, dy) => zoom(view.scale, drag.view.x + dx, drag.view.y + dy),
    swipe: (event, dx) => goTo(drag.index + Math.trunc(dx / 8)),
    pinch() {
      const now = spread();
      zoomAt(now.x, now.y, now.apart / drag.spread.apart);
      zoom(view.scale, view.x + now.x - drag.spread.x, view.y + now.y - drag.spread.y);
      drag.spread = now;
    },
    stroke(event, dx, dy, done = false) {
      drag.points.push(share(event));
      hand.report({ stroke: { id: drag.id, points: [...drag.points], done } });
    },
  };

  function begin(event) {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    const kind = dragKind(event);
    drag = { kind, x: event.clientX, y: event.clientY, id: ++serial, points: [], moved: false,
      window: hand.get("window"), index: hand.get("index"), view: { ...view },
      spread: kind === "pinch" ? spread() : null };
    if (kind === "press" || kind === "stroke") moves[kind](event);
  }

  function move(event) {
    const box = stage.getBoundingClientRect(), radius = model.get("radius");
    ring.hidden = !model.get("tool") || radius.length === 0;
    const [left, top] = [event.clientX - box.x, event.clientY - box.y];
    const [width, height] = ring.hidden ? [0, 0] : radius.map((part) => 2 * part * view.scale);
    Object.assign(ring.style, { left: `${left}px`, top: `${top}px`, width: `${width * box.width}px`,
      height: `${height * box.height}px` });
    if (!drag) return event.pointerType === "touch" ? null : point("hover", event);
    fingers.set(event.pointerId, event);
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.moved ||= Math.hypot(dx, dy) > 4;
    return moves[drag.kind](event, dx, dy);
  }

  function end(event) {
    fingers.delete(event.pointerId);
    if (drag?.kind === "stroke") moves.stroke(event, 0, 0, true);
    if (drag?.kind === "swipe" && !drag.moved) point("press", event);
    drag = null;
  }

  function wheel(event) {
    event.preventDefault();
    if (event.ctrlKey) return zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 300));
    const pixels = event.deltaMode ? 100 * Math.sign(event.deltaY) : event.deltaY;
    turned = Math.abs(pixels) >= 50 ? 50 * Math.sign(pixels) : turned + pixels;
    const steps = Math.trunc(turned / 50);
    turned -= 50 * steps;
    return goTo(hand.get("index") - steps); // away from the reader: to the head
  }

  function key(event) {
    if (event.key in STEPS) goTo(hand.get("index") + STEPS[event.key]);
    else if (event.key === "f") fillScreen();
    else if (event.key === "Escape") figure.classList.remove("spine-full");
    else if ("+-".includes(event.key)) zoom(view.scale * (event.key === "+" ? 1.25 : 0.8), view.x, view.y);
    else if ("zy[]".includes(event.key)) hand.report({ key: [event.key, ++serial] });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  const handlers = { pointerdown: begin, pointermove: move, pointerup: end, pointercancel: end,
    keydown: key, dblclick: () => zoom(1, 0, 0), contextmenu: (event) => event.preventDefault(),
    pointerleave(event) { ring.hidden = true; if (!drag) point("leave", event); } };
  for (const [name, handler] of Object.entries(handlers)) canvas.addEventListener(name, handler);
  canvas.addEventListener("wheel", wheel, { passive: false });
  const resized = new ResizeObserver(place);
  resized.observe(stage);
  return [follow(model, ["image"], draw), () => resized.disconnect(),
    follow(model, ["title", "marks", "tool"], decorate), follow(model, ["bar", "cursor", "lines"], place)];
}

function svg(kind, parent, attributes, textContent = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(Object.assign(element, { textContent }));
  return element;
}

// About four round numbers in a range.
function ticks([low, high]) {
  const wanted = (high - low) / 4, power = 10 ** Math.floor(Math.log10(wanted));
  const size = power * [1, 2, 2.5, 5, 10].find((factor) => power * factor >= 0.999 * wanted);
  const first = Math.ceil(low / size - 1e-9);
  const count = Math.floor(high / size + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, n) => Number(((first + n) * size).toPrecision(6)));
}

const LINES = [["#0072b2", ""], ["#d55e00", "7 3"], ["#009e73", "2 3"], ["#cc79a7", "9 3 2 3"],
  ["#e69f00", "14 3"]];

function showChart(model, el, hand) {
  const left = 46, right = 542, top = 40, bottom = 152;
  const board = svg("svg", el, { class: "spine-chart", viewBox: "0 0 560 188", role: "img" });
  let mark = null, ranges = null;
  const x = (value) => left + ((value - ranges[0][0]) / (ranges[0][1] - ranges[0][0])) * (right - left);
  const y = (value) => bottom - ((value - ranges[1][0]) / (ranges[1][1] - ranges[1][0])) * (bottom - top);

  function path(line) { // not across a gap; the short step makes a point between two gaps a dot
    let joined = false;
    return line.x.map((across, n) => {
      const down = line.y[n], kind = joined ? "L" : "M";
      joined = down !== null;
      return joined ? `${kind}${x(across).toFixed(1)} ${clamp(y(down), top, bottom).toFixed(1)}h.01` : "";
    }).join("");
  }

  function draw() {
    board.replaceChildren();
    ranges = model.get("ranges");
    const [x_label, y_label] = model.get("labels"), middle = { "text-anchor": "middle" };
    svg("path", board, { d: `M${left} ${top}V${bottom}H${right}`, stroke: "#888", fill: "none" });
    for (const value of ticks(ranges[0])) svg("text", board, { x: x(value), y: bottom + 14, ...middle }, value);
    for (const value of model.get("y_ticks") ? ticks(ranges[1]) : []) {
      svg("path", board, { d: `M${left} ${y(value)}H${right}`, stroke: "#8884" });
      svg("text", board, { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, value);
    }
    svg("text", board, { x: (left + right) / 2, y: 183, ...middle }, x_label);
    svg("text", board, { transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)`, ...middle }, y_label);
    const lines = model.get("lines"), columns = Math.min(lines.length, 3);
    lines.forEach((line, n) => {
      const [stroke, dashes] = LINES[n];
      const style = { stroke, fill: "none", "stroke-width": 2, "stroke-dasharray": dashes };
      const begin = left + ((n % columns) * (right - left)) / columns, height = 10 + 16 * Math.floor(n / 3);
      svg("path", board, { d: path(line), ...style });
      if (lines.length === 1) return; // the axis names it
      svg("path", board, { d: `M${begin} ${height}h28`, ...style });
      svg("text", board, { x: begin + 33, y: height + 4 }, line.name);
    });
    const band = model.get("band");
    if (band.length) {
      const [low, high] = band.map((value) => clamp(x(value), left, right));
      svg("rect", board, { x: low, y: top, width: high - low, height: bottom - top, fill: "#56b4e944" });
      svg("path", board, { d: `M${left} ${bottom}H${low}L${high} ${top}H${right}`, fill: "none",
        stroke: "#d55e00", "stroke-width": 2 });
    }
    mark = svg("path", board, { class: "spine-mark", d: `M0 ${top}V${bottom}`, stroke: "currentColor",
      "stroke-width": 1.5 });
    place();
  }

  function place() {
    const value = model.get("mark");
    mark.setAttribute("visibility", value === null ? "hidden" : "visible");
    if (value !== null) mark.setAttribute("transform", `translate(${x(value).toFixed(1)} 0)`);
    board.setAttribute("aria-label", model.get("alt"));
  }

  function choose(event) {
    if (!(event.buttons & 1) || model.get("mark") === null) return;
    const box = board.getBoundingClientRect(), [low, high] = ranges[0];
    const across = clamp(((event.clientX - box.x) / box.width) * 560, left, right);
    hand.report({ mark: low + ((across - left) / (right - left)) * (high - low) });
  }
  board.addEventListener("pointerdown", choose);
  board.addEventListener("pointermove", choose);
  return [follow(model, ["lines", "ranges", "labels", "band", "y_ticks"], draw),
    follow(model, ["mark", "alt"], place)];
}

const HATCHES = { solid: "plain", rising: "hatched /", falling: "hatched \\", dots: "dotted" };

function swatch(parent, rgb, hatch) {
  const strong = `rgb(${rgb})`, pale = `rgba(${rgb},.45)`, stripes = `${strong} 0 2px,${pale} 2px 6px`;
  make("i", parent, { className: "spine-swatch" }).style.background = {
    solid: strong,
    rising: `repeating-linear-gradient(135deg,${stripes})`,
    falling: `repeating-linear-gradient(45deg,${stripes})`,
    dots: `radial-gradient(${strong} 40%,${pale} 45%) 0 0/5px 5px`,
    dashed: "repeating-linear-gradient(90deg,#d8c800 0 5px,#000 5px 9px) 0 50%/100% 3px no-repeat",
  }[hatch];
}

function showCaption(model, el) {
  const text = make("div", el, { className: "spine-text" }, { role: "status" });
  const legend = make("div", el, { className: "spine-legend" }, { role: "list", "aria-label": "legend" });
  return [
    follow(model, ["text"], () => { text.textContent = model.get("text"); }),
    follow(model, ["swatches"], () => {
      legend.replaceChildren();
      for (const [name, rgb, hatch] of model.get("swatches")) {
        const item = make("span", legend, {}, { role: "listitem" });
        swatch(item, rgb, hatch);
        item.append(HATCHES[hatch] ? `${name} (${HATCHES[hatch]})` : name);
      }
    }),
  ];
}

function showSlider(model, el, hand) {
  const label = make("label", el, { className: "spine-slider" });
  const name = make("span", label), input = make("input", label, { type: "range" });
  const number = make("b", label);
  function draw() {
    const description = model.get("description"), [value, step] = [hand.get("value"), model.get("step")];
    Object.assign(input, { min: model.get("min"), max: model.get("max"), step, value, ariaLabel: description });
    name.textContent = description;
    label.style.width = `${model.get("width_px")}px`;
    number.textContent = step % 1 ? value.toFixed(2) : value;
  }
  input.addEventListener("input", () => { hand.report({ value: Number(input.value) }); draw(); });
  return [follow(model, ["description", "min", "max", "value", "width_px"], draw)];
}

function showChips(model, el, hand) {
  const list = make("div", el, { className: "spine-chips" }, { role: "group", "aria-label": "structures" });
  return [follow(model, ["options", "value", "groups"], () => {
    const focused = [...list.children].indexOf(document.activeElement);
    const chosen = new Set(model.get("value"));
    list.replaceChildren();
    const add = (textContent, value, attributes = {}) => make("button", list,
      { type: "button", textContent, onclick: () => hand.report({ value }) }, attributes);
    for (const [name, labels] of model.get("groups")) add(name, labels);
    for (const [name, label] of model.get("options")) {
      const others = [...chosen].filter((other) => other !== label);
      const value = chosen.has(label) ? others : [...others, label].sort((a, b) => a - b);
      add(name, value, { "aria-pressed": chosen.has(label) });
    }
    list.children[focused]?.focus();
  })];
}

const KINDS = { picture: showPicture, chart: showChart, caption: showCaption, slider: showSlider,
  chips: showChips };

function render({ model, el }) {
  el.classList.add("spine-front");
  // With a control in focus no key may reach the notebook, which would move or insert cells.
  const seen = new ResizeObserver(() => {
    const viewer = el.closest(".spine-viewer");
    if (!viewer || viewer.dataset.lmSuppressShortcuts) return;
    viewer.dataset.lmSuppressShortcuts = "true";
    viewer.addEventListener("focusin", ({ target }) => { target.dataset.lmSuppressShortcuts = "true"; });
  });
  seen.observe(el);
  const stops = KINDS[model.get("kind")](model, el, new Reporter(model));
  return () => [() => seen.disconnect(), ...stops].forEach((stop) => stop());
}

// The model of a widget of a saved page.
class Model {
  constructor(state, receive) {
    Object.assign(this, { state: { answered: [0, 0], ...state }, receive, calls: {} });
  }
  get(name) { return this.state[name]; }
  on(event, call) { (this.calls[event] ??= []).push(call); }
  off() {}
  update(changes) {
    Object.assign(this.state, changes);
    for (const name of Object.keys(changes)) (this.calls[`change:${name}`] ?? []).forEach((call) => call());
  }
  send({ answered, ...changes }) {
    this.update(changes);
    this.receive(changes);
    this.update({ answered });
  }
}

async function pixels(source) {
  const image = make("img", null, { src: source });
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = make("canvas", null, { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height);
}

// Plays the part of Python in a saved page: `content` is what `page.py` writes.
export function startPage(content, body) {
  const { shape, affine, stacks, windows } = content;
  const display = { window: windows[0], on: true, opacity: 1, labels: null };
  const choices = make("div", body, { className: "spine-choices" });
  const board = make("div", body, { className: "spine-board" });
  const voxel = [0, 0, 0]; // the cursor's

  function widget(parent, kind, state, receive) {
    const model = new Model({ kind, ...state }, receive);
    render({ model, el: make("div", parent) });
    return model;
  }

  function control(name, kind, properties, changed) {
    const label = make("label", choices);
    make("span", label, { textContent: name });
    const input = make(kind, label, properties, { "aria-label": name });
    input.addEventListener("input", () => changed(input));
    return input;
  }

  function choose(name, options, changed) {
    const input = control(name, "select", {}, () => changed(input.selectedIndex));
    for (const textContent of options) make("option", input, { textContent });
    return input;
  }

  function makeStack(stack) {
    const last = stack.indices.length - 1;
    stack.box = make("section", board);
    const row = make("div", stack.box, { className: "spine-row" });
    for (const panel of stack.panels) {
      const state = { image: new ImageData(1, 1), alt: "", title: "", size_px: content.size_px,
        marks: stack.marks, bar: stack.bar, cursor: [], lines: !content.choose, index: stack.start, last,
        window: [], tool: "", radius: [] };
      panel.model = widget(row, "picture", state, ({ index, window, pointer }) => {
        if (index !== undefined) show(stack, index);
        if (window) setWindow(window);
        if (pointer) point(stack, panel, pointer);
      });
    }
    stack.input = widget(stack.box, "slider", { description: `${stack.plane} slice`, min: 0, max: last,
      step: 1, value: stack.start, width_px: 640 }, ({ value }) => show(stack, value));
    stack.caption = widget(stack.box, "caption", { text: "", swatches: [] });
    stack.chart &&= widget(stack.box, "chart", stack.chart,
      ({ mark }) => show(stack, nearest(stack, mark - 1)));
  }

  function nearest(stack, index) {
    const apart = stack.indices.map((kept) => Math.abs(kept - index));
    return apart.indexOf(Math.min(...apart));
  }

  // Pictures take a moment to decode: of several that were asked for, only the last is shown.
  async function show(stack, position) {
    if (stack.wanted === position) return;
    stack.wanted = position;
    stack.input.update({ value: position });
    const sources = [stack.slices[position], ...stack.panels.map((panel) => panel.over[position])];
    const [levels, ...areas] = await Promise.all(sources.map((source) => source && pixels(source)));
    if (stack.wanted !== position) return;
    Object.assign(stack, { levels, position });
    stack.panels.forEach((panel, n) => { panel.areas = areas[n]; });
    voxel[stack.axes[0]] = stack.indices[position];
    paint(stack);
    cross();
  }

  // A level stands for a HU, which the window turns into a grey; an area and the kind of its pixel
  // (hatching, outline) stand for a colour and its opacity.
  function compose(levels, panel) {
    const [, centre, width] = display.window;
    const greys = content.levels.map((hu) => clamp((255 * (hu - centre + width / 2)) / width, 0, 255));
    const areas = display.on && panel.areas ? panel.areas.data : null;
    const drawn = new ImageData(levels.width, levels.height), { data } = drawn;
    for (let n = 0; n < data.length; n += 4) {
      const grey = greys[levels.data[n]], area = areas ? areas[n] : 0, kind = areas ? areas[n + 1] : 0;
      const visible = area + kind && (kind > 2 || !display.labels || display.labels.has(area));
      const colour = visible ? panel.colours[5 * area + kind] : [0, 0, 0, 0];
      const cover = colour[3] * display.opacity;
      for (let band = 0; band < 3; band++) data[n + band] = grey * (1 - cover) + colour[band] * cover;
      data[n + 3] = 255;
    }
    return drawn;
  }

  function paint(stack) {
    if (!stack.levels) return;
    const { position } = stack, [name, ...window] = display.window;
    const visible = display.on && display.opacity > 0;
    for (const panel of stack.panels) {
      const alt = `${(visible ? panel.alt : panel.plain)[position]} Window: ${name}.`;
      const title = panel.title || stack.titles[position];
      panel.model.update({ alt, title, window, index: position, image: compose(stack.levels, panel) });
    }
    describe(stack);
    stack.chart?.update({ alt: stack.chart_alts[position], mark: stack.indices[position] + 1 });
  }

  const describe = (stack, words = "") => stack.caption.update({ text: stack.texts[stack.position] + words });

  function cross() {
    for (const { axes: [, rows, columns], panels } of content.choose ? [] : stacks) {
      const cursor = [columns, rows].map((axis) => (shape[axis] - 0.5 - voxel[axis]) / shape[axis]);
      for (const panel of panels) panel.model.update({ cursor });
    }
  }

  function point(stack, panel, [kind, across, down]) {
    if (kind === "leave" || !stack.levels) return describe(stack);
    const [cut, rows, columns] = stack.axes, under = [];
    under[cut] = stack.indices[stack.position];
    under[rows] = shape[rows] - 1 - at(down, shape[rows]);
    under[columns] = shape[columns] - 1 - at(across, shape[columns]);
    const value = ({ width, height, data }) => data[4 * (at(down, height) * width + at(across, width))];
    const name = panel.areas && display.on ? panel.names[value(panel.areas)] : "";
    const mm = affine.map((line, axis) => {
      const place = under.reduce((sum, n, column) => sum + n * line[column], line[3]);
      return `${"RAS"[axis]} ${place < 0 ? "" : "+"}${place.toFixed(1)}`;
    });
    const hu = Math.round(content.levels[value(stack.levels)]);
    describe(stack, ` Mouse at ${mm.join(", ")} mm: about ${hu} HU${name ? `, ${name}` : ""}.`);
    if (kind !== "press" || content.choose) return;
    voxel.splice(0, 3, ...under);
    for (const other of stacks) if (other !== stack) show(other, nearest(other, under[other.axes[0]]));
    cross();
  }

  function setWindow(window) {
    if (!windows.own) make("option", presets, { textContent: "own" });
    presets.selectedIndex = windows.length;
    windows.own = ["own", ...window];
    paintAll({ window: windows.own });
  }

  function paintAll(changes) {
    Object.assign(display, changes);
    stacks.forEach(paint);
  }

  const showPlane = (chosen) => stacks.forEach((stack, n) => { stack.box.hidden = n !== chosen; });

  if (content.choose) choose("plane", stacks.map((stack) => stack.plane), showPlane);
  const presets = choose("window", windows.map(([name, centre, width]) => `${name} (${centre} / ${width} HU)`),
    (chosen) => paintAll({ window: windows[chosen] ?? windows.own }));
  if (content.swatches.length) {
    control("overlay", "input", { type: "checkbox", checked: true }, ({ checked }) => paintAll({ on: checked }));
    widget(choices, "slider", { description: "overlay opacity %", min: 0, max: 100, step: 5, value: 100,
      width_px: 310 }, ({ value }) => paintAll({ opacity: value / 100 }));
  }
  if (content.chips) widget(choices, "chips", content.chips, ({ value }) => paintAll({ labels: new Set(value) }));
  stacks.forEach(makeStack);
  stacks.forEach((stack) => show(stack, stack.start));
  if (content.choose) showPlane(0);
  widget(body, "caption", { text: "", swatches: content.swatches });
  // Within another page the focus is left where it is, and that page is told how tall this one is.
  if (window.parent === window) board.querySelector("canvas").focus();
  else new ResizeObserver(() => window.parent.postMessage(
    { viewerHeight: document.documentElement.getBoundingClientRect().height }, "*",
  )).observe(document.documentElement);
}

export default { render };
