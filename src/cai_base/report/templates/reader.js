"use strict";
// The reader: shows one item of the page's data at a time. Every text is set as text, never as markup.
(async () => {
  const element = (name) => document.getElementById(`reader-${name}`);

  // The data of a page of many texts is compressed.
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  const stored = element("data").textContent;
  let data;
  try {
    data = JSON.parse(element("data").type === "application/json" ? stored : await unpacked(stored));
  } catch (error) {
    element("failed").hidden = false;
    element("failed").textContent = `The texts could not be unpacked (${error.message}). A newer browser may be able to.`;
    return;
  }
  const { arms, principles } = data.head;
  const items = data.items;
  const filters = { what: "", arm: "", verdict: "", kind: "", seed: "", principle: "", ended: "" };
  let shown = [];
  let place = 0;

  // Control characters, invisible characters and those that change the direction of text are written out.
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
  const visible = (text) =>
    text.replace(hidden, (one) => `\u27e8U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);

  function make(tag, text = "", style = "") {
    const node = document.createElement(tag);
    if (text) node.textContent = visible(text);
    if (style) node.className = style;
    return node;
  }

  function withMarks(label, marks) {
    const line = make("p", label, "label");
    for (const [text, tone] of marks) line.append(" ", make("span", text, `mark ${tone}`));
    return line;
  }

  function quote(text) {
    const node = make("blockquote", text || "(empty)");
    node.dir = "auto";
    return node;
  }

  // A word diff of two texts: equal, deleted, inserted. Very long texts are one deletion and one insertion.
  function difference(before, after) {
    const [a, b] = [before, after].map((text) => text.match(/\S+\s*|\s+/g) ?? []);
    if (a.length * b.length > 4e6) return [["del", before], ["ins", after]];
    const length = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    const parts = [];
    const put = (kind, text) => {
      const last = parts[parts.length - 1];
      if (last && last[0] === kind) last[1] += text;
      else parts.push([kind, text]);
    };
    let [i, j] = [0, 0];
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { put("span", a[i]); i++; j++; }
      else if (j >= b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) put("del", a[i++]);
      else put("ins", b[j++]);
    }
    return readable(parts);
  }

  // Words that two texts share by chance, such as "to" between two sentences, are no place to rest the eye: an equal part
  // that is not longer than what changed before it and what changed after it is taken as changed too.
  function readable(parts) {
    const edits = (from, step) => {
      let [longest, at] = [0, from];
      for (; parts[at] && parts[at][0] !== "span"; at += step) longest = Math.max(longest, parts[at][1].length);
      return longest;
    };
    for (let at = 1; at < parts.length - 1; at++) {
      const [kind, text] = parts[at];
      if (kind !== "span" || text.length > Math.min(edits(at - 1, -1), edits(at + 1, 1))) continue;
      let [first, last] = [at, at];
      while (first > 0 && parts[first - 1][0] !== "span") first--;
      while (last < parts.length - 1 && parts[last + 1][0] !== "span") last++;
      const block = parts.slice(first, last + 1);
      const [before, after] = ["ins", "del"].map((other) =>
        block.filter(([one]) => one !== other).map(([, one]) => one).join(""));
      parts.splice(first, block.length, ["del", before], ["ins", after]);
      at = 0;
    }
    return parts;
  }

  function changed(before, after) {
    const node = make("blockquote");
    node.dir = "auto";
    for (const [tag, text] of difference(before, after)) node.append(make(tag, text));
    return node;
  }

  function show() {
    const place_ = element("item");
    place_.replaceChildren();
    element("count").textContent = shown.length ? `${place + 1} of ${shown.length}` : "no match";
    // Not `disabled`, which would take the keyboard's focus from the button that was pressed.
    element("before").setAttribute("aria-disabled", String(place <= 0));
    element("after").setAttribute("aria-disabled", String(place >= shown.length - 1));
    if (!shown.length) return;
    const number = shown[place];
    const item = items[number];
    const about = make("p", `${item.kind} · prompt ${item.id} · seed ${item.seed} · `, "about");
    const link = make("a", "link to this item");
    link.href = `#item-${number}`;
    about.append(link);
    place_.append(about, make("p", "Prompt", "label"), quote(item.prompt));
    if (item.what === "answers") {
      const two = make("div", "", "two");
      for (const arm of Object.keys(arms)) {
        const answer = item.answers[arm];
        if (!answer) continue;
        const cell = make("div");
        cell.append(withMarks(arms[arm], answer.marks), quote(answer.text));
        two.append(cell);
      }
      place_.append(two);
      return;
    }
    const opener = item.opener ? `, prefilled with \u201c${item.opener}\u201d` : "";
    place_.append(withMarks(`Original${opener}`, item.original.marks), quote(item.original.text));
    let before = item.original.text;
    item.rounds.forEach((round, index) => {
      const block = make("div", "", "round");
      block.append(make("p", `Round ${index + 1}, principle: ${round.principle}`, "label"));
      if (principles[round.principle]) block.append(make("p", principles[round.principle], "about"));
      block.append(make("p", "Critique", "label"), quote(round.critique));
      block.append(withMarks("Revision, with changes marked", round.marks), changed(before, round.text));
      place_.append(block);
      before = round.text;
    });
    const pair = item.outcome === "pair" ? "a preference pair" : `filtered, ${item.outcome}`;
    place_.append(make("p", `Outcome: ${pair}`, "about"));
  }

  const textOf = (item) =>
    (item.text_ ??= [
      item.id, item.prompt,
      ...(item.what === "answers"
        ? Object.values(item.answers).map((one) => one.text)
        : [item.original.text, ...item.rounds.flatMap((one) => [one.principle, one.critique, one.text])]),
    ].join("\n").toLowerCase());

  const verdictsOf = (item, arm) =>
    item.what === "answers"
      ? Object.entries(item.answers).filter(([name]) => !arm || name === arm).flatMap(([, one]) => one.marks)
      : [item.original, ...item.rounds].flatMap((one) => one.marks);

  function matches(item, words) {
    if (filters.what && item.what !== filters.what) return false;
    if (filters.kind && item.kind !== filters.kind) return false;
    if (filters.seed && String(item.seed) !== filters.seed) return false;
    if (filters.arm && !(item.what === "answers" && filters.arm in item.answers)) return false;
    if (filters.principle && !(item.rounds ?? []).some((one) => one.principle === filters.principle)) return false;
    if (filters.ended && String(item.ended) !== filters.ended) return false;
    if (filters.verdict && !verdictsOf(item, filters.arm).some(([text]) => text.split(":")[0] === filters.verdict)) return false;
    return words.every((word) => textOf(item).includes(word));
  }

  function choose(keep) {
    const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = [];
    items.forEach((item, number) => { if (matches(item, words)) shown.push(number); });
    place = Math.max(0, shown.indexOf(keep));
    show();
  }

  function go(step) {
    const next = place + step;
    if (next < 0 || next >= shown.length) return;
    place = next;
    show();
    history.replaceState(null, "", `#item-${shown[place]}`);
  }

  function fill(name, values, labels = {}) {
    for (const value of values) {
      const option = make("option", labels[value] ?? value);
      option.value = value;
      element(name).append(option);
    }
    if (!values.length) element(name).parentElement.hidden = true;
    element(name).addEventListener("change", (event) => { filters[name] = event.target.value; choose(shown[place]); });
  }

  const distinct = (values) => [...new Set(values)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  fill("what", distinct(items.map((item) => item.what)), { answers: "evaluation answers", chains: "revision chains" });
  fill("arm", Object.keys(arms), arms);
  fill("verdict", distinct(items.flatMap((item) => verdictsOf(item, "").map(([text]) => text.split(":")[0]))));
  fill("kind", distinct(items.map((item) => item.kind)));
  fill("seed", distinct(items.map((item) => String(item.seed))));
  fill("principle", distinct(items.flatMap((item) => (item.rounds ?? []).map((one) => one.principle))));
  fill("ended", distinct(items.filter((item) => item.ended != null).map((item) => String(item.ended))));
  element("search").addEventListener("input", () => choose(shown[place]));
  element("before").addEventListener("click", () => go(-1));
  element("after").addEventListener("click", () => go(1));
  element("item").addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft" || event.key === "k") go(-1);
    else if (event.key === "ArrowRight" || event.key === "j") go(1);
    else return;
    event.preventDefault();
  });

  // A link shows one item, or the chains of one principle, with all other filters off.
  function follow() {
    const match = /^#(item|principle)-(.+)$/.exec(location.hash);
    if (!match) return;
    const ofPrinciple = match[1] === "principle";
    const name = Object.keys(principles).find((one) => encodeURIComponent(one) === match[2]);
    if (ofPrinciple ? !name : !(Number(match[2]) in items)) return;
    element("search").value = "";
    for (const filter of Object.keys(filters)) { filters[filter] = ""; element(filter).value = ""; }
    if (ofPrinciple) element("principle").value = filters.principle = name;
    choose(ofPrinciple ? -1 : Number(match[2]));
    document.getElementById("reader").scrollIntoView();
    element("item").focus({ preventScroll: true });
  }

  element("panel").hidden = false;
  choose(-1);
  follow();
  addEventListener("hashchange", follow);
})();
