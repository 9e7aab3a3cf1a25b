"use strict";
// One list of the batch as a jsPsych timeline. Every text is put in as text, never as HTML.

const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

class Trial {
  static info = { name: "contrafact-trial", version: "1.0.0", parameters: { trial: { type: 12 } }, data: {} };

  constructor(jsPsych) {
    this.jsPsych = jsPsych;
  }

  trial(display, { trial }) {
    const shown = performance.now();
    const answers = {};
    const next = make("button", { type: "button", textContent: "Continue", disabled: true });
    const answered = (question, value) => {
      answers[question] = value;
      const given = trial.questions.map((q) => answers[q.question] ?? "");
      const twice = trial.questions.some((q, n) => q.scale === "worst" && given[n] === given[n - 1]);
      next.disabled = given.includes("") || twice;
    };
    const controls = trial.questions.map((q, number) => this.control(q, number, trial.files.length, answered));
    next.addEventListener("click", () => {
      next.disabled = true;
      display.replaceChildren();
      this.jsPsych.finishTrial({
        assignment: trial.assignment,
        position: trial.position,
        stimulus: trial.files.join(" "),
        response: answers,
        rt: Math.round(performance.now() - shown),
      });
    });
    const name = (place) => (trial.files.length > 1 ? `Picture ${place + 1}` : "The picture to rate");
    const pictures = trial.files.map((src, place) => make("img", { src, alt: name(place) }));
    display.replaceChildren(make("main", {}, make("div", { className: "pictures" }, ...pictures), ...controls, next));
    display.querySelector("input, textarea").focus();
  }

  control(q, number, pictures, answered) {
    const ends = make("div", { className: "ends" }, make("span", { textContent: q.low }), make("span", { textContent: q.high }));
    if (q.scale === "text") return make("fieldset", {}, make("legend", { textContent: q.text }), this.words(q, answered));
    if (q.scale !== "vas" && q.scale !== "likert7") return make("fieldset", {}, make("legend", { textContent: q.text }), this.points(q, number, pictures, answered));
    const body = q.scale === "likert7" ? this.points(q, number, 7, answered) : this.line(q, answered);
    return make("fieldset", {}, make("legend", { textContent: q.text }), body, ends);
  }

  // A line without a preset: the handle appears at the first touch or key.
  line(q, answered) {
    const line = make("input", { type: "range", min: 0, max: 100, step: 0.1, value: 50, className: "untouched" });
    line.setAttribute("aria-label", `${q.text} (0 is ${q.low}, 100 is ${q.high})`);
    for (const happening of ["input", "change"]) {
      line.addEventListener(happening, () => {
        line.classList.remove("untouched");
        answered(q.question, Number(line.value));
      });
    }
    return line;
  }

  words(q, answered) {
    const text = make("textarea", { rows: 3, maxLength: 2000 });
    text.setAttribute("aria-label", q.text);
    text.addEventListener("input", () => answered(q.question, text.value.trim()));
    return text;
  }

  // The seven points of a scale, or the places of the pictures.
  points(q, number, last, answered) {
    const points = Array.from({ length: last }, (_, n) => n + 1).map((value) => {
      const button = make("input", { type: "radio", name: `q${number}`, value });
      button.addEventListener("change", () => answered(q.question, value));
      return make("label", {}, button, String(value));
    });
    return make("div", { className: "seven" }, ...points);
  }
}

const say = (...lines) => document.body.replaceChildren(make("main", {}, ...lines.map((textContent) => make("p", { textContent }))));

const start = async () => {
  const address = new URLSearchParams(location.search);
  const assignment = address.get("assignment") ?? "";
  const participant = address.get("participant") ?? address.get("PROLIFIC_PID") ?? "";
  if (!/^[0-9a-f]{4,64}$/.test(assignment) || participant === "") {
    say("This link is not complete. Please take the whole link that you were given.");
    return;
  }
  const list = await fetch(`lists/${assignment}.json`);
  if (!list.ok) {
    say("This link leads nowhere. Please tell the people who gave it to you.");
    return;
  }
  const trials = await list.json();
  document.title = trials.title;
  const pictures = [...new Set(trials.trials.flatMap((trial) => trial.files))];
  const jsPsych = initJsPsych({
    on_finish: () => {
      jsPsych.data.get().localSave("json", `${assignment}.json`);
      say("Thank you. Your answers were saved as a file.");
    },
  });
  jsPsych.data.addProperties({ participant });
  say("The pictures are being loaded.");
  await Promise.all(pictures.map((file) => new Promise((done) => jsPsych.pluginAPI.preloadImages([file], done, done, done))));
  document.body.replaceChildren();
  await jsPsych.run(trials.trials.map((trial) => ({ type: Trial, trial })));
};

start();
