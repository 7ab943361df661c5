// Numbers formatted for people.

const whole = new Intl.NumberFormat("en-US");

export const count = (number) => whole.format(Math.round(number ?? 0));

export const short = (number) => {
  const value = number ?? 0;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return count(value);
};

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${Math.round(number) === 1 ? one : many}`;

export const rate = (number) => {
  if (number === undefined || number === null) return "–";
  return number > 0 && number < 10 ? `${number.toFixed(1)}/s` : `${short(number)}/s`;
};

export const bytes = (number) => {
  if (number === undefined || number === null) return "–";
  let [value, unit] = [number, 0];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
};

export const milliseconds = (us) => `${us >= 100_000 ? Math.round(us / 1000) : (us / 1000).toFixed(2)} ms`;

export const percent = (number) => (number === undefined || number === null ? "–" : `${number.toFixed(0)} %`);

export const age = (seconds) => {
  const s = Math.max(0, Math.round(seconds ?? 0));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
};

export const time = (ms) => {
  const at = new Date(ms);
  return `${at.toLocaleTimeString("en-GB")}.${String(at.getMilliseconds()).padStart(3, "0")}`;
};

export const dateTime = (ms) => new Date(ms).toLocaleString("en-GB");

const TRANSPORTS = { WebSockets: "WebSocket", ServerSentEvents: "Server-Sent Events", LongPolling: "Long polling" };
const PROTOCOLS = { json: "JSON", messagepack: "MessagePack", raw: "raw" };

export const transport = (name) => TRANSPORTS[name] ?? name;
export const protocol = (name) => PROTOCOLS[name] ?? name;
