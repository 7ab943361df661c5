// Exchanges the admin token for a cookie, on nodes that require it even for reading.

import { HOME, send } from "./api.js";
import { byId } from "./dom.js";

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await send("/api/login", { token: byId("login-token").value });
  if (answer.ok) location.replace(`${HOME}/`);
  else byId("login-problem").textContent = answer.problem;
});
