// The participant's page. An answer is written into this browser before it is sent, and leaves it only when the server
// has said that it is stored; so a reload, a dead connection or a dead server loses nothing, and the key that was made
// for the answer lets the server tell a repeat from a second opinion.

const $ = (id) => document.getElementById(id);
const AHEAD = 12;           // pictures loaded before they are needed
const query = Object.fromEntries(new URLSearchParams(location.search));
let about, link, state, catalogue = {}, language = "en", tries = 0, sending = null, blocked = "";
let away = 0;                 // how often this page was left while the trial stood
const pictures = new Map();
const verdicts = new Map();   // of guesses, by position
const breaks = new Map();     // milliseconds, by the number of trials before
let practised = 0;

// What is kept here: answers on their way. Each has a place of its own, so two tabs cannot overwrite each other.
const box = () => `contrafact/${about.study}/${state.token.split(".")[0]}/`;
const waiting = () => Object.keys(localStorage).filter((key) => key.startsWith(box()))
  .map((key) => JSON.parse(localStorage.getItem(key))).sort((a, b) => a.position - b.position);
const memory = new Map();   // where the browser keeps nothing (private windows)
function keep(answer) {
  try { localStorage.setItem(box() + answer.position, JSON.stringify(answer)); } catch { memory.set(answer.position, answer); }
}
const unsent = () => [...waiting(), ...memory.values()];
function settle(answer) {
  memory.delete(answer.position);
  try { localStorage.removeItem(box() + answer.position); } catch { /* nothing was kept */ }
}

// The page's own words in the language of the person; the study's come from the server in the same one.
const t = (key, values = {}) => (catalogue[language]?.[key] ?? "").replace(/\{(\w+)\}/g, (_, name) => values[name]);
function speak(named) {
  language = document.documentElement.lang = named;
  $("title").textContent = about.title;
  $("progress").setAttribute("aria-label", t("progress"));
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function call(path, body, method = "POST") {
  const headers = { "Content-Type": "application/json" };
  if (state?.token) headers.Authorization = `Bearer ${state.token}`;
  const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(15000) });
  let facts = {};
  try { facts = await reply.json(); } catch { /* a proxy's page */ }
  return { status: reply.status, facts };
}

// Tries until the server answers; says so meanwhile.
async function insist(path, body, method) {
  for (let wait = 400; ; wait = Math.min(wait * 1.7, 8000)) {
    try {
      const { status, facts } = await call(path, body, method);
      if (status < 500 && status !== 429) { if (status === 200) note(""); return { status, facts }; }
    } catch { /* no connection */ }
    note(t("lost"));
    await sleep(wait * (0.75 + Math.random() / 2));
  }
}

const note = (text) => { if ($("note").textContent !== text) $("note").textContent = text || (state?.preview ? t("preview") : ""); };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}
const paragraphs = (text) => text.split(/\n\s*\n/).map((part) => element("p", {}, part.trim()));

function show(title, ...content) {
  const heading = element("h1", { tabindex: "-1" }, title);
  $("main").replaceChildren(heading, ...content.flat());
  document.title = about ? `${title} · ${about.title}` : title;
  scrollTo(0, 0);
  heading.focus({ preventScroll: true });
}
const button = (text, act, kind = "") => element("button", { type: "button", class: kind, onclick: once(act) }, text);
function once(act) {
  let busy = false;
  return async (event) => {
    if (busy) return;
    busy = true;
    try { await act(event); } finally { busy = false; }
  };
}
const actions = (...buttons) => element("div", { class: "actions" }, buttons);

function progress() {
  const done = answered().size, all = state.trials.length;
  $("progress").hidden = all === 0;
  $("progress").setAttribute("aria-valuenow", String(Math.round((100 * done) / Math.max(all, 1))));
  $("bar").style.width = `${(100 * done) / Math.max(all, 1)}%`;
}
const answered = () => new Set([...state.answered, ...unsent().map((answer) => answer.position)]);

// Pages in their order

