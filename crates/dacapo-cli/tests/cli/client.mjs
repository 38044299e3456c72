// A client of the kind that the environment says, at its URL: what it sees goes out as a line of JSON
// each, what it is to send comes in as lines. Ends when its input does.
import { createInterface } from "node:readline";
import * as ws from "ws";

const { KIND, URL } = process.env;
const options = JSON.parse(process.env.OPTIONS);
const WebSocket = ws.WebSocket ?? ws.default;
const tell = (what) => console.log(JSON.stringify(what));

// An object with bytes stands for these.
const carried = (what) => (what.bytes ? new Uint8Array(what.bytes).buffer : what);

const kinds = {
  async eventsource() {
    const { EventSource } = await import("eventsource");
    const source = new EventSource(URL);
    for (const name of options.names) {
      source.addEventListener(name, ({ lastEventId, data }) => {
        // An error of the connection has no data, and it connects again by itself.
        if (data !== undefined) tell({ name, id: lastEventId, data });
      });
    }
    return () => {};
  },

  async websocket() {
    const socket = new WebSocket(URL, { headers: options.headers });
    socket.on("open", () => tell({ opened: true }));
    socket.on("message", (data) => tell({ said: JSON.parse(data) }));
    socket.on("close", (code, reason) => tell({ closed: code, reason: String(reason) }));
    socket.on("unexpected-response", (_, response) => tell({ refused: response.statusCode }));
    socket.on("error", () => {});
    return (line) => socket.send(line);
  },

  async phoenix() {
    const phoenix = await import("phoenix");
    const { Socket } = phoenix.default ?? phoenix;
    let seen = null;
    const soon = () => 20;
    const socket = new Socket(URL, {
      transport: WebSocket,
      reconnectAfterMs: soon,
      rejoinAfterMs: soon,
      ...options.socket,
    });
    socket.onClose(({ code }) => tell({ closed: code }));
    socket.connect();
    const channel = socket.channel(options.topic, () =>
      seen === null ? { from: "oldest" } : { last_seen_id: seen },
    );
    channel.on("message", (message) => {
      seen = message.offset;
      tell({ message: message.data });
    });
    channel
      .join()
      .receive("ok", () => tell({ joined: true }))
      .receive("error", ({ reason }) => tell({ refused: reason }));
    return (line) =>
      channel
        .push("publish", carried(JSON.parse(line)))
        .receive("ok", ({ offset }) => tell({ published: offset }))
        .receive("error", ({ reason }) => tell({ refused: reason }));
  },
};

const send = await kinds[KIND]();
const lines = createInterface({ input: process.stdin });
lines.on("line", send);
lines.on("close", () => process.exit());
