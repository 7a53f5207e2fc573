/**
 * The index of a directory whose names are hidden: which file each key is, sealed. A listing needs no request for each
 * object with it, and objects that went missing are noticed. It is no truth of its own: every object carries its name in
 * its metadata, and what the index lacks is read from there.
 */
import {pipeline} from 'node:stream/promises';
import * as z from 'zod';
import {integrityError} from '../encrypt/frame-check.ts';
import {allKeys} from '../encrypt/keys.ts';
import {open} from '../encrypt/seal.ts';
import {sealWhole} from '../encrypt/seal-whole.ts';
import {BackupError, interruption} from '../errors.ts';
import type {FileFacts} from '../files/metadata.ts';
import type {ObjectStore} from '../upload/store.ts';
import type {FilesKeyring} from './files-objects.ts';

/** Beside the files, not among them. */
export const indexPrefix = 'loma-backup/file-index/';

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

function contextOf(directory: string) {
  return {objectKey: `${indexPrefix}${directory}.encrypted`, compression: 'none', content: 'file-index'};
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
