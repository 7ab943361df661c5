// A small SignalR client: JSON over WebSockets, with the API of the official package (@microsoft/signalr).
// That package's dist/browser/signalr.js can replace it.
var signalR = (() => {
  const END = "\x1e";
  const SERVER_TIMEOUT_MS = 30000, PING_INTERVAL_MS = 15000, RECONNECT_DELAYS_MS = [0, 2000, 10000, 30000];

  class HubConnection {
    constructor(url, reconnects) {
      Object.assign(this, { url, reconnects, state: "Disconnected", connectionId: null });
      Object.assign(this, { handlers: new Map(), calls: new Map(), nextId: 0, hooks: {} });
    }
    on(name, handler) {
      const key = name.toLowerCase();
      this.handlers.set(key, [...(this.handlers.get(key) ?? []), handler]);
    }
    onreconnecting(hook) { this.hooks.reconnecting = hook; }
    onreconnected(hook) { this.hooks.reconnected = hook; }
    onclose(hook) { this.hooks.close = hook; }

    async start() {
      this.state = "Connecting";
      try {
        await this.open();
      } catch (error) {
        this.state = "Disconnected";
        throw error;
      }
    }
    async stop() {
      this.stopped = true;
      this.socket?.close();
    }
    send(target, ...args) {
      this.write({ type: 1, target, arguments: args });
      return Promise.resolve();
    }
    invoke(target, ...args) {
      const invocationId = String(this.nextId++);
      return new Promise((resolve, reject) => {
        this.calls.set(invocationId, { resolve, reject });
        this.write({ type: 1, target, arguments: args, invocationId });
      });
    }

    stream(target, ...args) {
      const subscribe = (observer) => {
        const invocationId = String(this.nextId++);
        const [resolve, reject] = [() => observer.complete?.(), (error) => observer.error?.(error)];
        this.calls.set(invocationId, { resolve, reject, next: (item) => observer.next?.(item) });
        this.write({ type: 4, target, arguments: args, invocationId });
        return { dispose: () => { if (this.calls.delete(invocationId)) this.write({ type: 5, invocationId }); } };
      };
      return { subscribe };
    }

    async open() {
      const { connectionId = null, connectionToken } = await this.negotiate();
      const url = new URL(this.url);
      url.protocol = url.protocol.replace("http", "ws");
      if (connectionToken) url.searchParams.set("id", connectionToken);
      await new Promise((resolve, reject) => {
        const socket = (this.socket = new WebSocket(url));
        socket.onopen = () => socket.send(JSON.stringify({ protocol: "json", version: 1 }) + END);
        socket.onerror = () => reject(new Error("the connection failed"));
        socket.onclose = () => { reject(new Error("the connection was closed")); this.lost(socket); };
        socket.onmessage = ({ data }) => {
          this.lastHeard = Date.now();
          for (const text of data.split(END).slice(0, -1)) {
            const message = JSON.parse(text);
            if (this.state === "Connected") this.handle(message);
            else if (message.error) reject(new Error(message.error));
            else { Object.assign(this, { state: "Connected", connectionId, canReconnect: true }); resolve(); }
          }
        };
      });
      this.timer = setInterval(() => this.tick(), PING_INTERVAL_MS);
      this.write({ type: 6 });
    }
    async negotiate() {
      const url = new URL(this.url);
      url.pathname += "/negotiate";
      url.searchParams.set("negotiateVersion", "1");
      // Another origin may forbid negotiation; a WebSocket also connects without it, but then has no connection id.
      const answer = await fetch(url, { method: "POST" }).catch(() => null);
      if (!answer) return {};
      if (!answer.ok) throw new Error(`negotiation failed: ${answer.status} ${await answer.text()}`);
      const body = await answer.json();
      if (body.error) throw new Error(body.error);
      return body;
    }
    tick() {
      if (Date.now() - this.lastHeard > SERVER_TIMEOUT_MS) this.socket.close();
      else this.write({ type: 6 });
    }
    write(message) {
      if (this.state !== "Connected") throw new Error("not connected");
      this.socket.send(JSON.stringify(message) + END);
    }
    handle(message) {
      if (message.type === 1) {
        this.receive(message);
      } else if (message.type === 2) {
        this.calls.get(message.invocationId)?.next?.(message.item);
      } else if (message.type === 3) {
        const call = this.calls.get(message.invocationId);
        this.calls.delete(message.invocationId);
        if (message.error) call?.reject(new Error(message.error));
        else call?.resolve(message.result);
      } else if (message.type === 7) {
        this.canReconnect = message.allowReconnect === true;
        this.closeError = message.error && new Error(message.error);
        this.socket.close();
      }
    }
    async receive({ target, arguments: args, invocationId }) {
      const handlers = this.handlers.get(target.toLowerCase()) ?? [];
      const results = handlers.map((handler) => handler(...args));
      if (invocationId === undefined) return;
      // A client result: the handler's return value is sent to the hub.
      const answer = async () => {
        if (!results.length) throw new Error("Client didn't provide a result.");
        return { result: await results[0] };
      };
      const outcome = await answer().catch((error) => ({ error: error.message }));
      this.write({ type: 3, invocationId, ...outcome });
    }
    async lost(socket) {
      if (this.state !== "Connected" || socket !== this.socket) return;
      clearInterval(this.timer);
      for (const call of this.calls.values()) call.reject(new Error("the connection was closed"));
      this.calls.clear();
      this.connectionId = null;
      if (this.reconnects && this.canReconnect && !this.stopped) {
        this.state = "Reconnecting";
        this.hooks.reconnecting?.(this.closeError);
        for (const delay of RECONNECT_DELAYS_MS) {
          await new Promise((resolve) => setTimeout(resolve, delay));
          if (this.stopped) break;
          try {
            await this.open();
            return this.hooks.reconnected?.(this.connectionId);
          } catch { /* the next try, or the end */ }
        }
      }
      this.state = "Disconnected";
      this.hooks.close?.(this.closeError);
    }
  }

  class HubConnectionBuilder {
    withUrl(url) { this.url = new URL(url, location.href).href; return this; }
    withAutomaticReconnect() { this.reconnects = true; return this; }
    build() { return new HubConnection(this.url, this.reconnects); }
  }
  return { HubConnectionBuilder };
})();
