/** Feeding stages byte strings in pieces, and looking at what comes out. */
import {type Duplex, Readable, Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import fc from 'fast-check';

/** What a stage gave before it ended or failed. */
export interface Outcome {
  released: Buffer;
  error: unknown;
}

/** Runs bytes through stages, and gives what was released even if one of them fails. */
export async function tryFeed(chunks: Iterable<Buffer>, ...stages: Duplex[]): Promise<Outcome> {
  const released: Buffer[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      released.push(chunk);
      done();
    },
  });
  try {
    await pipeline([Readable.from(chunks, {objectMode: false}), ...stages, sink]);
    return {released: Buffer.concat(released), error: undefined};
  } catch (error) {
    return {released: Buffer.concat(released), error};
  }
}

/** Runs bytes through stages. Rejects if one of them fails. */
export async function feed(chunks: Iterable<Buffer>, ...stages: Duplex[]): Promise<Buffer> {
  const {released, error} = await tryFeed(chunks, ...stages);
  if (error !== undefined) throw error;
  return released;
}

/** Cuts bytes at places (each taken modulo the length); no piece is empty. */
export function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...new Set(places.map((place) => place % (bytes.length + 1))), bytes.length].sort((a, b) => a - b);
  const pieces: Buffer[] = [];
  let start = 0;
  for (const end of ends) {
    if (end > start) pieces.push(bytes.subarray(start, end));
    start = Math.max(start, end);
  }
  return pieces;
}

/** One byte a piece. */
export function bytewise(bytes: Buffer): Buffer[] {
  return Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
}

/** Places to cut at. */
export const cutPlaces = fc.array(fc.nat(), {maxLength: 40});

/** Rows of a table, as COPY writes them. */
export function text(length: number): Buffer {
  return Buffer.from('patient\t42\t\\N\n'.repeat(length / 14 + 1)).subarray(0, length);
}

/** Bytes that look random and are the same in every run. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < length; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state & 0xff;
  }
  return bytes;
}
