"use strict";
/* Keys, ranking, drafts. Everything else is plain forms, and the server decides what is stored. */

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* Keys: an element with data-key is clicked by its key; digits answer the current line. */

const writing = (element) => element.matches("textarea, select, [contenteditable], input:not([type=radio], [type=checkbox])");

document.addEventListener("keydown", (event) => {
  if (event.target.matches("textarea") && event.key === "Escape") { event.target.blur(); return; }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { $("#send")?.click(); event.preventDefault(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || writing(event.target) || $("dialog[open]")) return;
  if (event.key === "Enter" && event.target.matches("button, a, summary")) return;
  if (pressed(event.key, event)) event.preventDefault();
});

function pressed(key, event) {
  const work = $("#work");
  // After a digit Enter must send the answer; with the focus on a summary it would fold that instead.
  if (/^[0-9]$/.test(key) && event.target.matches("summary")) event.target.blur();
  if (work?.dataset.task === "ranking" && rankingKey(key)) return true;
  if (/^[0-9]$/.test(key) && digit(key)) return true;
  const onChoice = event.target.matches("input[type=radio]") && !["pairwise"].includes(work?.dataset.task);
  if (["ArrowUp", "ArrowDown"].includes(key) && lines().length > 1 && (onChoice || !event.target.closest(".content"))) {
    setCurrent(at() + (key === "ArrowDown" ? 1 : -1), true);
    return true;
  }
  const targets = all("[data-key]").filter((e) => e.dataset.key === key && !e.disabled);
  // Where several elements share a key (the responses that may be edited), each press chooses the next one.
  const target = targets[targets.length > 1 ? (targets.findIndex((e) => e.getAttribute("aria-pressed") === "true") + 1) % targets.length : 0];
  if (!target) return false;
  if (target.matches("textarea")) target.focus();
  else target.click();
  // Now, and not in the menu's toggle event: the next key may be pressed before that event comes.
  if (target.matches("summary")) ($(".menu[open] button", target.closest("details").parentElement) ?? target).focus();
  return true;
}

const lines = () => all(".line");
const at = () => Math.max(0, lines().findIndex((line) => line.classList.contains("current")));

function setCurrent(index, show) {
  const found = lines();
  if (!found.length) return;
  const next = Math.min(Math.max(index, 0), found.length - 1);
  found.forEach((line, i) => line.classList.toggle("current", i === next && found.length > 1));
  if (show) found[next].scrollIntoView({ block: "nearest" });
}

function digit(key) {
  const copy = $(`[data-copy][data-digit="${key}"]`);
  if (copy) { copy.click(); return true; }
  const here = at();
  const choice = lines()[here] && $(`input[data-digit="${key}"]`, lines()[here]);
  if (!choice) return false;
  choice.checked = true;
  choice.dispatchEvent(new Event("change", { bubbles: true }));
  setCurrent(here + 1, true);
  return true;
}

document.addEventListener("focusin", (event) => {
  const line = event.target.closest(".line");
  if (line) setCurrent(lines().indexOf(line), false);
});

document.addEventListener("change", (event) => {
  if (event.target.name !== "choice") return;
  markPreferred(Number(event.target.value) || 0);
  offerEdit();
});

function markPreferred(strength) {
  all(".response").forEach((card, i) => card.classList.toggle("preferred", (strength < 0 && i === 0) || (strength > 0 && i === 1)));
}

/* Ranking: the list is the answer. It is copied to hidden fields once the annotator has changed or confirmed it, so that the
   order in which the responses happened to be shown is not sent as an answer. */

const ranks = () => $("#ranks");
let tieNext = false;
let placed = 0;

function rankingKey(key) {
  const rows = all("li", ranks());
  if (key === "=") { tieNext = placed > 0; return true; }
  if (key === "0") { startOver(); return true; }
  const row = rows.find((r) => r.dataset.place === key);
  if (!row) return false;
  const pressedBefore = rows.indexOf(row) < placed;
  if (placed === rows.length || pressedBefore) startOver();
  ranks().insertBefore(row, ranks().children[placed]);
  tie(row, tieNext && placed > 0);
  row.classList.add("ranked");
  placed += 1;
  tieNext = false;
  number(placed === rows.length);
  return true;
}

function startOver() {
  placed = 0;
  all("li", ranks()).sort((a, b) => a.dataset.place - b.dataset.place).forEach((row) => {
    ranks().append(row);
    row.classList.remove("ranked");
    tie(row, false);
  });
  number(false);
}

function tie(row, on) {
  row.classList.toggle("tied", on);
  $(".tie", row).setAttribute("aria-pressed", String(on));
}

function number(sure) {
  let rank = 0;
  all("li", ranks()).forEach((row, i) => {
    if (i === 0) tie(row, false);
    if (i === 0 || !row.classList.contains("tied")) rank += 1;
    if (sure) row.classList.add("ranked");
    $(".place", row).textContent = sure || row.classList.contains("ranked") ? rank : "·";
    $("input", row).value = sure ? rank : "";
  });
  offerEdit();
  keepDraft();
}

function settle() { placed = all("li", ranks()).length; number(true); }

function startRanking() {
  const list = ranks();
  if (!list) return;
  placed = 0; tieNext = false;
  const rows = all("li", list);
  if (rows.every((row) => $("input", row).value)) {
    const rank = (row) => Number($("input", row).value);
    rows.sort((a, b) => rank(a) - rank(b)).forEach((row, i, sorted) => {
      list.append(row);
      tie(row, i > 0 && rank(row) === rank(sorted[i - 1]));
    });
    settle();
  } else number(false);
  restoreRanking();
  if (window.Sortable) Sortable.create(list, { handle: ".grip, .snippet, .letter", animation: 120, ghostClass: "ghost", onEnd: settle });
  list.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    if (event.target.matches(".up") && row.previousElementSibling) list.insertBefore(row, row.previousElementSibling);
    else if (event.target.matches(".down") && row.nextElementSibling) list.insertBefore(row.nextElementSibling, row);
    else if (event.target.matches(".tie")) tie(row, !row.classList.contains("tied"));
    else if (!event.target.matches(".up, .down")) return;
    settle();
    event.target.focus();
  });
  $("#keep-order").addEventListener("click", settle);
}

