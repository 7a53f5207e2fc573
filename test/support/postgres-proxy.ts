/** A proxy before a PostgreSQL server that stops a connection where it is told to: a moment that a test can hold. */
import {type AddressInfo, connect, createServer, type Socket} from 'node:net';
import type {PostgresHandle} from './postgres-handle.ts';

/** Something that passes through a connection. */
export interface ProxiedMessage {
  from: 'client' | 'server';
  /** The database that the connection asked for. */
  database: string;
  /** How many connections to that database came before this one. */
  earlier: number;
  /** As Latin-1; the client's first is empty: it makes the connection. */
  text: string;
  /** The connection's `client_port` in pg_stat_activity. */
  clientPort: number;
}

export interface PostgresProxy {
  /** As the server's own, by way of the proxy. */
  url(database: string): string;
  /** Resolves when a connection was stopped, to the first message that is kept back. */
  stopped: Promise<ProxiedMessage>;
  /** Lets the stopped connections go on. */
  release(): void;
  /** Closes every connection, on both sides, and the proxy. */
  stop(): Promise<void>;
}

/** @param shouldStop is asked about everything that passes; true stops that direction of the connection before it */
export async function startPostgresProxy(
  server: PostgresHandle,
  shouldStop: (message: ProxiedMessage) => boolean,
): Promise<PostgresProxy> {
  const sockets = new Set<Socket>();
  const held: (() => void)[] = [];
  const counts = new Map<string, number>();
  let isReleased = false;
  let tellStopped: (message: ProxiedMessage) => void = () => undefined;
  const stopped = new Promise<ProxiedMessage>((resolve) => {
    tellStopped = resolve;
  });

  const serve = (client: Socket) => {
    const upstream = connect(server.port, '127.0.0.1');
    let about: Pick<ProxiedMessage, 'database' | 'earlier'> | undefined;
    const relay = (from: ProxiedMessage['from'], source: Socket, other: Socket) => {
      sockets.add(source);
      source.on('error', () => undefined);
      source.on('close', () => {
        sockets.delete(source);
        // What a server says last, it says before it closes.
        other.destroySoon();
      });
      source.on('data', (bytes: Buffer) => {
        if (about === undefined && isCancellation(bytes)) return void other.write(bytes);
        const isFirst = about === undefined;
        about ??= connectionTo(databaseOf(bytes));
        const text = isFirst ? '' : bytes.toString('latin1');
        const message = {...about, from, text, clientPort: upstream.localPort ?? 0};
        const pass = () => void other.write(bytes);
        if (isReleased || !shouldStop(message)) return pass();
        source.pause();
        held.push(() => {
          pass();
          source.resume();
        });
        tellStopped(message);
      });
    };
    relay('client', client, upstream);
    relay('server', upstream, client);
  };
  const connectionTo = (database: string) => {
    const earlier = counts.get(database) ?? 0;
    counts.set(database, earlier + 1);
    return {database, earlier};
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

/** What a program sends by a connection of its own when it is ended in the middle of a query (CancelRequest). */
function isCancellation(bytes: Buffer): boolean {
  return bytes.length === 16 && bytes.readUInt32BE(4) === 80877102;
}

/** The startup message: length, protocol, then names and values, each with a zero byte after it. */
function databaseOf(startup: Buffer): string {
  const words = startup.subarray(8).toString().split('\0');
  const at = words.indexOf('database');
  if (at < 0 || at % 2 !== 0) throw new Error('The first message of a connection names no database.');
  return words[at + 1] ?? '';
}
