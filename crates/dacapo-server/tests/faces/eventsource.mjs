// Prints each event that it gets from the address in the environment, as a line of JSON; ends when its
// input does. Which events it listens for is in the environment, too.
import { EventSource } from "eventsource";

const print = (told) => console.log(JSON.stringify(told));
const source = new EventSource(process.env.ADDRESS);
source.onopen = () => print({ opened: true });
for (const name of process.env.NAMES.split(",")) {
  source.addEventListener(name, (event) => {
    // An error of the connection has no data, and it connects again by itself.
    if (event.data === undefined) return;
    print({ name: event.type, id: event.lastEventId, data: event.data });
  });
}
process.stdin.resume();
process.stdin.on("end", () => process.exit());
