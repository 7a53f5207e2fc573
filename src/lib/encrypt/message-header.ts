/**
 * The head of a message of the AWS Encryption SDK, format version 2, read without a key: whose key opens it, and where
 * its frames begin. Source: "AWS Encryption SDK message format reference", Header structure, version 2.
 */

/** Message format version 2, algorithm suite 0x0478: AES-256-GCM, HKDF-SHA-512, key commitment, no signature. */
export const formatVersion = 0x02;
export const algorithmSuite = 0x0478;

/** The first bytes of every object that this program seals. */
export const magic = Buffer.from([formatVersion, algorithmSuite >> 8, algorithmSuite & 0xff]);

export interface MessageHeader {
  /** Of the whole header with its authentication tag, in bytes: the first frame begins here. */
  length: number;
  /** Plaintext bytes in each frame but the last. */
  frameLength: number;
  /** Not authenticated until the message is opened. */
  context: Readonly<Record<string, string>>;
  /** The wrapping keys, each by namespace and name. */
  wrappedKeys: readonly {namespace: string; name: string}[];
}

/** Longer headers are refused: ours are under 2 KiB, and memory must not depend on what a stored object claims. */
export const longestHeader = 1 << 16;

/** What `parseHeader` found: a header, the need for more bytes, or something that is no message of ours. */
export type HeaderReading = {is: 'header'; header: MessageHeader} | {is: 'short'} | {is: 'foreign'; reason: string};

class TooShort extends Error {}

/** Reads big-endian numbers and counted fields one after another. */
class Reader {
  readonly #bytes: Buffer;
  position = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(length: number): Buffer {
    if (this.position + length > this.#bytes.length) throw new TooShort();
    this.position += length;
    return this.#bytes.subarray(this.position - length, this.position);
  }

  number(length: 1 | 2 | 4): number {
    return this.take(length).readUIntBE(0, length);
  }

  counted(): Buffer {
    return this.take(this.number(2));
  }
}

/** Reads the header at the start of `bytes`. */
export function parseHeader(bytes: Buffer): HeaderReading {
  const start = bytes.subarray(0, magic.length);
  if (!magic.subarray(0, start.length).equals(start)) {
    return {is: 'foreign', reason: 'it does not begin as a sealed object does'};
  }
  const reader = new Reader(bytes);
  try {
    reader.take(magic.length);
    reader.take(32); // message id
    const context = parseContext(reader.counted());
    const count = reader.number(2);
    const wrappedKeys: {namespace: string; name: string}[] = [];
    for (let index = 0; index < count; index += 1) {
      const namespace = reader.counted().toString();
      // A raw AES keyring's provider info: the key's name, then tag length (4), IV length (4) and IV (12).
      const info = reader.counted();
      reader.counted();
      wrappedKeys.push({namespace, name: info.subarray(0, Math.max(0, info.length - 20)).toString()});
    }
    const contentType = reader.number(1);
    if (contentType !== 2) return {is: 'foreign', reason: `its content type is ${contentType}, not framed`};
    const frameLength = reader.number(4);
    if (frameLength === 0) return {is: 'foreign', reason: 'its frame length is 0'};
    reader.take(32); // commitment key
    reader.take(16); // header authentication tag
    return {is: 'header', header: {length: reader.position, frameLength, context, wrappedKeys}};
  } catch (error) {
    if (!(error instanceof TooShort)) throw error;
    return bytes.length >= longestHeader ? {is: 'foreign', reason: 'its header is too long'} : {is: 'short'};
  }
}

function parseContext(bytes: Buffer): Record<string, string> {
  const context: Record<string, string> = {};
  if (bytes.length === 0) return context;
  const reader = new Reader(bytes);
  const count = reader.number(2);
  for (let index = 0; index < count; index += 1) {
    const name = reader.counted().toString();
    context[name] = reader.counted().toString();
  }
  return context;
}
