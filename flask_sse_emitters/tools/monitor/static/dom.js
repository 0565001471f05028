export const $ = (id) => document.getElementById(id);

/** Make an element. Everything from outside goes through here, as text, never as markup. */
export function make(name, className = "", text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Set the text of an element only if it has changed: else screen readers and selections are disturbed. */
export function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Show these items as rows, and move no row that stays: it keeps focus and selection. Several may have the same key. */
export function rows(body, items, keyOf, makeRow, fill) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, []]));
  for (const row of body.children) old.get(row.dataset.key).push(row);
  items.forEach((item, index) => {
    const key = String(keyOf(item));
    const row = old.get(key)?.shift() ?? makeRow(item);
    row.dataset.key = key;
    fill(row, item);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  old.forEach((unused) => unused.forEach((row) => row.remove()));
}

/** Give each cell its column's heading, which narrow windows show beside it. */
export function labelled(body, row) {
  const heads = body.parentElement.tHead.rows[0].cells;
  [...row.cells].forEach((cell, index) => (cell.dataset.head = heads[index].textContent));
  return row;
}

export function cells(...classes) {
  const row = make("tr");
  classes.forEach((className, index) => {
    const cell = make(index ? "td" : "th", className);
    if (!index) cell.scope = "row";
    row.append(cell);
  });
  return row;
}
