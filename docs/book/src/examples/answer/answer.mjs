// Answers of a model that survive reloads, restarts and cut networks, with Express: see docs/book/src/ai-answer.md.
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import express from "express";
import { hub, rest, token, url } from "./nodes.mjs";

const { PORT = 7071, TOKENS = 300, PAUSE_MS = 30 } = process.env;
const user = "ann"; // replace this by the user of your own log-in
const file = "answers.json"; // in production, a table of your database
const answers = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
function save(id, answer) {
  answers[id] = answer;
  writeFileSync(`${file}.new`, JSON.stringify(answers));
  renameSync(`${file}.new`, file);
}

// Yields the tokens that follow the text so far. Replace it by your model.
async function* model(question, text) {
  let length = 0;
  for (let number = 0; number <= Number(TOKENS); number++) {
    const word = number === 0 ? `${question} I count:` : ` ${number}`;
    length += word.length;
    if (length <= text.length) continue;
    await sleep(Number(PAUSE_MS));
    yield word;
  }
}

// Writes an answer from the end of its record on. A chunk has a number, a text, and the last one an outcome.
async function write(id) {
  const group = `groups/answer-${id}`;
  let sent = [];
  for (let page = { position: "0", newest: "", items: [] }; page.position !== page.newest; ) {
    page = await rest("GET", `${group}/history?after=${page.position}`);
    sent.push(...page.items.map((item) => item.arguments));
  }
  if (sent.length > 0 && sent[0][0] !== 1) {
    await rest("DELETE", `${group}/history`); // the first chunks were lost, too: from the beginning
    sent = [];
  }
  const unsent = [];
  const text = () => sent.map((chunk) => chunk[1]).join("");
  let outcome = sent.at(-1)?.[2];
  let [isWhole, isOver, failure] = [false, false, undefined];
  const gather = async () => {
    for await (const word of model(answers[id].question, text())) {
      if (isOver) return;
      unsent.push(word);
    }
  };
  const send = async () => {
    const chunk = { target: "Added", arguments: sent.at(-1) };
    const { position } = await rest("POST", `${group}/:send`, chunk, `${id}-${sent.length}`);
    return position.endsWith(`-${sent.length}`);
  };
  if (!outcome) gather().catch((error) => console.error((failure = error))).finally(() => (isWhole = true));
  try {
    while (!outcome) {
      await sleep(50);
      if (answers[id].state === "stopping") outcome = "stopped";
      else if (isWhole) outcome = failure ? "failed" : "finished";
      if (unsent.length === 0 && !outcome) continue;
      sent.push([sent.length + 1, unsent.splice(0).join(""), outcome]);
      while (!(await send())) {
        await rest("DELETE", `${group}/history`); // the record was lost with its node: again, as one chunk
        sent = [[1, text(), outcome]];
      }
    }
  } finally {
    isOver = true;
  }
  await rest("POST", `${group}/history/:finish`);
  save(id, { ...answers[id], state: outcome, text: text() });
}

async function work(id) {
  while (answers[id].text === undefined) {
    await write(id).catch((error) => {
      console.log(`answer ${id} goes on in a second: ${error.message}`);
      return sleep(1000);
    });
  }
}

const app = express();
function show(id, response) {
  if (answers[id]?.user !== user) return response.status(404).json({ detail: "there is no such answer" });
  const group = `answer-${id}`;
  const access = token({ sub: user, "trunkline.follow": group });
  const { state, text } = answers[id];
  response.json({ answer: id, state, text, hub: `${url}/${hub}`, group, token: access });
}
app.post("/ask", express.json(), ({ body }, response) => {
  if (typeof body?.question !== "string") return response.status(400).json({ detail: "which question?" });
  const id = randomUUID();
  save(id, { user, question: body.question, state: "writing" });
  work(id);
  show(id, response);
});
app.get("/answers/:id", ({ params }, response) => show(params.id, response));
app.post("/stop/:id", ({ params: { id } }, response) => {
  const isOpen = answers[id]?.user === user && answers[id].text === undefined;
  if (isOpen) save(id, { ...answers[id], state: "stopping" });
  response.json(null);
});
app.use(express.static("public"));
app.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${PORT}`));
for (const id in answers) work(id); // those that were not finished when the process ended
