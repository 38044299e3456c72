// Clients of the npm package `phoenix`, told what to do by lines of JSON, and telling what they see.

// Version 1.7 takes what browsers have, and node has not.
if (process.env.PACKAGE === "phoenix17") {
  globalThis.self = globalThis;
  globalThis.XMLHttpRequest = class {
    headers = {};
    aborter = new AbortController();
    open(method, url) {
      Object.assign(this, { method, url });
    }
    setRequestHeader(name, value) {
      this.headers[name] = value;
    }
    abort() {
      this.aborter.abort();
    }
    send(body) {
      const { method, headers } = this;
      fetch(this.url, { method, headers, body: body ?? undefined, signal: this.aborter.signal })
        .then(async (response) => [response.status, await response.text()])
        .catch(() => [0, ""])
        .then(([status, responseText]) => {
          Object.assign(this, { status, responseText, readyState: 4 });
          if (!this.aborter.signal.aborted) this.onreadystatechange();
        });
    }
  };
}

const { Socket, Presence, LongPoll } = require(process.env.PACKAGE);
const { WebSocket } = require("ws");

const tell = (told) => process.stdout.write(JSON.stringify(told) + "\n");
const shown = (payload) =>
  payload instanceof ArrayBuffer ? { bytes: [...new Uint8Array(payload)] } : payload;
const carried = (payload) =>
  payload && payload.bytes ? new Uint8Array(payload.bytes).buffer : payload;

const sockets = {};
const channels = {};

const does = {
  connect({ socket, transport, vsn, options }) {
    const all = {
      transport: transport === "longpoll" ? LongPoll : WebSocket,
      vsn,
      reconnectAfterMs: () => 10,
      rejoinAfterMs: () => 10,
      ...options,
    };
    if (vsn === "1.0.0") {
      all.encode = (message, done) => done(JSON.stringify(message));
      all.decode = (text, done) => done(JSON.parse(text));
    }
    const made = (sockets[socket] = new Socket(`ws://${process.env.ADDRESS}/socket`, all));
    made.onOpen(() => tell({ of: socket, event: "open" }));
    made.connect();
  },
  disconnect({ socket }) {
    sockets[socket].disconnect(() => tell({ of: socket, event: "disconnected" }));
  },
  // The server is to believe that the client has died.
  vanish({ socket }) {
    sockets[socket].disconnect = () => {};
    sockets[socket].reconnectTimer.scheduleTimeout = () => {};
    sockets[socket].conn.terminate();
  },
  // It dies without a word: nothing ends, and nothing more is read or sent.
  silence({ socket }) {
    const { conn, reconnectTimer } = sockets[socket];
    sockets[socket].sendHeartbeat = () => {};
    reconnectTimer.scheduleTimeout = () => {};
    if (conn.poll) conn.poll = () => {};
    else conn._socket.pause();
  },
  // While there is no server: it tries no more.
  gone({ socket }) {
    const { conn, reconnectTimer } = sockets[socket];
    clearTimeout(reconnectTimer.timer);
    reconnectTimer.scheduleTimeout = () => {};
    sockets[socket].connect = () => {};
    if (conn) conn.close();
    tell({ of: socket, event: "gone" });
  },
  join({ socket, channel, topic, params, presence }) {
    let seen = null;
    const wanted = () => (seen === null ? params || {} : { ...params, last_seen_id: seen });
    const made = (channels[channel] = sockets[socket].channel(topic, wanted));
    made.onMessage = (event, payload) => {
      const isPresence = event.startsWith("presence_");
      if (payload && typeof payload.offset === "number" && !event.startsWith("chan_reply")) seen = payload.offset;
      if (!event.startsWith("chan_reply") && event !== "phx_reply" && !isPresence)
        tell({ of: channel, event, payload: shown(payload) });
      return payload;
    };
    if (presence) {
      const all = new Presence(made);
      all.onSync(() => {
        const there = all.list((user, { metas }) => [user, metas.length, metas.at(-1).mood ?? null]);
        tell({ of: channel, event: "present", payload: there.sort() });
      });
    }
    const join = made.join();
    for (const status of ["ok", "error", "timeout"])
      join.receive(status, (response) => tell({ of: channel, event: `join ${status}`, payload: response }));
  },
  push({ channel, event, payload, times }) {
    for (let n = 0; n < (times ?? 1); n++) {
      const body = times ? { n } : carried(payload ?? {});
      const push = channels[channel].push(event, body);
      if (times) continue;
      for (const status of ["ok", "error", "timeout"])
        push.receive(status, (response) => tell({ of: channel, event: `push ${status}`, payload: shown(response) }));
    }
  },
  leave({ channel }) {
    const leave = channels[channel].leave();
    leave.receive("ok", () => tell({ of: channel, event: "left" }));
  },
};

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const told = JSON.parse(line);
    does[told.do](told);
  })
  .on("close", () => process.exit());
