/** Ports on loopback that nobody uses at the moment. Somebody may take them before a server does: callers try again. */
import {randomInt} from 'node:crypto';
import {createServer} from 'node:net';

/** Below the range from which Linux and macOS take the ports of outgoing connections. */
const range = {first: 20_000, last: 32_000};

/** The first of so many consecutive free ports. Random, so that test runs side by side rarely meet. */
export async function freePorts(count: number): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const first = randomInt(range.first, range.last - count);
    const ports = Array.from({length: count}, (_, index) => first + index);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`No ${count} consecutive free ports between ${range.first} and ${range.last}.`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen({port, host: '127.0.0.1', exclusive: true}, () => probe.close(() => resolve(true)));
  });
}
