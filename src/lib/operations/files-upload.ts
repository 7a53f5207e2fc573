/** From a local file to its object, and the proof that the object holds it. */
import {createHmac} from 'node:crypto';
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import type {EncryptionKey} from '../encrypt/keys.ts';
import {seal} from '../encrypt/seal.ts';
import {sealWhole} from '../encrypt/seal-whole.ts';
import {BackupError, interruption} from '../errors.ts';
import {contentTypeOf} from '../files/content-type.ts';
import type {LocalFile} from '../files/local-file.ts';
import {encodeMetadata, type FileFacts, metadataBytes, mostMetadataBytes} from '../files/metadata.ts';
import {filePartSize} from '../upload/part-size.ts';
import type {ObjectStore} from '../upload/store.ts';
import {describeFile, type FileObject, type FilesKeyring, fileContext, holdsSame} from './files-objects.ts';

/** A file up to this size is held in memory and stored with one request. */
export const smallBytes = 8 << 20;

export interface UploadTarget {
  store: ObjectStore;
  keys: FilesKeyring;
  key: string;
  /** `<dir>/<path>`. */
  name: string;
  isHidden: boolean;
  /** In place of an object that is there. */
  replaces: boolean;
  partConcurrency: number;
  signal: AbortSignal | undefined;
  /** Is told the running total of bytes of the file. */
  onBytes: (total: number) => void;
}

/**
 * Stores a file. A large one is read twice: its digest goes with the head of the upload; the second reading is held to it.
 * @throws BackupError FILE_CHANGED or FILE_UNREADABLE; of the store; then nothing was published
 */
export async function uploadFile(local: LocalFile, target: UploadTarget): Promise<FileFacts> {
  const {current, encryption} = target.keys;
  const isSmall = local.sizeBytes <= smallBytes;
  const content = isSmall ? await readWhole(local) : undefined;
  const digest = content
    ? createHmac('sha256', current.digests).update(content).digest('hex')
    : await local.digest(current.digests);
  const facts: FileFacts = {
    name: target.name,
    contentType: contentTypeOf(target.name),
    sizeBytes: local.sizeBytes,
    mtime: local.mtime,
    digest,
    keyFingerprint: current.fingerprint,
    isHidden: target.isHidden,
  };
  const metadata = encodeMetadata(target.key, facts, current);
  if (metadataBytes(metadata) > mostMetadataBytes) {
    throw new BackupError('The file is refused', {
      code: 'FILE_REFUSED',
      kind: 'unexpected',
      reason: 'its name is too long to be kept in the metadata of an object',
      hint: 'Give it a shorter name.',
    });
  }
  if (content) await storeSmall(content, metadata, encryption.current, target);
  else await storeLarge(local, digest, metadata, target);
  return facts;
}

async function readWhole(local: LocalFile): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of local.read()) chunks.push(chunk);
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}

async function storeSmall(
  content: Buffer,
  metadata: Record<string, string>,
  key: EncryptionKey,
  {store, key: objectKey, replaces, signal, onBytes}: UploadTarget,
): Promise<void> {
  const interrupted = interruption(signal);
  if (interrupted) throw interrupted;
  const sealed = sealWhole(content, key, fileContext(objectKey));
  const options = {contentType: 'application/octet-stream', metadata};
  if (replaces) await store.replace(objectKey, sealed, options);
  else await store.create(objectKey, sealed, options);
  onBytes(content.length);
}

async function storeLarge(
  local: LocalFile,
  digest: string,
  metadata: Record<string, string>,
  {store, keys, key, replaces, partConcurrency, signal, onBytes}: UploadTarget,
): Promise<void> {
  try {
    await pipeline(
      Readable.from(local.readAgain(keys.current.digests, digest)),
      seal(keys.encryption.current, fileContext(key)),
      (body) =>
        store.put(key, body as unknown as Readable, {
          partSizeBytes: filePartSize(local.sizeBytes),
          concurrency: partConcurrency,
          metadata,
          key: replaces ? 'replacing' : 'shared',
          signal,
          onBytes: (total) => onBytes(Math.min(total, local.sizeBytes)),
        }),
      signal ? {signal} : {},
    );
  } catch (error) {
    throw interruption(signal) ?? error;
  }
}

/**
 * Holds an object to the local file before that is deleted: the object is read back, opened and compared byte by byte,
 * and its metadata are read as a restore reads them.
 * @throws BackupError FILE_DIFFERS
 */
export async function requireStored(
  object: Pick<FileObject, 'key'> & {digest: string; name: string},
  local: LocalFile,
  store: ObjectStore,
  keys: FilesKeyring,
  signal: AbortSignal | undefined,
): Promise<void> {
  const described = await describeFile(store, object.key, keys.all);
  const isDescribed = described?.facts?.digest === object.digest && described.name === object.name;
  if (described && isDescribed && (await holdsSame(store, described, local, keys, signal))) return;
  throw new BackupError('The object is not what the file is', {
    code: 'FILE_DIFFERS',
    kind: 'integrity',
    reason: `${object.key} was read back and differs: the local file was kept`,
    hint: 'Who else writes to the bucket? Run it again.',
  });
}