function consent() {
  show(about.title, paragraphs(about.consent), element("p", { class: "small" }, kept()), element("p", { class: "small" }, t("contact", { contact: about.contact })), languages(),
    actions(button(t("disagree"), declined, "quiet"), button(t("agree"), async () => enter(await insist("/api/consent", { link, language })))));
}
function kept() {
  const days = about.retention_days, date = new Date(Date.now() + 86400000 * days).toISOString().slice(0, 10);
  return t("kept", { days, date });
}
const screening = (questions) => choose(t("screening"), t("screening_text"), questions, t("go_on"),
  async (answers) => enter(await insist("/api/consent", { link, language, screening: answers })));

// A page of questions with one answer each; `take` is given the answers once all are there.
function choose(title, introduction, questions, label, take) {
  const form = element("form", { novalidate: true });
  questions.forEach((one, number) => {
    form.append(element("fieldset", {}, element("legend", {}, one.text), one.options.map((text) =>
      element("label", { class: "option" }, element("input", { type: "radio", name: `c${number}`, value: text }), text))));
  });
  const problem = element("p", { class: "problem", role: "alert" });
  form.append(problem, actions(element("button", {}, label)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("submit", once(async () => {
    const answers = questions.map((_, number) => new FormData(form).get(`c${number}`));
    if (answers.includes(null)) problem.textContent = t("unanswered");
    else await take(answers);
  }));
  show(title, paragraphs(introduction), form);
}
const declined = () => show(t("thanks"), paragraphs(t("declined")));
const languages = () => about.languages.length < 2 ? "" : element("nav", { class: "small languages" }, about.languages.map((one) => element("a",
  { href: `?${new URLSearchParams({ ...query, lang: one })}`, lang: one, hreflang: one, "aria-current": one === language ? "true" : null }, catalogue[one].language_name)));

function instructions() {
  const next = state.comprehension.length ? button(t("go_on"), comprehension) : button(t("begin"), trial);
  show(t("instructions"), paragraphs(state.instructions), actions(next));
}

function comprehension() {
  choose(t("care"), t("care_text"), state.comprehension, t("check"), async (answers) => {
    const { status, facts } = await insist("/api/comprehension", { attempt: tries + 1, answers });
    if (status !== 200) return stopped(facts);
    tries += 1;
    Object.assign(state, facts);
    if (state.status !== "instructions") return proceed();
    show(t("not_quite"), paragraphs(t("not_quite_text")),
      actions(button(t("read_again"), instructions)));
  });
}

function vas(question, changed) {
  const input = element("input", { type: "range", class: "unset", min: 0, max: 100, step: 1, value: 50, id: question.name,
    "aria-valuetext": t("vas_unset"), "aria-describedby": `${question.name}-ends` });
  let moves = 0;
  const set = (moved) => {
    if (moved) moves += 1;
    input.classList.remove("unset");
    input.setAttribute("aria-valuetext", t("vas_value", { value: input.value, low: question.low, high: question.high }));
    changed();
  };
  input.addEventListener("pointerdown", (event) => {   // a tap on the line sets the handle there, on every phone too
    const room = input.getBoundingClientRect();
    input.value = String(Math.round((100 * (event.clientX - room.left)) / room.width));
    set(true);
  });
  input.addEventListener("input", () => set(false));
  input.addEventListener("change", () => set(true));
  input.addEventListener("keydown", (event) => { if (event.key === " ") { event.preventDefault(); set(true); } });
  return {
    node: element("div", { class: "vas" }, element("label", { class: "question", for: question.name }, question.text), input,
      element("div", { class: "ends", id: `${question.name}-ends` }, element("span", {}, question.low), element("span", {}, question.high))),
    value: () => (input.classList.contains("unset") ? null : Number(input.value)), moves: () => moves, focus: () => input.focus({ preventScroll: true }),
  };
}

function likert(question, changed) {
  let moves = 0;
  const inputs = [1, 2, 3, 4, 5, 6, 7].map((value) => element("input", { type: "radio", name: question.name, value,
    "aria-label": value === 1 ? `1, ${question.low}` : value === 7 ? `7, ${question.high}` : String(value),
    onchange: () => { moves += 1; changed(); } }));
  return {
    node: element("fieldset", {}, element("legend", {}, question.text),
      element("div", { class: "likert" }, inputs.map((input) => element("label", {}, input, input.value))),
      element("div", { class: "ends" }, element("span", {}, question.low), element("span", {}, question.high))),
    value: () => { const chosen = inputs.find((input) => input.checked); return chosen ? Number(chosen.value) : null; },
    moves: () => moves, focus: () => inputs[0].focus({ preventScroll: true }),
    choose: (digit) => { const input = inputs[digit - 1]; if (input) { input.checked = true; input.focus(); moves += 1; changed(); } },
  };
}

// One picture of several, by its place. Each control has its own radio buttons below the pictures, in the same columns.
function choice(question, changed, several) {
  let moves = 0;
  const inputs = Array.from({ length: several }, (_, place) => element("input", { type: "radio", name: question.name, value: place + 1,
    "aria-label": t("picture", { number: place + 1 }), onchange: () => { moves += 1; changed(); } }));
  const value = () => { const chosen = inputs.find((input) => input.checked); return chosen ? Number(chosen.value) : null; };
  return {
    node: element("fieldset", {}, element("legend", {}, question.text),
      element("div", { class: "places" }, inputs.map((input) => element("label", {}, input, input.value)))),
    value, moves: () => moves, focus: () => inputs[0].focus({ preventScroll: true }),
    choose: (digit) => { const input = inputs[digit - 1]; if (input) { input.checked = true; input.focus(); moves += 1; changed(); } },
  };
}

function words(question, changed) {
  let pasted = 0;
  const input = element("textarea", { id: question.name, rows: 3, maxlength: 2000, oninput: () => changed(),
    onpaste: (event) => { pasted += Math.min(event.clipboardData?.getData("text").length ?? 1, 100000); } });
  return {
    node: element("div", {}, element("label", { class: "question", for: question.name }, question.text), input),
    value: () => input.value.trim() || null, moves: () => 0, pasted: () => pasted, focus: () => input.focus({ preventScroll: true }),
  };
}

// Best and worst are one question with two answers, which differ.
const parts = (question) => question.scale !== "best_worst" ? [question]
  : [["best", question.high], ["worst", question.low]].map(([scale, end]) => ({ ...question, name: `${question.name}_${scale}`, text: `${question.text} (${end})`, scale }));
const CONTROLS = { vas, likert7: likert, text: words, choice, best: choice, worst: choice };

function picture(address, name) {
  if (!pictures.has(address)) {
    pictures.set(address, (async () => {
      for (let wait = 400; ; wait = Math.min(wait * 1.7, 8000)) {
        const image = element("img", { class: "picture", alt: name, src: address, draggable: "false" });
        try { await image.decode(); return image; } catch { await sleep(wait); image.removeAttribute("src"); }
        note(t("picture_late"));
      }
    })());
  }
  return pictures.get(address);
}

const shown = (one) => one.pictures.map((address, place) => picture(address, one.pictures.length > 1 ? t("picture", { number: place + 1 }) : t("the_picture")));

async function trial() {
  const open = state.trials.filter((one) => !answered().has(one.position));
  progress();
  if (open.length === 0) return finish();
  open.slice(0, AHEAD).forEach(shown);
  const [now] = open, before = state.trials.indexOf(now);
  if (before === 0 && practised < state.practice.length) return practice();
  if (state.breaks && before && before % state.breaks === 0 && !breaks.has(before)) return rest(before);
  await ask(now, t(now.pictures.length === 1 ? "picture_of" : "question_of", { number: before + 1, all: state.trials.length }), (given) => {
    if (!answered().has(now.position)) {   // another tab may have been quicker
      keep({ key: crypto.randomUUID?.() ?? String(Math.random()).slice(2).padEnd(17, "0") + Date.now(), position: now.position,
        ...given, break_ms: breaks.get(before) ?? null, answered_at: new Date().toISOString() });
    }
    if (state.feedback && now.pictures.length) return told(now);
    send();
    trial();
  });
}

// Shows a trial and calls `take` once with what was answered.
async function ask(now, title, take) {
  const images = (await Promise.all(shown(now))).map((image) => image.cloneNode());
  if (navigator.onLine && !blocked) note("");
  const submit = element("button", { "aria-disabled": "true" }, t("next"));
  const controls = (now.questions ?? state.questions).flatMap(parts).map((question) => ({ question,
    ...CONTROLS[question.scale](question, () => submit.setAttribute("aria-disabled", String(!complete())), images.length) }));
  const complete = () => missing() === "";
  const missing = () => {
    if (controls.some((control) => control.value() === null)) return t("answer_first");
    const twice = controls.some((one, next) => one.question.scale === "worst" && one.value() === controls[next - 1].value());
    return twice ? t("two_different") : "";
  };
  const problem = element("p", { class: "problem", role: "alert" });
  const form = element("form", { novalidate: true }, controls.map((control) => control.node), problem, actions(submit));
  let shownAt = 0, given = false;
  away = 0;
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target !== submit && event.target.tagName !== "TEXTAREA") { event.preventDefault(); form.requestSubmit(); }
    if (controls.length === 1 && controls[0].choose && /^[1-7]$/.test(event.key)) controls[0].choose(Number(event.key));
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (given) return;
    if (!complete()) { problem.textContent = missing(); (controls.find((control) => control.value() === null) ?? controls[0]).focus(); return; }
    given = true;
    take({ values: Object.fromEntries(controls.map((control) => [control.question.name, control.value()])),
      moves: Object.fromEntries(controls.map((control) => [control.question.name, control.moves()])),
      pasted: Object.fromEntries(controls.filter((control) => control.pasted).map((control) => [control.question.name, control.pasted()])),
      away, response_ms: Math.round(performance.now() - shownAt) });
  });
  const pictures = images.length > 1 ? [element("div", { class: "several" }, images.map((image, place) =>
    element("figure", {}, image, element("figcaption", { "aria-hidden": "true" }, String(place + 1)))))] : images;
  show(title, [...pictures, form]);
  controls[0].focus();
  requestAnimationFrame(() => { shownAt = performance.now(); });
}

