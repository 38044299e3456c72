// What happens in a browser while servers die and come back; the argument says which story is told. The
// environment has the browser, the server's program, and a directory for it.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const net = require("node:net");
const { createInterface } = require("node:readline");
const { chromium } = require("playwright-core");

const { BROWSER, SERVER, DIRECTORY, SCREENSHOTS } = process.env;

// What must happen at all happens by then, in milliseconds.
const SOON = 60_000;

// They end with this process, however it ends.
const started = new Set();
process.on("exit", () => started.forEach((server) => server.kill("SIGKILL")));

// A server, which can be killed and comes back at the same address.
class Server {
  async start() {
    const address = this.url ? new URL(this.url).host : "127.0.0.1:0";
    this.process = spawn(SERVER, [DIRECTORY, address], { stdio: ["ignore", "pipe", "inherit"] });
    started.add(this.process);
    for await (const line of createInterface({ input: this.process.stdout })) {
      if (line.startsWith("http://")) {
        this.url = line;
        return this;
      }
    }
    throw new Error(`${SERVER} did not say where it is`);
  }

  async kill() {
    const dead = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await dead;
  }
}

// The way of one window to the server, which can be cut.
class Wire {
  cut = false;
  sockets = new Set();

  async to(server) {
    const port = new URL(server.url).port;
    const wire = net.createServer((near) => {
      if (this.cut) return near.destroy();
      const far = net.connect(port, "127.0.0.1");
      for (const [one, other] of [[near, far], [far, near]]) {
        this.sockets.add(one);
        one.pipe(other);
        one.on("error", () => other.destroy());
        one.on("close", () => {
          this.sockets.delete(one);
          other.destroy();
        });
      }
    });
    await new Promise((resolve) => wire.listen(0, "127.0.0.1", resolve));
    this.url = server.url.replace(`:${port}`, `:${wire.address().port}`);
    this.close = () => {
      this.goAway();
      wire.close();
    };
    return this;
  }

