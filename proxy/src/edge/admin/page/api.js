// Sends requests to the node, and reports errors as one line of text.

const OBSERVER = "/.trunkline/observer";

// Path prefix added by a proxy in front of the node, such as /ops.
const PREFIX = new URL("../", import.meta.url).pathname.slice(0, -1).replace(OBSERVER, "");

// Path of the page and its part of the API, which the session cookie is limited to.
export const HOME = PREFIX + OBSERVER;

async function request(path, options) {
  try {
    const response = await fetch(HOME + path, { credentials: "same-origin", ...options });
    const value = await response.json().catch(() => ({}));
    const problem = value.error ?? `the node answers ${response.status}`;
    return { ok: response.ok, status: response.status, value, problem };
  } catch {
    return { ok: false, status: 0, value: {}, problem: "the node does not answer" };
  }
}

export const read = (path, parameters = {}) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return request(query ? `${path}?${query}` : path);
};

export const send = (path, body = {}, method = "POST") =>
  request(path, { method, headers: { "Content-Type": "application/json", "X-Forwarded-Prefix": PREFIX }, body: typeof body === "string" ? body : JSON.stringify(body) });

export const pathOf = (id) => `/api/clients/${encodeURIComponent(id)}`;
