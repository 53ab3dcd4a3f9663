// Sorts and filters the tables of the report; large tables are data, of which it shows as many rows as are asked for.
"use strict";
(() => {
  const STEP = 200;
  const FEW = 8;
  const LONG = 28;
  const words = new Intl.Collator("en", { numeric: true });

  const UNITS = { h: 3600, min: 60, s: 1 };

  const duration = (text) => {
    const parts = [...text.split("(")[0].matchAll(/([\d.]+) (h|min|s)\b/g)];
    return parts.length ? parts.reduce((sum, [, n, unit]) => sum + Number(n) * UNITS[unit], 0) : null;
  };

  const figure = (text) => {
    const time = duration(text);
    if (time !== null) return time;
    const found = /[-+]?\d*\.?\d+(e[-+]?\d+)?/i.exec(text.replace("−", "-"));
    return found ? Number(found[0]) : null;
  };

  const element = (name, text, facts) => {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    return Object.assign(made, facts);
  };

  const ENDS = /^([\d.]+(?: \w+)*) (\([\d.]+[^()]*–[^()]*\))$/;

  const pieces = (text) => {
    const found = ENDS.exec(text);
    if (found) return [`${found[1]} `, element("span", found[2], { className: "ends" })];
    const parts = text.length > LONG ? text.split(/(?<=[,:+;/])(?=\S)/) : [text];
    return parts.flatMap((piece, n) => [...(n ? [element("wbr")] : []), piece]);
  };

  const shownRow = (texts, heads) => {
    const row = element("tr");
    texts.forEach((text, at) => {
      const cell = element(at ? "td" : "th");
      cell.append(...pieces(text));
      if (!at) cell.scope = "row";
      cell.className = heads[at].className;
      row.append(cell);
    });
    return row;
  };

  const rowsOf = (table, heads) => {
    if (table.dataset.rows) {
      const data = JSON.parse(document.getElementById(table.dataset.rows).textContent);
      return data.rows.map((row) => {
        const texts = row.map((entry) => (typeof entry === "number" ? data.words[entry] : entry));
        return { texts, shown: () => shownRow(texts, heads) };
      });
    }
    return [...table.tBodies[0].rows].map((row) => ({
      texts: [...row.cells].map((cell) => cell.textContent),
      shown: () => row,
    }));
  };

  const compared = (at, isText, sign) => (one, other) => {
    if (isText[at]) return sign * words.compare(one.texts[at], other.texts[at]);
    const [first, second] = [figure(one.texts[at]), figure(other.texts[at])];
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * (first - second);
  };

  const serve = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const isText = heads.map((head) => head.classList.contains("text"));
    const rows = rowsOf(table, heads);
    const region = table.parentElement;
    const tools = element("div", "", { className: "tools" });
    const count = element("span");
    count.setAttribute("role", "status");
    const more = element("button", `Show ${STEP} more`, { type: "button" });
    let kept = rows;
    let order = null;
    let limit = STEP;

    const show = () => {
      const sorted = order ? [...kept].sort(order) : kept;
      const large = Boolean(table.dataset.rows);
      const visible = large ? sorted.slice(0, limit) : sorted;
      table.tBodies[0].replaceChildren(...visible.map((row) => row.shown()));
      more.hidden = visible.length === sorted.length;
      count.textContent = visible.length < sorted.length || kept.length < rows.length
        ? `${visible.length} of ${kept.length} rows shown, ${rows.length} in all` : `${rows.length} rows`;
    };

    heads.forEach((head, at) => {
      const button = element("button", head.textContent, { type: "button" });
      button.addEventListener("click", () => {
        const falls = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falls ? "descending" : "ascending");
        order = compared(at, isText, falls ? -1 : 1);
        show();
      });
      head.replaceChildren(button);
    });

    if (rows.length > FEW) {
      const label = element("label", "Filter rows: ");
      const input = element("input", "", { type: "search" });
      input.setAttribute("aria-label", `Filter rows of ${table.caption.textContent}`);
      input.addEventListener("input", () => {
        const asked = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        kept = rows.filter((row) => asked.every((word) => row.texts.join(" ").toLowerCase().includes(word)));
        limit = STEP;
        show();
      });
      label.append(input);
      more.addEventListener("click", () => {
        limit += STEP;
        show();
      });
      tools.append(label, count, more);
      region.before(tools);
      show();
    }
  };

  document.querySelectorAll("table[data-sorts]").forEach(serve);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
})();
