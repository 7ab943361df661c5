// Reads the event stream of a record as a browser does. Prints each number and each reset, and ends with the record: then
// the EventSource comes back once more and closes.

import EventSource from "eventsource";

const source = new EventSource(process.argv[2]);
source.onmessage = ({ data }) => console.log(`shown ${JSON.parse(data).arguments[0]}`);
source.addEventListener("reset", ({ data }) => console.log(`reset ${data}`));
// Node ends when the EventSource stays away.
process.on("exit", () => console.log("closed"));
