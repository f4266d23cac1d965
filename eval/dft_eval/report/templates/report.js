"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("browser");
  const PAGE = 50, DIFF_CELLS = 4e6;
  const get = (name) => root.querySelector(`[name=${name}]`);
  const [bench, pairs, outcome, category, query, sort] =
    ["bench", "pair", "outcome", "category", "query", "sort"].map(get);
  const list = root.querySelector("ol"), count = root.querySelector("output");
  const more = root.querySelector("button");
  let shown = PAGE, open = null;

  const make = (tag, text, className) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const option = (select, value, text) => {
    const node = make("option", text);
    node.value = value;
    select.append(node);
  };
  const signOf = (score) => score === null ? "?" : score === 1 ? "✓" : score === 0 ? "✗" :
    String(+score.toFixed(2));
  const wordOf = (score) => score === null ? "unscored" : score === 1 ? "right" :
    score === 0 ? "wrong" : "partly right";
  // `answers`: of one run of each training seed that has the item; none for a run without it.
  const mean = (answers) => {
    const scores = answers.map((each) => each.score).filter((score) => score !== null);
    return scores.length ? scores.reduce((a, b) => a + b, 0) / scores.length : null;
  };
  const whole = (answers) => answers.every(({ score }) => score === 0 || score === 1);
  const right = (answers) => answers.filter(({ score }) => score === 1).length;
  const sign = (answers) => !answers.length ? "–" : answers.length === 1 ? signOf(mean(answers)) :
    whole(answers) ? `${right(answers)}/${answers.length}` : signOf(mean(answers));
  const words = (answers) => !answers.length ? "not in this run" :
    answers.length === 1 ? wordOf(mean(answers)) :
    whole(answers) ? `${right(answers)} of ${answers.length} seeds right` :
    `${wordOf(mean(answers))} over ${answers.length} seeds`;
  const chosenPair = () => pairs.value.split(",").map(Number);
  const rowsOf = () => data.benchmarks[+bench.value].items;
  const scoreOf = (item, run) => mean(item.answers[run]);
  const result = (item) => {
    const [a, b] = chosenPair().map((run) => scoreOf(item, run));
    if (a === null || b === null) return "unscored";
    return b - a > 1e-9 ? "won" : a - b > 1e-9 ? "lost" : "tied";
  };
  const address = (item) => "#item/" +
    [data.benchmarks[+bench.value].name, item.id].map(encodeURIComponent).join("/");

  function tokens(text) { return text.split(/(\s+)/).filter((part) => part); }

  // Longest common subsequence of words; null where that would take too long.
  function different(first, second) {
    const a = tokens(first), b = tokens(second), width = b.length + 1;
    if (a.length * b.length > DIFF_CELLS) return null;
    const best = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    const left = [], right = [];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        left.push([a[i++], false]);
        right.push([b[j++], false]);
      } else if (j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])) {
        left.push([a[i++], true]);
      } else {
        right.push([b[j++], true]);
      }
    }
    return [left, right];
  }

  function text(parts, tag) {
    const node = make("pre");
    let last = null;
    for (const [part, marked] of parts) {
      if (last && last.marked === marked) last.node.append(part);
      else {
        last = { marked, node: make(marked ? tag : "span", part) };
        node.append(last.node);
      }
    }
    return node;
  }

  function detail(item) {
    const node = make("div", undefined, "detail");
    const link = make("a", "Link to this item");
    link.href = address(item);
    node.append(link);
    if (item.prompt) {
      const fold = make("details");
      fold.open = true;
      fold.append(make("summary", "Prompt" + (item.prompt.note ? ` (${item.prompt.note})` : "")),
        make("pre", item.prompt.text));
      node.append(fold);
    }
    for (const name of item.pictures || []) {
      if (data.pictures[name]) {
        const picture = make("img", undefined, "item");
        picture.src = data.pictures[name];
        picture.alt = `Picture of item ${item.id}`;
        node.append(picture);
      } else node.append(make("p", `Picture not in this file: ${name}`, "note"));
    }
    const [a, b] = chosenPair(), answers = item.answers;
    const first = (run) => answers[run].find((each) => each.text !== undefined);
    const both = a !== b && first(a) && first(b);
    const marked = both ? different(first(a).text, first(b).text) : null;
    const grid = make("div", undefined, "answers");
    data.runs.forEach((label, run) => {
      const box = make("div", undefined, "answer"), head = make("h4");
      const seeded = answers[run].length > 1;
      head.append(make("span", undefined, `swatch run${run % 7}`), label,
        make("span", seeded ? words(answers[run]) :
          `${sign(answers[run])} ${words(answers[run])}`, "outcome"));
      box.append(head);
      if (seeded) box.append(make("p", answers[run].map(({ seed, score }) =>
        `seed ${seed} ${signOf(score)}`).join(", "), "note"));
      for (const answer of answers[run]) {
        // Seeds that score the same as an earlier one are without their completion.
        if (seeded && answer.reason === undefined) continue;
        if (seeded) box.append(make("h5", `Seed ${answer.seed}: ${wordOf(answer.score)}`));
        if (answer.reason) box.append(make("p", answer.reason, "reason"));
        if (answer.text === undefined) box.append(make("p", "No completion recorded.", "note"));
        else if (marked && answer === first(a)) box.append(text(marked[0], "del"));
        else if (marked && answer === first(b)) box.append(text(marked[1], "ins"));
        else box.append(make("pre", answer.text));
        const notes = [];
        if (answer.sample) notes.push(answer.sample);
        if (answer.note) notes.push(answer.note);
        if (answer.text !== undefined && !answer.text.trim()) notes.push("the completion is empty");
        if (answer.finish === "length") notes.push("cut at the token limit");
        else if (answer.finish && answer.finish !== "stop") notes.push(`ended: ${answer.finish}`);
        if (answer.tokens) notes.push(`${answer.tokens} tokens`);
        if (notes.length) box.append(make("p", notes.join(", "), "note"));
      }
      grid.append(box);
    });
    node.append(grid);
    if (both && !marked) node.append(make("p", "Too long to mark the differences.", "note"));
    return node;
  }

  const ORDERS = {
    file: () => 0,
    id: (x, y) => x.id.localeCompare(y.id, "en", { numeric: true }),
    difference: (x, y) => gap(y) - gap(x),
    length: (x, y) => longest(y) - longest(x),
  };
  const gap = (item) => {
    const [a, b] = chosenPair().map((run) => scoreOf(item, run));
    return a === null || b === null ? -1 : Math.abs(b - a);
  };
  const longest = (item) => Math.max(0, ...item.answers.flat().map((x) => x.text ? x.text.length : 0));

  function matches(item) {
    if (outcome.value && result(item) !== outcome.value) return false;
    if (category.value && (item.category || "") !== category.value) return false;
    const words = query.value.toLowerCase().split(/\s+/).filter((word) => word);
    if (!words.length) return true;
    const all = [item.id, item.category, item.prompt && item.prompt.text,
      ...item.answers.flat().flatMap((x) => [x.text, x.reason])].join("\n").toLowerCase();
    return words.every((word) => all.includes(word));
  }

  function draw() {
    list.replaceChildren();
    if (!data.benchmarks.length) return;
    const rows = rowsOf().filter(matches).sort(ORDERS[sort.value]);
    count.textContent = `${rows.length.toLocaleString("en")} of ` +
      `${rowsOf().length.toLocaleString("en")} items`;
    for (const item of rows.slice(0, shown)) {
      const line = make("li"), head = make("button", undefined, "row");
      head.type = "button";
      head.setAttribute("aria-expanded", String(item === open));
      head.append(make("span", item.id, "id"), make("span", item.category || "", "category"));
      const signs = make("span", undefined, "signs");
      data.runs.forEach((label, run) => {
        const each = make("span", undefined, "sign");
        each.title = `${label}: ${words(item.answers[run])}`;
        each.append(make("span", undefined, `swatch run${run % 7}`), sign(item.answers[run]));
        signs.append(each);
      });
      head.append(signs, make("span", result(item), "result"));
      head.onclick = () => {
        open = item === open ? null : item;
        history.replaceState(null, "", open ? address(item) : "#items");
        draw();
      };
      line.append(head);
      if (item === open) line.append(detail(item));
      list.append(line);
    }
    more.hidden = rows.length <= shown;
  }

  function categories() {
    category.replaceChildren();
    option(category, "", "all categories");
    for (const name of [...new Set(rowsOf().map((item) => item.category || ""))].sort())
      if (name) option(category, name, name);
    category.disabled = category.options.length < 2;
  }

  // Show the item that the address names: #item/<benchmark>/<id>.
  function follow() {
    const parts = location.hash.match(/^#item\/([^/]*)\/(.*)$/);
    if (!parts) return;
    let name, id;
    try { [name, id] = parts.slice(1).map(decodeURIComponent); } catch { return; }
    const index = data.benchmarks.findIndex((each) => each.name === name);
    const item = index < 0 ? undefined : data.benchmarks[index].items.find((each) => each.id === id);
    if (!item) return;
    bench.value = String(index);
    categories();
    outcome.value = category.value = query.value = "";
    sort.value = "file";
    open = item;
    shown = Math.max(PAGE, rowsOf().indexOf(item) + 1);
    draw();
    list.querySelector(".detail").parentElement.scrollIntoView();
  }

  data.benchmarks.forEach((each, index) => option(bench, String(index), each.name));
  const order = JSON.parse(pairs.dataset.pairs);
  for (const [a, b] of order)
    option(pairs, `${a},${b}`, a === b ? data.runs[a] : `${data.runs[b]} against ${data.runs[a]}`);
  if (data.benchmarks.length) categories();
  for (const control of [bench, pairs, outcome, category, query, sort])
    control.addEventListener("input", () => {
      if (control === bench) categories();
      shown = PAGE;
      open = null;
      draw();
    });
  more.onclick = () => { shown += PAGE; draw(); };
  addEventListener("hashchange", follow);
  draw();
  follow();
})();