/* Drafts: all that was entered is there again after a reload. The place names the row that the answer would correct, so that
   what was sent from here is no draft of its correction. */

const draftPlace = () => { const form = $("#answer"); return form && `plaudit draft ${form.getAttribute("action")} ${form.elements.supersedes.value}`; };
let drafting = false; /* not while the page starts: what is put into the form then is no news */

function readDraft() {
  try { return JSON.parse(sessionStorage.getItem(draftPlace())); } catch { return null; }
}

function keepDraft() {
  const form = $("#answer");
  if (!form || !drafting) return;
  const rows = ranks() ? all("li", ranks()) : [];
  const draft = {
    checked: all("input:checked", form).map((input) => `${input.name}=${input.value}`),
    comment: $("[name=comment]", form).value, text: $("#text")?.value ?? "", base: $("#base")?.value ?? "", placed,
    ranking: rows.map((row) => ({ letter: row.dataset.letter, tied: row.classList.contains("tied") })),
  };
  try { sessionStorage.setItem(draftPlace(), JSON.stringify(draft)); } catch { /* no room: then there is no draft */ }
}

function restoreDraft() {
  const draft = readDraft(), form = $("#answer");
  if (!draft || !form) return;
  all("input[type=radio], input[type=checkbox]", form).forEach((input) => { input.checked = draft.checked.includes(`${input.name}=${input.value}`); });
  $("[name=comment]", form).value = draft.comment;
  if (draft.comment || $("[name=flag]:checked", form)) $("#more").open = true;
  if ($("#text")) { $("#text").value = draft.text; $("#base").value = draft.base; }
}

function restoreRanking() {
  const draft = readDraft();
  if (!draft || !draft.placed) return;
  draft.ranking.forEach(({ letter, tied }, i) => {
    const row = $(`li[data-letter="${letter}"]`, ranks());
    ranks().append(row);
    tie(row, tied);
    row.classList.toggle("ranked", i < draft.placed);
  });
  placed = draft.placed;
  number(placed === draft.ranking.length);
}

document.addEventListener("input", keepDraft);
document.addEventListener("change", keepDraft);

/* Writing: start from a response. */

