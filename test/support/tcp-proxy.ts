/** A proxy before PostgreSQL, which breaks connections as it is told: the network that a test can break. */

import type {AddressInfo} from 'node:net';
import {connect, createServer, type Socket} from 'node:net';
import type {Readable, Writable} from 'node:stream';
import {setTimeout as delay} from 'node:timers/promises';

/** One connection of a client, and what has passed through it. */
export interface ProxiedConnection {
  /** From 0, in the order in which they were opened. */
  number: number;
  bytesToServer: number;
  bytesToClient: number;
}

/** What goes wrong with a connection. */
export interface ConnectionFault {
  /** The bytes that are counted: of the client, or of the server. */
  toward: 'server' | 'client';
  /** So many pass; the next one meets the fault. */
  afterBytes: number;
  /** `cut`: closed in order. `reset`: both ends get an RST. A number: nothing passes for so many milliseconds. */
  then: 'cut' | 'reset' | number;
}

export interface TcpProxy {
  port: number;
  connections: ProxiedConnection[];
  /** How often a fault was applied: a test whose fault was never met proves nothing. */
  faults: number;
  stop(): Promise<void>;
}

export async function startTcpProxy(
  upstreamPort: number,
  faultOf: (connection: ProxiedConnection) => ConnectionFault | undefined = () => undefined,
): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    return socket;
  };
  const proxy: TcpProxy = {port: 0, connections: [], faults: 0, stop};
  const server = createServer({allowHalfOpen: true}, (accepted) => {
    const client = keep(accepted);
    const upstream = keep(connect({port: upstreamPort, host: '127.0.0.1', allowHalfOpen: true}));
    const connection = {number: proxy.connections.length, bytesToServer: 0, bytesToClient: 0};
    proxy.connections.push(connection);
    const fault = faultOf(connection);
    const end = (how: 'cut' | 'reset') => {
      for (const socket of [client, upstream]) how === 'cut' ? socket.destroy() : socket.resetAndDestroy();
    };
    const relay = (from: Socket, to: Socket, toward: 'server' | 'client') =>
      pass(from, to, {
        afterBytes: fault?.toward === toward ? fault.afterBytes : Number.POSITIVE_INFINITY,
        async act() {
          proxy.faults += 1;
          if (typeof fault?.then === 'number') await delay(fault.then);
          else if (fault) end(fault.then);
        },
        onBytes(length) {
          if (toward === 'server') connection.bytesToServer += length;
          else connection.bytesToClient += length;
        },
      }).catch(() => end('cut'));
    void relay(client, upstream, 'server');
    void relay(upstream, client, 'client');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  proxy.port = (server.address() as AddressInfo).port;
  return proxy;

  function stop(): Promise<void> {
    return new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  }
}

async function pass(
  from: Readable,
  to: Writable,
  {afterBytes, act, onBytes}: {afterBytes: number; act: () => Promise<void>; onBytes: (length: number) => void},
): Promise<void> {
  let left = afterBytes;
  const send = async (bytes: Buffer) => {
    if (bytes.length === 0) return;
    onBytes(bytes.length);
    await new Promise<void>((resolve, reject) => to.write(bytes, (error) => (error ? reject(error) : resolve())));
  };
  for await (const chunk of from as AsyncIterable<Buffer>) {
    if (chunk.length <= left) {
      left -= chunk.length;
      await send(chunk);
      continue;
    }
    await send(chunk.subarray(0, left));
    await act();
    await send(chunk.subarray(left));
    left = Number.POSITIVE_INFINITY;
  }
  to.end();
}
