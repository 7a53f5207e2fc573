/** A proxy before an S3 server that misbehaves as it is told: the network that a test can break. */
import {
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request as requestUpstream,
  type ServerResponse,
} from 'node:http';
import type {AddressInfo} from 'node:net';
import {PassThrough, pipeline, Transform} from 'node:stream';
import {setTimeout as delay} from 'node:timers/promises';
import type {ObjectHandle} from './object-handle.ts';

export interface ProxiedRequest {
  method: string;
  /** Path and query, still encoded. */
  url: string;
  headers: Readonly<Record<string, string | string[] | undefined>>;
}

/**
 * What goes wrong with a request. `cutAfterBytes`: the connection is closed after so many bytes of the answer's body, with
 * -1 before its head. `answer`: the server is not asked at all. `hold`: there is never an answer.
 */
export type Fault =
  | {cutAfterBytes: number}
  | {answer: {status: number; code: string}}
  | {hold: true}
  /** The connection is reset when so many bytes of the request's body have come, and been passed on. */
  | {resetAfterBytes: number}
  /** Passed on so much later. */
  | {delayMs: number}
  /** The bodies of request and answer pass no faster. */
  | {bytesPerSecond: number}
  /** Something happens before the request is passed on. */
  | {before: () => Promise<void>};

export interface FaultyProxy extends ObjectHandle {
  /** Every request that arrived, in order. */
  requests: ProxiedRequest[];
  /** Requests that a fault was applied to: a test whose fault was never met proves nothing. */
  faulted: ProxiedRequest[];
  stop(): Promise<void>;
}

/**
 * Signatures hold: the host that the client signed for is passed on.
 * @param faultOf decides on each request
 */
export async function startProxy(
  server: ObjectHandle,
  faultOf: (request: ProxiedRequest) => Fault | undefined = () => undefined,
): Promise<FaultyProxy> {
  const requests: ProxiedRequest[] = [];
  const faulted: ProxiedRequest[] = [];
  const upstream = new URL(server.endpoint);

  const handle = async (incoming: IncomingMessage, answer: ServerResponse): Promise<void> => {
    const {method = '', url = '', headers} = incoming;
    const request = {method, url, headers};
    requests.push(request);
    const fault = faultOf(request);
    if (fault) faulted.push(request);
    if (fault && 'hold' in fault) return;
    if (fault && 'answer' in fault) {
      incoming.resume();
      const {status, code} = fault.answer;
      answer.writeHead(status, {'content-type': 'application/xml'});
      answer.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>as the test wants it</Message></Error>`);
      return;
    }
    if (fault && 'before' in fault) await fault.before();
    if (fault && 'delayMs' in fault) await delay(fault.delayMs);
    const pace = () => (fault && 'bytesPerSecond' in fault ? throttle(fault.bytesPerSecond) : new PassThrough());
    // `createServer` has answered an `Expect` by itself.
    const {expect: _, ...passedOn} = headers;
    const outgoing = requestUpstream({
      host: upstream.hostname,
      port: upstream.port,
      method,
      path: url,
      headers: passedOn,
      agent: false,
    });
    // Swift sends a body with its 404 to a HEAD, which is no answer any more.
    outgoing.on('error', () => method !== 'HEAD' && answer.destroy());
    outgoing.on('response', (reply) => {
      // The server does not want the rest of the body: on this connection no other request can follow it.
      if (!incoming.complete) reply.headers.connection = 'close';
      relay(reply, answer, {hasBody: method !== 'HEAD', ...(fault && 'cutAfterBytes' in fault ? fault : {})}, pace);
    });
    if (fault && 'resetAfterBytes' in fault) resetAfter(fault.resetAfterBytes, incoming, outgoing);
    else pipeline(incoming, pace(), outgoing, () => undefined);
  };
  const proxy = createServer((incoming, answer) => void handle(incoming, answer));
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const {port} = proxy.address() as AddressInfo;
  return {
    ...server,
    endpoint: `http://127.0.0.1:${port}`,
    requests,
    faulted,
    stop: () =>
      new Promise((resolve) => {
        proxy.close(() => resolve());
        proxy.closeAllConnections();
      }),
  };
}

function relay(
  reply: IncomingMessage,
  answer: ServerResponse,
  {hasBody, cutAfterBytes}: {hasBody: boolean; cutAfterBytes?: number},
  pace: () => Transform,
): void {
  const isLost = cutAfterBytes !== undefined && cutAfterBytes < 0;
  // Also when whoever asked has gone meanwhile.
  if (isLost || answer.destroyed) {
    reply.destroy();
    answer.destroy();
    return;
  }
  answer.writeHead(reply.statusCode ?? 502, reply.headers);
  if (!hasBody) {
    answer.end();
    return;
  }
  if (cutAfterBytes === undefined) {
    pipeline(reply, pace(), answer, () => undefined);
    return;
  }
  let left = cutAfterBytes;
  answer.flushHeaders();
  if (left === 0) answer.destroy();
  reply.on('data', (chunk: Buffer) => {
    if (answer.destroyed) return;
    const piece = chunk.subarray(0, left);
    left -= piece.length;
    // Destroyed when the piece is on its way: closing at once would throw it away.
    answer.write(piece, () => left === 0 && answer.destroy());
  });
  reply.on('end', () => left > 0 && answer.end());
}

function resetAfter(bytes: number, incoming: IncomingMessage, outgoing: ClientRequest): void {
  let left = bytes;
  const reset = () => {
    incoming.socket.resetAndDestroy();
    outgoing.destroy();
  };
  outgoing.flushHeaders();
  if (left === 0) reset();
  incoming.on('data', (chunk: Buffer) => {
    if (left === 0) return;
    const piece = chunk.subarray(0, left);
    left -= piece.length;
    outgoing.write(piece, () => left === 0 && reset());
  });
  // A body that is shorter has no such byte: it is cut at its end.
  incoming.on('end', () => left > 0 && reset());
}

function throttle(bytesPerSecond: number): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      void delay((chunk.length / bytesPerSecond) * 1000).then(() => done(null, chunk));
    },
  });
}
