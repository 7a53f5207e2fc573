/**
 * What is kept with the object of a file: its type, size, time and a keyed digest. Whoever may write to the bucket may
 * change metadata, so they are authenticated together with the object's key; nothing of them is used unless that holds.
 * With a hidden name, all of it, with the name, is encrypted. docs/FILES.md describes both forms.
 */
import {createCipheriv, createDecipheriv, createHmac, type KeyObject, randomBytes, timingSafeEqual} from 'node:crypto';
import * as z from 'zod';
import {nameOf} from './file-names.ts';

/** The keys for files that are derived from one encryption key. */
export interface FileKeys {
  /** Of the encryption key. */
  fingerprint: string;
  /** For digests of contents. */
  digests: KeyObject;
  /** For names hidden in keys. */
  names: KeyObject;
  /** For the seal of metadata. */
  seal: KeyObject;
  /** For metadata with a name in them. */
  hidden: KeyObject;
}

export interface FileFacts {
  /** `<dir>/<path>`. */
  name: string;
  contentType: string;
  sizeBytes: number;
  /** Seconds since 1970 with nine decimals: what a file system keeps. */
  mtime: string;
  /** HMAC-SHA-256 of the content, hex, under the key of that fingerprint. */
  digest: string;
  keyFingerprint: string;
  isHidden: boolean;
}

const format = '1';
const ivBytes = 12;
const tagBytes = 16;
/** Swift takes values of 256 bytes. */
const pieceBytes = 240;

const factsSchema = z.object({
  name: z.string().min(1),
  contentType: z.string(),
  sizeBytes: z.int().nonnegative(),
  mtime: z.string().regex(/^-?\d+\.\d{9}$/),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
});

function sealOf(objectKey: string, {contentType, sizeBytes, mtime, digest}: FileFacts, keys: FileKeys): Buffer {
  const text = JSON.stringify([format, objectKey, contentType, sizeBytes, mtime, digest]);
  return createHmac('sha256', keys.seal).update(text).digest();
}

/** @param keys of the fingerprint that the facts name */
export function encodeMetadata(objectKey: string, facts: FileFacts, keys: FileKeys): Record<string, string> {
  if (facts.isHidden) return encodeHidden(objectKey, facts, keys);
  return {
    'loma-format': format,
    'loma-key': keys.fingerprint,
    'content-type': facts.contentType,
    'original-size': String(facts.sizeBytes),
    'original-mtime': facts.mtime,
    digest: facts.digest,
    seal: sealOf(objectKey, facts, keys).toString('hex'),
  };
}

function encodeHidden(objectKey: string, facts: FileFacts, keys: FileKeys): Record<string, string> {
  const iv = randomBytes(ivBytes);
  const cipher = createCipheriv('aes-256-gcm', keys.hidden, iv).setAAD(Buffer.from(objectKey));
  const {name, contentType, sizeBytes, mtime, digest} = facts;
  const text = JSON.stringify({name, contentType, sizeBytes, mtime, digest});
  const sealed = Buffer.concat([iv, cipher.update(text), cipher.final(), cipher.getAuthTag()]).toString('base64url');
  const pieces = Array.from({length: Math.ceil(sealed.length / pieceBytes)}, (_, index) => [
    `hidden-${index}`,
    sealed.slice(index * pieceBytes, (index + 1) * pieceBytes),
  ]);
  return {'loma-format': format, 'loma-key': keys.fingerprint, ...Object.fromEntries(pieces)};
}

export type MetadataReading =
  | {is: 'facts'; facts: FileFacts; keys: FileKeys}
  /** None of ours: stored by the older procedure, or copied by a program that left them behind. */
  | {is: 'none'}
  /** `missingKey`: the fingerprint that they name, of a key that is not at hand. */
  | {is: 'invalid'; reason: string; missingKey?: string};

/** Reads metadata, and believes them only when a key of ours sealed them for this object. */
export function decodeMetadata(
  objectKey: string,
  metadata: Readonly<Record<string, string>>,
  allKeys: readonly FileKeys[],
): MetadataReading {
  if (metadata['loma-format'] === undefined) return {is: 'none'};
  if (metadata['loma-format'] !== format) {
    return {is: 'invalid', reason: 'its metadata are of a form that this version does not know'};
  }
  const missingKey = metadata['loma-key'] ?? '';
  const keys = allKeys.find(({fingerprint}) => fingerprint === missingKey);
  if (!keys) return {is: 'invalid', reason: `its metadata were sealed with key ${missingKey}, not at hand`, missingKey};
  const facts = metadata['hidden-0'] === undefined ? readable(objectKey, metadata) : hidden(objectKey, metadata, keys);
  const parsed = factsSchema.safeParse(facts);
  if (!parsed.success) return {is: 'invalid', reason: 'its metadata were altered, or belong to another object'};
  const found = {...parsed.data, keyFingerprint: keys.fingerprint, isHidden: metadata['hidden-0'] !== undefined};
  if (found.isHidden) return {is: 'facts', facts: found, keys};
  const seal = Buffer.from(metadata.seal ?? '', 'hex');
  const expected = sealOf(objectKey, found, keys);
  if (seal.length === expected.length && timingSafeEqual(seal, expected)) return {is: 'facts', facts: found, keys};
  return {is: 'invalid', reason: 'its metadata were altered, or belong to another object'};
}

function readable(objectKey: string, metadata: Readonly<Record<string, string>>): unknown {
  return {
    name: nameOf(objectKey),
    contentType: metadata['content-type'],
    sizeBytes: Number(metadata['original-size']),
    mtime: metadata['original-mtime'],
    digest: metadata.digest,
  };
}

function hidden(objectKey: string, metadata: Readonly<Record<string, string>>, keys: FileKeys): unknown {
  let text = '';
  for (let index = 0; metadata[`hidden-${index}`] !== undefined; index += 1) text += metadata[`hidden-${index}`];
  const sealed = Buffer.from(text, 'base64url');
  if (sealed.length < ivBytes + tagBytes) return undefined;
  try {
    const decipher = createDecipheriv('aes-256-gcm', keys.hidden, sealed.subarray(0, ivBytes))
      .setAAD(Buffer.from(objectKey))
      .setAuthTag(sealed.subarray(-tagBytes));
    return JSON.parse(
      Buffer.concat([decipher.update(sealed.subarray(ivBytes, -tagBytes)), decipher.final()]).toString(),
    );
  } catch {
    return undefined;
  }
}

/** How many bytes the store has to keep of them: names and values. */
export function metadataBytes(metadata: Readonly<Record<string, string>>): number {
  return Object.entries(metadata).reduce((sum, [name, value]) => sum + name.length + value.length, 0);
}

/** S3's and R2's limit. */
export const mostMetadataBytes = 8192;
