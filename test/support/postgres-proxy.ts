/** A proxy before a PostgreSQL server that stops a connection where it is told to: a moment that a test can hold. */
import {type AddressInfo, connect, createServer, type Socket} from 'node:net';
import type {PostgresHandle} from './postgres-handle.ts';

/** Something that a client sends. */
export interface ClientMessage {
  /** The database that the connection asked for. */
  database: string;
  /** How many connections to that database came before this one. */
  earlier: number;
  /** As Latin-1; empty when the connection is made. */
  text: string;
}

export interface PostgresProxy {
  /** As the server's own, by way of the proxy. */
  url(database: string): string;
  /** Resolves when a connection was stopped: what it sends is kept from the server. */
  stopped: Promise<void>;
  /** Lets the stopped connections go on. */
  release(): void;
  /** Closes every connection, on both sides, and the proxy. */
  stop(): Promise<void>;
}

/** @param shouldStop is asked about everything that a client sends; true stops that connection before it */
export async function startPostgresProxy(
  server: PostgresHandle,
  shouldStop: (message: ClientMessage) => boolean,
): Promise<PostgresProxy> {
  const sockets = new Set<Socket>();
  const held: (() => void)[] = [];
  const counts = new Map<string, number>();
  let isReleased = false;
  let tellStopped: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => {
    tellStopped = resolve;
  });

  const serve = (client: Socket) => {
    const upstream = connect(server.port, '127.0.0.1');
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    upstream.pipe(client);
    let database: string | undefined;
    let earlier = 0;
    client.on('data', (bytes: Buffer) => {
      let text = bytes.toString('latin1');
      if (database === undefined) {
        database = databaseOf(bytes);
        earlier = counts.get(database) ?? 0;
        counts.set(database, earlier + 1);
        text = '';
      }
      const pass = () => void upstream.write(bytes);
      if (isReleased || !shouldStop({database, earlier, text})) return pass();
      client.pause();
      held.push(() => {
        pass();
        client.resume();
      });
      tellStopped();
    });
  };
  const proxy = createServer(serve);
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const {port} = proxy.address() as AddressInfo;
  return {
    url(database) {
      const url = new URL(server.url(database, {params: {sslmode: 'disable', gssencmode: 'disable'}}));
      url.port = String(port);
      return url.href;
    },
    stopped,
    release() {
      isReleased = true;
      for (const go of held.splice(0)) go();
    },
    async stop() {
      const closed = new Promise((resolve) => proxy.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** The startup message: length, protocol, then names and values, each with a zero byte after it. */
function databaseOf(startup: Buffer): string {
  const words = startup.subarray(8).toString().split('\0');
  const at = words.indexOf('database');
  if (at < 0 || at % 2 !== 0) throw new Error('The first message of a connection names no database.');
  return words[at + 1] ?? '';
}
