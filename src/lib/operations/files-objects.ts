/** The objects of files: what each is, how it is opened, and whether it holds what a local file holds. */
import {createHmac} from 'node:crypto';
import type {Readable, Transform} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {integrityError} from '../encrypt/frame-check.ts';
import {allKeys, derivedKey, type EncryptionKey, type Keyring} from '../encrypt/keys.ts';
import {authenticateLegacy, openLegacy} from '../encrypt/legacy.ts';
import {magic} from '../encrypt/message-header.ts';
import {open} from '../encrypt/seal.ts';
import {interruption} from '../errors.ts';
import {mayBeHidden, nameOf} from '../files/file-names.ts';
import type {LocalFile} from '../files/local-file.ts';
import {decodeMetadata, type FileFacts, type FileKeys} from '../files/metadata.ts';
import type {ObjectStore} from '../upload/store.ts';

export function fileKeysOf(key: EncryptionKey): FileKeys {
  return {
    fingerprint: key.fingerprint,
    digests: derivedKey(key, 'loma-backup file digests 1'),
    names: derivedKey(key, 'loma-backup file names 1'),
    seal: derivedKey(key, 'loma-backup file metadata 1'),
    hidden: derivedKey(key, 'loma-backup hidden file metadata 1'),
  };
}

/** The keys that open files: encryption keys, and what is derived from each. */
export interface FilesKeyring {
  encryption: Keyring;
  current: FileKeys;
  /** The current ones first. */
  all: readonly FileKeys[];
}

export function filesKeyring(encryption: Keyring): FilesKeyring {
  const all = allKeys(encryption).map(fileKeysOf);
  return {encryption, current: fileKeysOf(encryption.current), all};
}

/** What an object says about the file in it. */
export interface FileObject {
  key: string;
  /** `<dir>/<path>`; the key's own when the real one was hidden and is lost. */
  name: string;
  /** Authenticated; undefined when there are none to be believed. */
  facts: FileFacts | undefined;
  /** Of the facts. */
  keys: FileKeys | undefined;
  /** Why its metadata are not believed. */
  problem: string | undefined;
  /** The fingerprint of the key that its metadata name, when that is not at hand. */
  missingKey?: string | undefined;
}

/**
 * Reads an object's metadata.
 * @param index names of hidden objects whose metadata were lost
 * @returns undefined when there is no such object, or it is none of ours
 */
export async function describeFile(
  store: ObjectStore,
  key: string,
  keys: readonly FileKeys[],
  index: ReadonlyMap<string, FileFacts> = new Map(),
): Promise<FileObject | undefined> {
  const name = nameOf(key);
  const info = name === undefined ? undefined : await store.head(key);
  if (name === undefined || !info) return undefined;
  const reading = decodeMetadata(key, info.metadata ?? {}, keys);
  if (reading.is === 'facts') {
    return {key, name: reading.facts.name, facts: reading.facts, keys: reading.keys, problem: undefined};
  }
  const problem = reading.is === 'invalid' ? reading.reason : undefined;
  const indexed = mayBeHidden(key) ? index.get(key) : undefined;
  return {
    key,
    name: indexed?.name ?? name,
    facts: indexed,
    keys: keys.find(({fingerprint}) => fingerprint === indexed?.keyFingerprint),
    problem,
    missingKey: reading.is === 'invalid' ? reading.missingKey : undefined,
  };
}

/** What the object of a file is by its first bytes. */
async function isSealed(store: ObjectStore, key: string, signal: AbortSignal | undefined): Promise<boolean> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.get(key, {length: magic.length, signal})) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).equals(magic);
}

export interface OpenedFile {
  /** Download, open: to be put at the start of a pipeline. */
  stages: [Readable, Transform];
  /** Of the older procedure: nothing binds its content to its name. */
  isLegacy: boolean;
}

/** Opens an object. One of the older procedure, which has no metadata, is read to its end first, to authenticate it. */
export async function openFile(
  store: ObjectStore,
  {key, facts}: Pick<FileObject, 'key' | 'facts'>,
  {encryption}: FilesKeyring,
  signal: AbortSignal | undefined,
): Promise<OpenedFile> {
  const keys = allKeys(encryption);
  const isLegacy = !facts && !(await isSealed(store, key, signal));
  const opened = isLegacy
    ? openLegacy(await authenticateLegacy(store.get(key, {signal}), keys, key), key)
    : open(keys, fileContext(key));
  return {stages: [store.get(key, {signal}), opened], isLegacy};
}

/** Opens an object to its end, and hands over its content piece by piece. */
async function passContent(
  store: ObjectStore,
  object: Pick<FileObject, 'key' | 'facts'>,
  keyring: FilesKeyring,
  signal: AbortSignal | undefined,
  take: (chunk: Buffer) => Promise<void> | void,
): Promise<void> {
  try {
    const {stages} = await openFile(store, object, keyring, signal);
    await pipeline(
      ...stages,
      async (content: AsyncIterable<Buffer>) => {
        for await (const chunk of content) await take(chunk);
      },
      signal ? {signal} : {},
    );
  } catch (error) {
    throw interruption(signal) ?? error;
  }
}

/**
 * Opens an object to its end and holds the content to what the object's metadata say, if there are any.
 * @param take is given the content; nothing of it may take effect before this has ended well
 * @returns bytes of the content
 * @throws BackupError of the store, or DECRYPTION_FAILED also when it is another content than the metadata say
 */
export async function readContent(
  store: ObjectStore,
  object: FileObject,
  keyring: FilesKeyring,
  signal: AbortSignal | undefined,
  take: (chunk: Buffer) => Promise<void> | void = () => undefined,
): Promise<number> {
  const {key, facts, keys} = object;
  const hash = keys && createHmac('sha256', keys.digests);
  let bytes = 0;
  await passContent(store, object, keyring, signal, (chunk) => {
    hash?.update(chunk);
    bytes += chunk.length;
    return take(chunk);
  });
  if (facts && (facts.sizeBytes !== bytes || hash?.digest('hex') !== facts.digest)) {
    throw integrityError(key, 'its content is another than its metadata say: an older object, or older metadata');
  }
  return bytes;
}

export function fileContext(objectKey: string) {
  return {objectKey, compression: 'none', content: 'file'};
}

/**
 * Whether an object, opened, is byte for byte what a local file holds.
 * @throws BackupError of the store, of the object (it does not open) or of the local file (it changed)
 */
export async function holdsSame(
  store: ObjectStore,
  object: Pick<FileObject, 'key' | 'facts'>,
  local: LocalFile,
  keys: FilesKeyring,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  let isEqual = true;
  let position = 0;
  await passContent(store, object, keys, signal, async (chunk) => {
    // Read on in any case: that it opens to its end is part of the answer.
    if (isEqual) isEqual = await local.holds(chunk, position);
    position += chunk.length;
  });
  local.requireUnchanged();
  return isEqual && position === local.sizeBytes;
}
