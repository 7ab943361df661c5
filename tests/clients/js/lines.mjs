// The pipe to the tests: a JSON line per command in, a JSON line per reply or event out.
//
//   in:  {"id":1,"op":"open",...}
//   out: {"id":1,"ok":true,"result":...}  or  {"id":1,"ok":false,"error":"text"}  or  {"event":"...",...}
//
// Commands run concurrently: a reply carries the id of its command. The process ends when the pipe closes.

import { createInterface } from "node:readline";

export function emit(line) {
  const plain = (_, value) => (typeof value === "bigint" ? Number(value) : value);
  process.stdout.write(JSON.stringify(line, plain) + "\n");
}

export function serve(operations, atEnd = () => {}) {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", async (line) => {
    const { id, op, ...options } = JSON.parse(line);
    try {
      const result = await operations[op](options);
      emit({ id, ok: true, result: result ?? null });
    } catch (error) {
      emit({ id, ok: false, error: String(error?.message ?? error) });
    }
  });
  lines.on("close", async () => {
    await atEnd();
    process.exit(0);
  });
}
