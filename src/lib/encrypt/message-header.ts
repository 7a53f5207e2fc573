/**
 * The head of a message of the AWS Encryption SDK, format version 2, read without a key: whose key opens it, and where
 * its frames begin. Source: "AWS Encryption SDK message format reference", Header structure, version 2.
 */

import {keyNamespace} from './keys.ts';

/** Message format version 2, algorithm suite 0x0478: AES-256-GCM, HKDF-SHA-512, key commitment, no signature. */
export const formatVersion = 0x02;
export const algorithmSuite = 0x0478;

/** The first bytes of every object that this program seals. */
export const magic = Buffer.from([formatVersion, algorithmSuite >> 8, algorithmSuite & 0xff]);

/** A data key, wrapped under the key of that namespace and name. */
export interface WrappedKey {
  namespace: string;
  name: string;
  /** Provider info, as it stands in a header: the name, and what else the wrapping needs. */
  info: Buffer;
  wrapped: Buffer;
}

/** Length of what follows the key's name in a raw AES keyring's provider info: tag length (4), IV length (4), IV (12). */
const aesInfoBytes = 20;

/** The name of the wrapping key: a raw RSA keyring's provider info is the name alone. */
export function wrappingKeyName(namespace: string, info: Buffer): string {
  return info
    .subarray(0, namespace === keyNamespace ? Math.max(0, info.length - aesInfoBytes) : info.length)
    .toString();
}

export interface MessageHeader {
  /** Of the whole header with its authentication tag, in bytes: the first frame begins here. */
  length: number;
  /** Plaintext bytes in each frame but the last. */
  frameLength: number;
  /** Not authenticated until the message is opened. */
  context: Readonly<Record<string, string>>;
  wrappedKeys: readonly WrappedKey[];
  messageId: Buffer;
  commitment: Buffer;
  /** Everything that the tag authenticates: the header up to it. */
  authenticated: Buffer;
  tag: Buffer;
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
    const messageId = reader.take(32);
    const context = parseContext(reader.counted());
    const count = reader.number(2);
    const wrappedKeys: WrappedKey[] = [];
    for (let index = 0; index < count; index += 1) {
      const namespace = reader.counted().toString();
      const info = reader.counted();
      wrappedKeys.push({namespace, name: wrappingKeyName(namespace, info), info, wrapped: reader.counted()});
    }
    const contentType = reader.number(1);
    if (contentType !== 2) return {is: 'foreign', reason: `its content type is ${contentType}, not framed`};
    const frameLength = reader.number(4);
    if (frameLength === 0) return {is: 'foreign', reason: 'its frame length is 0'};
    const commitment = reader.take(32);
    const authenticated = bytes.subarray(0, reader.position);
    const tag = reader.take(16);
    const {position: length} = reader;
    return {
      is: 'header',
      header: {length, frameLength, context, wrappedKeys, messageId, commitment, authenticated, tag},
    };
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