// Before the first trial that counts. Nothing of it leaves this page.
function practice() {
  if (practised === 0) {
    show(t("practice"), paragraphs(t("practice_text")), actions(button(t("begin"), attempt)));
  } else attempt();
  async function attempt() {
    const now = state.practice[practised];
    await ask(now, t("practice_of", { number: practised + 1, all: state.practice.length }), ({ values }) => {
      practised += 1;
      const next = practised < state.practice.length ? attempt : ready;
      if (now.right === null) return next();
      const { name } = state.questions.find((question) => question.scale === "choice");
      verdict(values[name] === now.right, next);
    });
  }
  function ready() {
    show(t("practice_over"), paragraphs(t("practice_over_text")), actions(button(t("begin"), trial)));
    $("main").querySelector("button").focus();
  }
}

function rest(before) {
  const began = performance.now();
  show(t("break"), paragraphs(t("break_text", { done: before, all: state.trials.length })),
    actions(button(t("go_on"), () => { breaks.set(before, Math.round(Math.min(performance.now() - began, 86400000))); return trial(); })));
  $("main").querySelector("button").focus();
}

// A guess is told right or wrong only once it is stored, so that nobody can ask first and answer then.
async function told(now) {
  while (unsent().some((answer) => answer.position === now.position)) { await send(); await sleep(20); }
  const right = verdicts.get(now.position);
  if (right === undefined) return trial();
  verdict(right, trial);
}
function verdict(right, next) {
  show(t(right ? "right" : "wrong"), paragraphs(t(right ? "right_text" : "wrong_text")), actions(button(t("go_on"), next)));
  $("main").querySelector("button").focus();
}