function startWriting() {
  const text = $("#text");
  if (!text) return;
  const base = $("#base");
  const count = () => { $("#count").textContent = `${text.value.trim() ? text.value.trim().split(/\s+/).length : 0} words`; };
  text.addEventListener("input", count);
  count();
  all("[data-copy]").forEach((button) => button.addEventListener("click", () => {
    if (!text.disabled && base.value === button.dataset.copy && $("#editing")) { text.focus(); return; }
    if (text.value.trim() && text.value !== text.dataset.copied && !confirm("Replace what you have written?")) return;
    text.value = $(`[data-source="${button.dataset.copy}"]`).value;
    text.dataset.copied = text.value;
    base.value = button.dataset.copy;
    offerEdit();
    text.dispatchEvent(new Event("input", { bubbles: true }));
    text.focus();
  }));
  $("#discard")?.addEventListener("click", () => {
    text.value = "";
    base.value = "";
    text.dispatchEvent(new Event("input", { bubbles: true }));
    offerEdit();
  });
}

/* Editing the best response of a comparison or a ranking: offered once the annotator has chosen it. If another response is
   chosen afterwards, the text stays in the page and is not sent. */

function best() {
  const list = ranks();
  if (list) return all("li", list).filter((row) => $("input", row).value === "1").map((row) => row.dataset.letter);
  const said = $("input[name=choice]:checked")?.value;
  if (!said || said === "cannot_judge") return [];
  const shown = all(".response").map((card) => card.dataset.letter);
  const strength = Number(said) || 0;
  return strength ? [shown[strength < 0 ? 0 : 1]] : shown;
}

function offerEdit() {
  const offer = $("#editing");
  if (!offer) return;
  const found = best();
  const base = $("#base");
  const open = found.includes(base.value);
  offer.hidden = !found.some((letter) => $(`[data-copy="${letter}"]`, offer)); // a text too long to be edited has no button
  all("[data-copy]", offer).forEach((button) => {
    button.hidden = button.disabled = !found.includes(button.dataset.copy);
    button.setAttribute("aria-pressed", String(button.dataset.copy === base.value));
    if (button.dataset.copy === base.value) $("#edited").textContent = button.firstChild.textContent.trim().split(" ").pop();
  });
  $("#editor").hidden = $("#discard").hidden = !open;
  $("#text").disabled = base.disabled = !open;
  offer.closest(".panel").classList.toggle("editing-now", open);
}

/* The page, and every piece that htmx puts into it. */

function start(first) {
  drafting = false;
  restoreDraft();
  startRanking();
  startWriting();
  setCurrent(0, false);
  markPreferred(Number($("input[name=choice]:checked")?.value) || 0);
  offerEdit();
  const chat = $(".prompt .content");
  if (chat && all(".turn", chat).length > 1) chat.scrollTop = chat.scrollHeight; /* the question is in the last turn */
  plainMode(sessionStorage.getItem("plaudit plain") === "1");
  $("#plain-toggle")?.addEventListener("click", () => plainMode(!document.body.classList.contains("plain-mode")));
  $("#show-keys")?.addEventListener("click", () => $("#keys").showModal());
  drafting = true;
  if (!first) window.scrollTo(0, 0);
  /* Here Tab begins: the way to the answer is the next stop. */
  $("#prompt-title")?.focus({ preventScroll: true });
}

function plainMode(on) {
  document.body.classList.toggle("plain-mode", on);
  $("#plain-toggle")?.setAttribute("aria-pressed", String(on));
  sessionStorage.setItem("plaudit plain", on ? "1" : "0");
}

function notice(title, cure) {
  const box = document.createElement("div");
  box.className = "notice bad";
  const strong = document.createElement("strong");
  const span = document.createElement("span");
  strong.textContent = title;
  span.textContent = cure;
  box.append(strong, span);
  $("#notice").replaceChildren(box);
}

document.addEventListener("DOMContentLoaded", () => {
  start(true);
  const guide = $("#guide");
  if (guide) {
    guide.open = (sessionStorage.getItem("plaudit guide") ?? (matchMedia("(min-width: 80rem)").matches ? "1" : "0")) === "1";
    guide.addEventListener("toggle", () => sessionStorage.setItem("plaudit guide", guide.open ? "1" : "0"));
  }
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "notice") { window.scrollTo(0, 0); return; }
  // The guidelines, which come out of band, fire this event too; a second start would bind every listener twice.
  if (event.target.id !== "work") return;
  $("#notice").replaceChildren();
  start(false);
});
document.addEventListener("htmx:sendError", () => notice("Not sent: the server cannot be reached.", "Your answer is still here. Send it again in a moment; it will be stored once."));
document.addEventListener("toggle", (event) => {
  if (event.target.matches?.(".menu") && event.target.open) $("button", event.target)?.focus();
}, true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") all(".menu[open]").forEach((menu) => { menu.open = false; $("summary", menu).focus(); });
});
