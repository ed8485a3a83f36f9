"use strict";
(function () {
  var table = document.getElementById("audits"), body = table && table.tBodies[0];
  if (!body) { return; }
  var rows = Array.prototype.slice.call(body.rows), tools = document.getElementById("tools");
  var text = document.getElementById("filter-text"), word = document.getElementById("filter-word");
  var overdue = document.getElementById("filter-overdue"), said = document.getElementById("filter-said");

  function filter() {
    var wanted = text.value.trim().toLowerCase(), shown = 0;
    rows.forEach(function (row) {
      var fits = (!wanted || row.textContent.toLowerCase().indexOf(wanted) >= 0) &&
        (!word.value || row.dataset.word === word.value) && (!overdue.checked || row.dataset.due === "overdue");
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    said.textContent = shown + " of " + rows.length + " rows shown";
  }

  function compare(a, b, numbers) {
    if (a === "" || b === "") { return a === b ? 0 : NaN; }
    if (numbers) { return Number(a) - Number(b); }
    return a < b ? -1 : a > b ? 1 : 0;
  }

  function sort(column, button) {
    var head = button.parentNode, down = head.getAttribute("aria-sort") === "ascending";
    var numbers = head.dataset.sort === "number", place = new Map();
    rows.forEach(function (row, i) { place.set(row, i); });
    var keys = new Map();
    rows.forEach(function (row) { keys.set(row, row.cells[column].dataset.key || ""); });
    rows.slice().sort(function (a, b) {
      var x = keys.get(a), y = keys.get(b), by = compare(x, y, numbers);
      if (by !== by) { return x === "" ? 1 : -1; }
      return (down ? -by : by) || place.get(a) - place.get(b);
    }).forEach(function (row) { body.appendChild(row); });
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell, column) {
    if (!cell.dataset.sort) { return; }
    var button = document.createElement("button");
    button.type = "button";
    button.className = "sorter";
    while (cell.firstChild) { button.appendChild(cell.firstChild); }
    cell.appendChild(button);
    button.addEventListener("click", function () { sort(column, button); });
  });
  [text, word, overdue].forEach(function (control) {
    control.addEventListener("input", filter);
    control.addEventListener("change", filter);
  });
  tools.hidden = false;
  filter();
})();
