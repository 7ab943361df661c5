// Prints the counts of the clients of all steps as a table, and checks them.
//
//   node table.mjs FILE...    outputs of traffic.mjs, named ORDER-KIND-STEP.json, with KIND `planned` or `crash`
//
// A planned change may not affect clients with stateful reconnect. Others may have to reconnect, and miss messages sent in
// the meantime, but no call fails and no request gets 404. After a crash all clients reconnect, and no call hangs. No message
// is ever duplicated, reordered or answered wrongly. The exit status is 1 in case of a violation.

import fs from "node:fs";
import path from "node:path";

const STATEFUL = "stateful";

function faults(kind, groups) {
  const found = [];
  for (const [name, counts] of Object.entries(groups)) {
    const told = [...Object.entries(counts.errors), ...Object.entries(counts.reasons)];
    const notFound = told.filter(([line]) => line.includes("404")).reduce((total, [, count]) => total + count, 0);
    const rules = { doubled: counts.doubled, misordered: counts.misordered, "wrong answers": counts.wrong, "hanging calls": counts.hanging, away: counts.away };
    if (kind === "planned") {
      Object.assign(rules, { "failed calls": counts.failed, "closed for good": counts.closed, "answers 404": notFound });
      if (name === STATEFUL) {
        Object.assign(rules, { reconnects: counts.reconnects, "echoes lost": counts.echoesLost, "broadcasts lost": counts.broadcastsLost });
      }
    }
    for (const [rule, count] of Object.entries(rules)) if (count > 0) found.push(`${name}: ${count} ${rule}`);
  }
  return found;
}

const rows = [["step", "kind", "reconnects", "failed calls", "lost: stateful", "lost: others", "doubled", "longest gap", "slowest call"]];
const notes = [];
for (const file of process.argv.slice(2)) {
  const [, kind, ...words] = path.basename(file, ".json").split("-");
  const { groups, uncaught } = JSON.parse(fs.readFileSync(file, "utf8"));
  const all = Object.values(groups);
  const each = (value) => all.map(value).join(" / ");
  const most = (value) => `${(Math.max(...all.map(value)) / 1000).toFixed(1)} s`;
  const others = Object.entries(groups).filter(([name]) => name !== STATEFUL).map(([, counts]) => counts);
  const sum = (of, value) => of.reduce((total, counts) => total + value(counts), 0);
  const lost = (of) => `${sum(of, (counts) => counts.echoesLost)} + ${sum(of, (counts) => counts.broadcastsLost)}`;
  rows.push([words.join(" "), kind, each((counts) => counts.reconnects), each((counts) => counts.failed), lost([groups[STATEFUL]]), lost(others),
    String(sum(all, (counts) => counts.doubled)), most((counts) => counts.longestMs), most((counts) => counts.slowestMs)]);
  for (const fault of faults(kind, groups)) notes.push(`${words.join(" ")}: ${fault}`);
  for (const [error, count] of Object.entries(uncaught)) notes.push(`${words.join(" ")}: ${count} x the client library threw: ${error}`);
  for (const [name, counts] of Object.entries(groups)) {
    for (const [error, count] of Object.entries(counts.errors)) console.log(`${words.join(" ")}: ${name}: call: ${count} x ${error}`);
    for (const [reason, count] of Object.entries(counts.reasons)) console.log(`${words.join(" ")}: ${name}: connection: ${count} x ${reason}`);
  }
}
const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
console.log("\nreconnects and failed calls: stateful / WebSockets / event streams / polling; lost: echoes + broadcasts\n");
for (const row of rows) console.log(`| ${row.map((cell, column) => cell.padEnd(widths[column])).join(" | ")} |`);
console.log(notes.length === 0 ? "\nall as promised" : `\nnot as promised:\n${notes.map((note) => `  ${note}`).join("\n")}`);
process.exit(notes.length === 0 ? 0 : 1);