// One sender at a time in this tab; other tabs may send the same, which the keys make harmless.
function send() {
  sending ??= deliver().finally(() => { sending = null; });
  return sending;
}
async function deliver() {
  for (let wait = 400; ; ) {
    const [answer] = unsent();
    if (!answer) return;
    let reply;
    try { reply = await call("/api/answer", answer); } catch { reply = { status: 0, facts: {} }; }
    if (reply.status === 200 || reply.status === 409) {
      settle(answer);
      state.answered.push(answer.position);
      if (typeof reply.facts.right === "boolean") verdicts.set(answer.position, reply.facts.right);
      if (reply.status === 409) await refresh();
      wait = 400;
      if (blocked) { blocked = ""; note(t("saved")); }
    } else if (reply.status === 401 || reply.status === 410) {
      return stopped(reply.facts);
    } else if (reply.status >= 400 && reply.status < 500 && reply.status !== 429 && reply.status !== 408) {
      settle(answer);   // not an answer to this trial, so it is asked again, or what comes before it
      await refresh();
      proceed();
    } else {
      blocked = t("offline");
      note(blocked);
      await sleep(wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 1.7, 8000);
    }
  }
}

async function refresh() {
  if (state.preview) return;
  try {
    const { status, facts } = await call(`/api/state?${new URLSearchParams(link)}`, undefined, "GET");
    if (status === 200) state = facts;
    else if (status === 410 || status === 401) stopped(facts);
  } catch { /* later */ }
}

