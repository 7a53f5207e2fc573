import {Duplex} from 'node:stream';
import {promisify} from 'node:util';
import {zstdDecompress} from 'node:zlib';
import {messageOf} from '../errors.ts';
import {blockBytes} from '../streams/block-pool.ts';

/** Of what a frame holds, and of a frame itself, in bytes. Ours hold 1 MiB; longer ones are no backup of this program's. */
const mostBytes = 4 * blockBytes;
/** With room for what a frame of ours holds, and some more: zstd then does it in one go, up to the checksum at its end. */
const chunkSize = blockBytes + 4096;
/** Frames under way at once. */
const concurrency = 3;

const magic = 0xfd2fb528;

const decompress = promisify(zstdDecompress);

/**
 * A fresh stage that decompresses frames of zstd, one after another, each by itself: Node's own stream ends after a frame that input
 * follows, or whose checksum comes in two pieces, in Node 22 and 24 (nodejs/node#64741).
 * @throws (the stream) an error with a code of zstd's when the stream is damaged or cut off
 */
export function zstdDecompressor(): Duplex {
  let held: Buffer = Buffer.alloc(0);
  let isEmpty = true;
  /** Called when the reader takes more. */
  let wake = () => {};

  const stage = new Duplex({
    writableHighWaterMark: blockBytes,
    readableHighWaterMark: blockBytes,
    write(chunk: Buffer, _encoding, done) {
      take(chunk).then(() => done(), done);
    },
    final(done) {
      if (isEmpty || held.length > 0) return done(damaged('it ends within a frame'));
      stage.push(null);
      done();
    },
    read() {
      wake();
    },
  });

  async function take(chunk: Buffer): Promise<void> {
    let rest = held.length > 0 ? Buffer.concat([held, chunk]) : chunk;
    for (let frames: Buffer[] = []; ; frames = []) {
      while (frames.length < concurrency) {
        const length = frameLength(rest);
        if (length === undefined) break;
        frames.push(rest.subarray(0, length));
        rest = rest.subarray(length);
      }
      if (frames.length === 0) break;
      isEmpty = false;
      for (const bytes of await Promise.all(frames.map(decompressed))) await pass(bytes);
    }
    if (rest.length > mostBytes) throw damaged('a frame is too long');
    held = rest;
  }

  async function pass(bytes: Buffer): Promise<void> {
    if (bytes.length === 0 || stage.push(bytes)) return;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }

  return stage;
}

async function decompressed(frame: Buffer): Promise<Buffer> {
  try {
    return await decompress(frame, {chunkSize, maxOutputLength: mostBytes});
  } catch (error) {
    throw damaged(messageOf(error));
  }
}

function damaged(message: string): Error {
  return Object.assign(new Error(message), {code: 'ZSTD_error_corruption_detected'});
}

/**
 * How long the frame is that the bytes begin with (RFC 8878, 3.1.1); undefined when more of them are needed to say.
 * @throws an error with a code of zstd's when that is no frame
 */
function frameLength(bytes: Buffer): number | undefined {
  if (bytes.length < 5) return undefined;
  if (bytes.readUInt32LE(0) !== magic) throw damaged('a frame begins otherwise');
  const descriptor = bytes.readUInt8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const hasChecksum = (descriptor & 0x04) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  let at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
  for (let isLast = false; !isLast; ) {
    if (bytes.length < at + 3) return undefined;
    const header = bytes.readUIntLE(at, 3);
    isLast = (header & 1) === 1;
    const type = (header >> 1) & 3;
    if (type === 3) throw damaged('a block of a frame is of no known type');
    // A block of type 1 is one byte, which stands for as many.
    at += 3 + (type === 1 ? 1 : header >> 3);
  }
  const end = at + (hasChecksum ? 4 : 0);
  return bytes.length < end ? undefined : end;
}
