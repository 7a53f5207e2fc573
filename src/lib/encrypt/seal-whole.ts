/**
 * Seals what is in memory already, without a stream: the same message as `seal` makes, which the tests hold to the
 * library's byte for byte. For many small files, where the library's streams and keyrings take several times as long as the
 * encryption itself (docs/PERFORMANCE.md). Source of the format: "AWS Encryption SDK message format reference", version 2;
 * docs/FORMAT.md has the part that is used.
 */
import {createCipheriv, hkdfSync, randomBytes} from 'node:crypto';
import {contextRecord, type SealContext} from './frame-check.ts';
import {type EncryptionKey, keyNamespace} from './keys.ts';
import {algorithmSuite, formatVersion} from './message-header.ts';
import {frameBytes} from './seal.ts';

const cipherName = 'aes-256-gcm';
const ivBytes = 12;
const tagBytes = 16;
const framedContent = 2;
const finalMark = 0xffffffff;

/** What is random in a message. */
export interface SealRandomness {
  messageId: Buffer;
  dataKey: Buffer;
  /** Of the wrapped data key. */
  wrappingIv: Buffer;
}

function newRandomness(): SealRandomness {
  const bytes = randomBytes(64 + ivBytes);
  return {messageId: bytes.subarray(0, 32), dataKey: bytes.subarray(32, 64), wrappingIv: bytes.subarray(64)};
}

/** @param randomness for the tests alone: never twice the same; its data key is wiped */
export function sealWhole(
  content: Buffer,
  key: EncryptionKey,
  context: SealContext,
  {messageId, dataKey, wrappingIv} = newRandomness(),
): Buffer {
  const derive = (...label: (Buffer | string)[]) =>
    Buffer.from(hkdfSync('sha512', dataKey, messageId, Buffer.concat(label.map((part) => Buffer.from(part))), 32));
  const suite = number(algorithmSuite, 2);
  const messageKey = derive(suite, 'DERIVEKEY');
  const head = Buffer.concat([
    number(formatVersion, 1),
    suite,
    messageId,
    ...header(key, contextBytes(context), dataKey, wrappingIv),
    derive('COMMITKEY'),
  ]);
  const headerTag = encrypt(messageKey, Buffer.alloc(ivBytes), head, Buffer.alloc(0));
  const frames: Buffer[] = [];
  for (let sequence = 1; ; sequence += 1) {
    const plain = content.subarray((sequence - 1) * frameBytes, sequence * frameBytes);
    // As the library does it: after a whole frame there is always another one, if need be an empty one.
    const isFinal = plain.length < frameBytes;
    frames.push(...frame(messageKey, messageId, sequence, plain, isFinal));
    if (isFinal) break;
  }
  for (const secret of [messageKey, dataKey]) secret.fill(0);
  return Buffer.concat([head, ...headerTag, ...frames]);
}

/** Encryption context, the one wrapped data key, content type and frame length. */
function header(key: EncryptionKey, context: Buffer, dataKey: Buffer, iv: Buffer): Buffer[] {
  const info = Buffer.concat([Buffer.from(key.fingerprint), number(8 * tagBytes, 4), number(ivBytes, 4), iv]);
  return [
    counted(context),
    number(1, 2),
    counted(Buffer.from(keyNamespace)),
    counted(info),
    counted(Buffer.concat(key.use((bytes) => encrypt(bytes, iv, context, dataKey)))),
    number(framedContent, 1),
    number(frameBytes, 4),
  ];
}

function frame(key: Buffer, messageId: Buffer, sequence: number, plain: Buffer, isFinal: boolean): Buffer[] {
  const iv = Buffer.alloc(ivBytes);
  iv.writeUInt32BE(sequence, ivBytes - 4);
  const additional = Buffer.concat([
    messageId,
    Buffer.from(`AWSKMSEncryptionClient ${isFinal ? 'Final Frame' : 'Frame'}`),
    number(sequence, 4),
    Buffer.alloc(4),
    number(plain.length, 4),
  ]);
  return [
    ...(isFinal ? [number(finalMark, 4)] : []),
    number(sequence, 4),
    iv,
    ...(isFinal ? [number(plain.length, 4)] : []),
    ...encrypt(key, iv, additional, plain),
  ];
}

/** @returns ciphertext and tag */
function encrypt(key: Buffer, iv: Buffer, additional: Buffer, plain: Buffer): [Buffer, Buffer] {
  const cipher = createCipheriv(cipherName, key, iv, {authTagLength: tagBytes}).setAAD(additional);
  const sealed = cipher.update(plain);
  cipher.final();
  return [sealed, cipher.getAuthTag()];
}

/** As it stands in the header, and is authenticated with the wrapped data key: sorted by the names' bytes. */
function contextBytes(context: SealContext): Buffer {
  const members = Object.entries(contextRecord(context)).sort(([a], [b]) => (a < b ? -1 : 1));
  const texts = members.flat().map((text) => counted(Buffer.from(text)));
  return Buffer.concat([number(members.length, 2), ...texts]);
}

function counted(bytes: Buffer): Buffer {
  return Buffer.concat([number(bytes.length, 2), bytes]);
}

function number(value: number, bytes: 1 | 2 | 4): Buffer {
  const field = Buffer.alloc(bytes);
  field.writeUIntBE(value, 0, bytes);
  return field;
}