async function finish() {
  show(t("saving"), paragraphs(t("saving_text")));
  while (unsent().length) { await send(); await sleep(50); }
  if (state.preview) state.code = "PREVIEW";
  else {
    const { status, facts } = await insist(`/api/state?${new URLSearchParams(link)}`, undefined, "GET");
    if (status !== 200) return stopped(facts);
    state = facts;
    if (state.status !== "done") return trial();
  }
  done();
}

const done = () => ended(t("thanks"), state.bonus ? `${t("bonus", state.bonus)}\n\n${state.debrief}` : state.debrief);
const unfit = () => ended(t("thanks"), t("unfit"));
const enough = () => ended(t("enough"), t("enough_text"));
function ended(title, text) {
  $("progress").hidden = true;
  const code = state.code ? [element("p", {}, t("code")), element("p", { class: "code", id: "code" }, state.code)] : [];
  const back = state.return ? actions(element("a", { class: "button", href: state.return }, t("return"))) : null;
  show(title, paragraphs(text), code, back ?? "", element("p", { class: "small" }, t("contact", { contact: about.contact })));
}

// Deletion stands below every page once something is kept, so that the person's own link is all it takes.
function removal() {
  const wanted = Boolean(state?.token) && !state.preview && ["instructions", "trials", "done"].includes(state.status);
  const ask = () => show(t("delete_all"), paragraphs(t("delete_text")),
    actions(button(t("keep"), proceed, "quiet"), button(t("delete"), forget)));
  $("footer").replaceChildren(...(wanted ? [button(t("withdraw"), ask, "quiet")] : []));
}
async function forget() {
  await insist("/api/forget", {});
  unsent().forEach(settle);
  state = null;
  $("progress").hidden = true;
  $("footer").replaceChildren();
  show(t("deleted"), paragraphs(t("deleted_text")));
}

const stopped = (facts) => show(t("stopped"), paragraphs(t(facts.say) || facts.error || t("open_again")));
const screenedOut = () => show(t("thanks"), paragraphs(t("not_understood")));
const full = () => show(t("full"), paragraphs(t("full_text")));

const introduce = async (named) => { about = (await insist(`/api/about?lang=${encodeURIComponent(named)}`, undefined, "GET")).facts; };
async function enter({ status, facts }) {
  if (status !== 200) return stopped(facts);
  if (facts.language && facts.language !== about.language) await introduce(facts.language);   // begun in another one
  speak(about.language);
  if (facts.status === "full" && !facts.token) return full();
  if (facts.status === "consent") return consent();
  if (facts.status === "screening") return screening(facts.screening);
  state = facts;
  tries = 2 - facts.tries_left || 0;
  proceed();
}
function proceed() {
  note("");
  removal();
  if (state.status === "screened_out") return screenedOut();
  if (state.status === "unfit") return unfit();
  if (state.status === "full") return enough();
  if (state.status === "instructions") return instructions();
  if (state.status === "done") return done();
  send();
  if (!state.comprehension.length && answered().size === 0) return instructions();
  trial();
}

async function start() {
  catalogue = (await insist("/words.json", undefined, "GET")).facts;
  await introduce(query.lang ?? "");
  speak(about.language);
  link = Object.fromEntries(about.parameters.filter((name) => name in query).map((name) => [name, query[name].slice(0, 300)]));
  enter(await insist("/api/arrive", { link }));
}

addEventListener("online", () => state?.token && send());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") away += 1; });
document.addEventListener("visibilitychange", async () => {   // another tab may have gone on
  if (document.visibilityState !== "visible" || state?.status !== "trials" || state.preview) return;
  const before = state.answered.length;
  await refresh();
  if (state.answered.length !== before) proceed();
});
addEventListener("beforeunload", (event) => { if (state?.token && unsent().length) event.preventDefault(); });
start();