  goAway() {
    this.cut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  comeBack() {
    this.cut = false;
  }
}

// Waits until a page shows exactly these texts, and no others between or behind them.
async function shows(page, selector, texts) {
  const found = () => page.locator(selector).allInnerTexts();
  const deadline = Date.now() + SOON;
  while (JSON.stringify(await found()) !== JSON.stringify(texts)) {
    if (Date.now() > deadline) assert.deepEqual(await found(), texts);
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
}

const stories = {
  async event_source(browser) {
    const server = await new Server().start();
    const page = await browser.newPage();
    await page.goto(server.url);
    // Begins as a window that is new, and stays.
    const lines = [];
    const unsure = [];
    const say = async (text) => {
      const body = new URLSearchParams({ name: "Ada", text });
      try {
        const said = await fetch(server.url, { method: "POST", body });
        assert.equal(said.status, 204);
        lines.push(`Ada: ${text}`);
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        // The server has died: it may have been said or not.
        unsure.push(`Ada: ${text}`);
      }
    };
    let n = 0;
    for (let kill = 0; kill < 3; kill++) {
      for (let i = 0; i < 10; i++) await say(`${n++}`);
      await page.getByText(lines.at(-1), { exact: true }).waitFor();
      // In the midst of it.
      const saying = Promise.all(Array.from({ length: 50 }, () => say(`${n++}`)));
      await server.kill();
      await saying;
      await server.start();
    }
    await say("the end");
    await page.getByText("Ada: the end", { exact: true }).waitFor();
    const seen = await page.locator("#lines p").allInnerTexts();
    assert.equal(new Set(seen).size, seen.length, "a line is there twice");
    for (const line of lines) assert(seen.includes(line), `${line} was missed`);
    for (const line of seen) assert(lines.includes(line) || unsure.includes(line), `nobody said ${line}`);
    // Who comes now sees the same, in the same order.
    const other = await browser.newPage();
    await other.goto(server.url);
    await shows(other, "#lines p", seen);
    await server.kill();
  },

  async phoenix_chat(browser) {
    const server = await new Server().start();
    const wire = await new Wire().to(server);
    const context = await browser.newContext({ viewport: { width: 960, height: 660 }, locale: "en-GB" });
    const hosts = new Set();
    context.on("request", (request) => hosts.add(new URL(request.url()).protocol + new URL(request.url()).hostname));
    const open = async (url, name) => {
      const page = await context.newPage();
      page.setDefaultTimeout(SOON);
      page.on("websocket", (socket) => hosts.add("ws:" + new URL(socket.url()).hostname));
      await page.goto(url);
      await page.getByRole("textbox", { name: "What are you called?" }).fill(name);
      await page.getByRole("button", { name: "Enter" }).click();
      await page.getByRole("status").getByText("Connected").waitFor();
      return page;
    };
    const say = async (page, body) => {
      await page.getByRole("textbox", { name: "Message" }).fill(body);
      await page.getByRole("button", { name: "Send" }).click();
      // It is cleared once the server has it.
      await page.waitForFunction(() => document.getElementById("body").value === "");
    };
    const screenshot = async (page, name) => {
      if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/${name}.png` });
    };
    const bodies = [];
    const both = async (...windows) => {
      for (const window of windows) await shows(window, "#lines .body", bodies);
    };

    const ann = await open(server.url, "Ann");
    const bob = await open(wire.url, "Bob");
    for (const [page, body] of [
      [ann, "Good morning! Is the orchestra complete?"],
      [bob, "Almost: the second oboe is stuck on a train."],
      [ann, "Then we begin at bar 40, and go da capo when she is here."],
    ]) {
      await say(page, body);
      bodies.push(body);
      await both(ann, bob);
    }
    await shows(ann, "#there li", ["Ann (you)", "Bob"]);
    await shows(bob, "#there li", ["Ann", "Bob (you)"]);

    wire.goAway();
    await bob.getByRole("status").getByText("Offline").waitFor();
    assert(await bob.getByRole("button", { name: "Send" }).isDisabled());
    await shows(ann, "#there li", ["Ann (you)"]);
    for (const body of ["Bob seems to be in the tunnel too.", "We have reached the trio.", "She is here! From the top."]) {
      await say(ann, body);
      bodies.push(body);
    }
    await shows(bob, "#lines .body", bodies.slice(0, 3));
    await screenshot(bob, "offline");

    wire.comeBack();
    await bob.getByRole("status").getByText("Connected").waitFor();
    await both(ann, bob);
    await shows(bob, "#lines .note", ["While you were away"]);
    await shows(ann, "#lines .note", []);
    await shows(ann, "#there li", ["Ann (you)", "Bob"]);
    await say(bob, "I have missed nothing.");
    bodies.push("I have missed nothing.");
    await both(ann, bob);

    const again = await open(server.url, "Bob");
    await both(again);
    await shows(ann, "#there li", ["Ann (you)", "Bob · 2 windows"]);
    await screenshot(bob, "chat");
    await again.close();
    await shows(ann, "#there li", ["Ann (you)", "Bob"]);

    await server.kill();
    for (const window of [ann, bob]) await window.getByRole("status").getByText("Offline").waitFor();
    await shows(ann, "#there li", ["Ann (you)", "Bob"]);
    await server.start();
    for (const window of [ann, bob]) await window.getByRole("status").getByText("Connected").waitFor();
    await say(ann, "The server was killed?");
    bodies.push("The server was killed?");
    await both(ann, bob);
    await shows(ann, "#there li", ["Ann (you)", "Bob"]);
    await shows(bob, "#there li", ["Ann", "Bob (you)"]);
    await both(await open(server.url, "Cleo"));

    assert.deepEqual([...hosts].sort(), ["http:127.0.0.1", "ws:127.0.0.1"], "it asks nobody but its server");
    wire.close();
    await server.kill();
  },
};

(async () => {
  const browser = await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox"] });
  try {
    await stories[process.argv[1]](browser);
  } finally {
    await browser.close();
  }
  process.exit();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
