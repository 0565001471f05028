export const $ = (id) => document.getElementById(id);

/** Everything that comes from outside goes through here, as text: never as markup. */
export function make(name, className = "", text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Say it only where it has changed: else screen readers and selections are disturbed. */
export function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Bring the rows of a table to these, and touch no row that stays: focus and selection stay with it. */
export function rows(body, items, key, makeRow, fill) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const row = known.get(key(item)) ?? makeRow(item);
    row.dataset.key = key(item);
    known.delete(key(item));
    fill(row, item);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  known.forEach((row) => row.remove());
}

/** Give each cell the head of its column, which is shown beside it where the table is too wide for the window. */
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
