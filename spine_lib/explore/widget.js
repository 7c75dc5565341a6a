// The one front end: pictures, charts, sliders, captions and chips, in a notebook and in a saved
// page. It shows what its model holds and reports wheel, pointer, touch, keys and brush. In a
// notebook anywidget calls `render` and the model is Python's; in a saved page `startPage` makes
// the models and answers them.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const at = (share, count) => clamp(Math.floor(share * count), 0, count - 1);
const percent = (share) => `${100 * share}%`;
const UNDER_WAY = 3; // reports that may wait for their answer, so that Python is never idle
let serial = 0; // makes two equal reports differ

function make(kind, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(kind), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

// Reads a model, follows it, and sends what hands do, once in a frame of the screen; what is newer
// replaces what still waits.
class Hand {
  constructor(model) {
    Object.assign(this, { model, id: Math.random(), sent: 0, done: 0, waiting: {}, wanted: {}, calls: [] });
    this.follow(["answered"], () => this.flush());
  }

  // The value as the hand has it, while answers to older reports still come in.
  get(name) { return name in this.wanted ? this.wanted[name] : this.model.get(name); }

  // Calls now, and once after each group of changes of these traits.
  follow(names, call) {
    let queued = false;
    const queue = () => {
      if (!queued) queueMicrotask(() => { queued = false; call(); });
      queued = true;
    };
    for (const name of names) this.calls.push([`change:${name}`, queue]);
    for (const name of names) this.model.on(`change:${name}`, queue);
    call();
  }

  stop() { for (const [event, call] of this.calls) this.model.off(event, call); }

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

const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
  Home: -1e9, End: 1e9 };

function showPicture(hand, el) {
  const figure = make("figure", el, { className: "spine-picture" });
  const head = make("figcaption", figure), title = make("span", head);
  const frame = make("div", figure, { className: "spine-frame" });
  const stage = make("div", frame, { className: "spine-stage" });
  const layer = make("div", stage, { className: "spine-layer" }); // what is zoomed
  const canvas = make("canvas", layer, { tabIndex: 0 }, { role: "img" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [down, across, ring] = ["down", "across", "ring"].map((name) => make("i", layer, { className: name }));
  const letters = ["left", "right", "top", "bottom"].map((side) => make("b", frame, { className: `spine-${side}` }));
  const bar = make("b", frame, { className: "spine-bar" });
  let view = { scale: 1, x: 0, y: 0 }; // the layer's place, as shares of the stage
  const fingers = new Map();
  let asked = 0, drawn = 0, drag = null, turned = 0;

  const button = (textContent, hint, onclick) =>
    make("button", head, { type: "button", textContent, title: hint, onclick });
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
    const [source, alt, number] = [hand.get("image"), hand.get("alt"), ++asked];
    const image = source instanceof ImageData
      ? source : await createImageBitmap(new Blob([source]), { colorSpaceConversion: "none" });
    if (number < drawn) return; // a later picture was decoded first
    drawn = number;
    const { width, height } = image, margins = hand.get("marks").length ? 36 : 0;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (image === source) context.putImageData(image, 0, 0);
    else context.drawImage(image, 0, 0);
    canvas.setAttribute("aria-label", alt);
    const length = `${Math.round((width * hand.get("size_px")) / Math.max(width, height)) + margins}px`;
    if (figure.style.width === length && frame.dataset.ratio === `${width / height}`) return;
    frame.dataset.ratio = width / height; // not each time, as the page is laid out anew
    frame.style.setProperty("--ratio", width / height);
    el.style.width = figure.style.width = length;
    el.style.maxWidth = `min(100%, ${length})`;
  }

  function decorate() {
    title.textContent = hand.get("title");
    letters.forEach((letter, n) => { letter.textContent = hand.get("marks")[n] ?? ""; });
    canvas.classList.toggle("spine-brush", Boolean(hand.get("tool")));
    const [x, y] = hand.get("cursor");
    Object.assign(down, { hidden: x === undefined }).style.left = percent(x);
    Object.assign(across, { hidden: y === undefined }).style.top = percent(y);
    [down.style.top, across.style.left] = [percent(y), percent(x)];
    layer.classList.toggle("spine-crossed", hand.get("lines"));
    const [mm = 0, share = 0] = hand.get("bar"), grown = share * view.scale;
    const shorter = 2 ** Math.max(0, Math.ceil(Math.log2(grown / 0.4)));
    bar.textContent = mm ? `${Number((mm / shorter).toPrecision(3))} mm` : "";
    bar.style.width = percent(grown / shorter);
  }

  function zoom(scale, x, y) {
    view = { scale: clamp(scale, 1, 16) };
    Object.assign(view, { x: clamp(x, 1 - view.scale, 0), y: clamp(y, 1 - view.scale, 0) });
    layer.style.transform = `translate(${percent(view.x)}, ${percent(view.y)}) scale(${view.scale})`;
    layer.style.setProperty("--zoom", view.scale);
    whole.hidden = view.scale === 1;
    decorate();
  }

  function shareOf(element, { clientX, clientY }) {
    const box = element.getBoundingClientRect();
    return [(clientX - box.x) / box.width, (clientY - box.y) / box.height];
  }

  function zoomAt(event, factor, moved = [0, 0]) {
    const [x, y] = shareOf(stage, event), scale = clamp(view.scale * factor, 1, 16), grown = scale / view.scale;
    zoom(scale, x - (x - view.x) * grown + moved[0], y - (y - view.y) * grown + moved[1]);
  }

  const place = (event) => shareOf(layer, event).map((share) => Number(clamp(share, 0, 1).toFixed(5)));
  const point = (kind, event) => hand.report({ pointer: [kind, ...place(event), ++serial] });

  function goTo(wanted) {
    const index = clamp(wanted, 0, hand.get("last"));
    if (index !== hand.get("index")) hand.report({ index });
  }

  function dragKind(event) {
    if (fingers.size === 2) return "pinch";
    if (event.button === 2 || event.shiftKey) return hand.get("window").length ? "window" : "pan";
    if (event.button === 1 || event.ctrlKey) return "pan";
    if (hand.get("tool")) return "stroke";
    return event.pointerType === "touch" ? (view.scale > 1 ? "pan" : "swipe") : "press";
  }

  function pinched() {
    const [a, b] = [...fingers.values()];
    const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
    return { apart, clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
  }

  const moves = {
    press: (event) => point("press", event),
    window(event, dx, dy) {
      const [centre, width] = drag.window;
      hand.report({ window: [centre - 2 * dy, Math.max(width + 4 * dx, 1)] });
    },
    pan(event, dx, dy) {
      zoom(view.scale, drag.view.x + dx / stage.clientWidth, drag.view.y + dy / stage.clientHeight);
    },
    swipe: (event, dx) => goTo(drag.index + Math.trunc(dx / 8)),
    pinch() {
      const now = pinched(), moved = [now.clientX - drag.spread.clientX, now.clientY - drag.spread.clientY];
      zoomAt(now, now.apart / drag.spread.apart, [moved[0] / stage.clientWidth, moved[1] / stage.clientHeight]);
      drag.spread = now;
    },
    stroke(event, dx, dy, done = false) {
      drag.points.push(place(event));
      hand.report({ stroke: { id: drag.id, points: [...drag.points], done } });
    },
  };

  function begin(event) {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    const kind = dragKind(event);
    drag = { kind, x: event.clientX, y: event.clientY, id: ++serial, points: [], moved: false, view,
      window: hand.get("window"), index: hand.get("index"), spread: kind === "pinch" && pinched() };
    if (kind === "press" || kind === "stroke") moves[kind](event);
  }

  function move(event) {
    const [x, y] = shareOf(layer, event), [width, height] = hand.get("radius").map((radius) => 2 * radius);
    ring.hidden = !hand.get("tool") || width === undefined;
    Object.assign(ring.style, { left: percent(x), top: percent(y), width: percent(width), height: percent(height) });
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
    if (event.ctrlKey) return zoomAt(event, Math.exp(-event.deltaY / 300));
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
  ring.hidden = true;
  zoom(1, 0, 0);
  hand.follow(["image"], draw);
  hand.follow(["title", "marks", "tool", "bar", "cursor", "lines"], decorate);
}

// Shows what matplotlib drew, where its styles and names meet no others, with a mark and a band.
function showChart(hand, el) {
  const board = make("div", el, { className: "spine-chart" }, { role: "img" });
  const drawing = make("div", board).attachShadow({ mode: "open" });
  const band = make("i", board, { className: "spine-band" });
  const mark = make("i", board, { className: "spine-mark" });

  function place() {
    const [low, high] = hand.get("range"), [left, right, top, bottom] = hand.get("box");
    const x = (value) => left + clamp((value - low) / (high - low), 0, 1) * (right - left);
    for (const [item, ends] of [[mark, [hand.get("mark"), hand.get("mark")]], [band, hand.get("band")]]) {
      const [from, to] = ends.map(x);
      Object.assign(item, { hidden: (ends[0] ?? null) === null });
      Object.assign(item.style, { left: percent(from), width: percent(to - from), top: percent(top),
        height: percent(bottom - top) });
    }
    board.setAttribute("aria-label", hand.get("alt"));
  }

  function choose(event) {
    if (!(event.buttons & 1) || hand.get("mark") === null) return;
    const box = board.getBoundingClientRect(), [low, high] = hand.get("range"), [left, right] = hand.get("box");
    const share = ((event.clientX - box.x) / box.width - left) / (right - left);
    hand.report({ mark: low + clamp(share, 0, 1) * (high - low) });
  }
  board.addEventListener("pointerdown", choose);
  board.addEventListener("pointermove", choose);
  hand.follow(["svg"], () => {
    drawing.innerHTML = `<style>svg { display: block; width: 100%; height: auto }</style>${hand.get("svg")}`;
  });
  hand.follow(["mark", "band", "range", "box", "alt"], place);
}

const HATCHES = { solid: "plain", rising: "hatched /", falling: "hatched \\", dots: "dotted" };

function showCaption(hand, el) {
  const text = make("div", el, { className: "spine-text" }, { role: "status" });
  const legend = make("div", el, { className: "spine-legend" }, { role: "list", "aria-label": "legend" });
  hand.follow(["text"], () => { text.textContent = hand.get("text"); });
  hand.follow(["swatches"], () => {
    legend.replaceChildren();
    for (const [name, rgb, hatch] of hand.get("swatches")) {
      const item = make("span", legend, {}, { role: "listitem" });
      make("i", item, { className: `spine-${hatch}` }).style.setProperty("--rgb", rgb);
      item.append(HATCHES[hatch] ? `${name} (${HATCHES[hatch]})` : name);
    }
  });
}

function showSlider(hand, el) {
  const label = make("label", el, { className: "spine-slider" });
  const name = make("span", label), input = make("input", label, { type: "range" });
  const number = make("b", label);
  function draw() {
    const [ariaLabel, min, max, step, value] = ["description", "min", "max", "step", "value"].map((trait) => hand.get(trait));
    Object.assign(input, { ariaLabel, min, max, step, value });
    name.textContent = ariaLabel;
    label.style.width = `${hand.get("width_px")}px`;
    number.textContent = step % 1 ? value.toFixed(2) : value;
  }
  input.addEventListener("input", () => { hand.report({ value: Number(input.value) }); draw(); });
  hand.follow(["description", "min", "max", "value", "width_px"], draw);
}

function showChips(hand, el) {
  const list = make("div", el, { className: "spine-chips" }, { role: "group", "aria-label": "structures" });
  hand.follow(["options", "value", "groups"], () => {
    const focused = [...list.children].indexOf(document.activeElement), chosen = hand.get("value");
    list.replaceChildren();
    const add = (textContent, value, attributes = {}) => make("button", list,
      { type: "button", textContent, onclick: () => hand.report({ value }) }, attributes);
    for (const [name, labels] of hand.get("groups")) add(name, labels);
    for (const [name, label] of hand.get("options")) {
      const others = chosen.filter((other) => other !== label), pressed = others.length < chosen.length;
      add(name, pressed ? others : [...others, label].sort((a, b) => a - b), { "aria-pressed": pressed });
    }
    list.children[focused]?.focus();
  });
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
  const hand = new Hand(model);
  KINDS[model.get("kind")](hand, el);
  return () => { seen.disconnect(); hand.stop(); };
}

// The model of a widget of a saved page.
class Model {
  constructor(state, receive) {
    Object.assign(this, { state: { answered: [0, 0], ...state }, receive, events: new EventTarget() });
  }
  get(name) { return this.state[name]; }
  on(event, call) { this.events.addEventListener(event, call); }
  update(changes) {
    Object.assign(this.state, changes);
    for (const name of Object.keys(changes)) this.events.dispatchEvent(new Event(`change:${name}`));
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
    const { marks, bar, start: index } = stack, last = stack.indices.length - 1;
    stack.box = make("section", board);
    const row = make("div", stack.box, { className: "spine-row" });
    for (const panel of stack.panels) {
      const state = { image: new ImageData(1, 1), alt: "", title: "", size_px: content.size_px, marks, bar,
        cursor: [], lines: !content.choose, index, last, window: [], tool: "", radius: [] };
      panel.model = widget(row, "picture", state, ({ index: wanted, window, pointer }) => {
        if (wanted !== undefined) show(stack, wanted);
        if (window) setWindow(window);
        if (pointer) point(stack, panel, pointer);
      });
    }
    stack.input = widget(stack.box, "slider", { description: `${stack.plane} slice`, min: 0, max: last,
      step: 1, value: index, width_px: 640 }, ({ value }) => show(stack, value));
    stack.caption = widget(stack.box, "caption", { text: "", swatches: [] });
    stack.chart &&= widget(stack.box, "chart", stack.chart, ({ mark }) => show(stack, nearest(stack, mark - 1)));
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
    const words = display.on && display.opacity > 0 ? "alt" : "plain";
    for (const panel of stack.panels) {
      panel.model.update({ alt: `${panel[words][position]} Window: ${name}.`, title: panel.titles[position],
        window, index: position, image: compose(stack.levels, panel) });
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
      const position = under.reduce((sum, n, column) => sum + n * line[column], line[3]);
      return `${"RAS"[axis]} ${position < 0 ? "" : "+"}${position.toFixed(1)}`;
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
