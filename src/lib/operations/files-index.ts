/**
 * The index of a directory whose names are hidden: which file each key is, sealed. A listing needs no request for each
 * object with it, and objects that went missing are noticed. It is no truth of its own: every object carries its name in
 * its metadata, and what the index lacks is read from there.
 */
import {pipeline} from 'node:stream/promises';
import * as z from 'zod';
import {timestampOf} from '../catalog/key-names.ts';
import {integrityError} from '../encrypt/frame-check.ts';
import {allKeys} from '../encrypt/keys.ts';
import {open} from '../encrypt/seal.ts';
import {sealWhole} from '../encrypt/seal-whole.ts';
import {BackupError, interruption} from '../errors.ts';
import type {FileFacts} from '../files/metadata.ts';
import {filePartSize} from '../upload/part-size.ts';
import type {ObjectStore} from '../upload/store.ts';
import type {FilesKeyring} from './files-objects.ts';

/** Beside the files, not among them. */
export const indexPrefix = 'loma-backup/file-index/';
/** Of indexes that did not open when others took their place. */
export const damagedIndexPrefix = 'loma-backup/damaged-file-index/';

const entrySchema = z.object({
  key: z.string(),
  name: z.string(),
  contentType: z.string(),
  sizeBytes: z.int().nonnegative(),
  mtime: z.string(),
  digest: z.string(),
  keyFingerprint: z.string(),
  isHidden: z.literal(true),
});

const suffix = '.encrypted';

function contextOf(directory: string) {
  return {objectKey: `${indexPrefix}${directory}${suffix}`, compression: 'none', content: 'file-index'};
}

/** The directories of a prefix of names that have an index. */
export async function* indexedDirectories(store: ObjectStore, namePrefix = ''): AsyncGenerator<string> {
  const slash = namePrefix.indexOf('/');
  const directoryPrefix = slash < 0 ? namePrefix : `${namePrefix.slice(0, slash)}${suffix}`;
  for await (const {key} of store.list(indexPrefix + directoryPrefix)) {
    const directory = key.slice(indexPrefix.length, -suffix.length);
    if (key.endsWith(suffix) && (slash < 0 || directory === namePrefix.slice(0, slash))) yield directory;
  }
}

/** @throws BackupError DECRYPTION_FAILED */
function readEntry(line: string, objectKey: string): z.infer<typeof entrySchema> {
  try {
    return entrySchema.parse(JSON.parse(line));
  } catch {
    throw integrityError(objectKey, 'it was opened, and a line of it is not of the form that this version knows');
  }
}

/** @throws BackupError when it does not open; an index that is not there is empty */
export async function readIndex(
  store: ObjectStore,
  directory: string,
  {encryption}: FilesKeyring,
  signal: AbortSignal | undefined,
): Promise<Map<string, FileFacts>> {
  const context = contextOf(directory);
  const entries = new Map<string, FileFacts>();
  try {
    await pipeline(
      store.get(context.objectKey, {signal}),
      open(allKeys(encryption), context),
      async (text: AsyncIterable<Buffer>) => {
        for await (const line of linesOf(text)) {
          const {key, ...facts} = readEntry(line, context.objectKey);
          entries.set(key, facts);
        }
      },
      signal ? {signal} : {},
    );
  } catch (error) {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    if (error instanceof BackupError && error.code === 'OBJECT_NOT_FOUND') return new Map();
    throw error;
  }
  return entries;
}

async function* linesOf(text: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = Buffer.alloc(0);
  for await (const chunk of text) {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      yield rest.subarray(0, end).toString();
      rest = rest.subarray(end + 1);
    }
  }
}

/**
 * The same for whoever will write the index anew: one that other keys than those at hand have sealed is not to be replaced.
 * @returns undefined when it is damaged
 * @throws BackupError WRONG_KEY, or of the store
 */
export async function readIndexToReplace(
  store: ObjectStore,
  directory: string,
  keys: FilesKeyring,
  signal: AbortSignal | undefined,
): Promise<Map<string, FileFacts> | undefined> {
  try {
    return await readIndex(store, directory, keys, signal);
  } catch (error) {
    if (error instanceof BackupError && error.code === 'DECRYPTION_FAILED') return undefined;
    if (error instanceof BackupError && error.code === 'WRONG_KEY')
      throw otherKeyOfNames(directory, error.reason ?? '');
    throw error;
  }
}

/** @param reason which key hid the names, and which are at hand */
export function otherKeyOfNames(directory: string, reason: string): BackupError {
  return new BackupError(`Names of ${directory}/ are hidden with a key that is not at hand`, {
    code: 'WRONG_KEY',
    kind: 'integrity',
    reason: `${reason}; with another key, every file would be stored once more, under another hidden name`,
    hint: 'Add the key with that fingerprint to PHI_ENCRYPTION_KEYS_PREVIOUS, or set PHI_ENCRYPTION_KEY to it. If it is lost for good: docs/FILES.md, "A new key".',
  });
}

/**
 * Keeps what is there as the index under another key.
 * @returns that key
 */
export async function keepDamagedIndex(
  store: ObjectStore,
  directory: string,
  now: Date,
  signal: AbortSignal | undefined,
): Promise<string> {
  const {objectKey} = contextOf(directory);
  const kept = `${damagedIndexPrefix}${directory}-${timestampOf(now)}.encrypted`;
  const {sizeBytes = 0} = (await store.head(objectKey)) ?? {};
  await store.put(kept, store.get(objectKey, {signal}), {partSizeBytes: filePartSize(sizeBytes), signal});
  return kept;
}

/** In place of the one before. */
export async function writeIndex(
  store: ObjectStore,
  directory: string,
  entries: ReadonlyMap<string, FileFacts>,
  {encryption}: FilesKeyring,
): Promise<void> {
  const context = contextOf(directory);
  const lines = [...entries].map(([key, facts]) => `${JSON.stringify({key, ...facts})}\n`);
  const sealed = sealWhole(Buffer.from(lines.join('')), encryption.current, context);
  await store.replace(context.objectKey, sealed, 'application/octet-stream');
}
