import {timestampOf} from '../catalog/key-names.ts';
import {sealDocument} from '../catalog/manifest.ts';
import {derivedKey, keyring} from '../encrypt/keys.ts';
import {asBackupError, type ErrorCode, interruption} from '../errors.ts';
import {namePrefixOf} from '../files/file-names.ts';
import {asStep, type Step} from '../observer.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import {eachFile, type PrefixSettings} from './files-each.ts';
import {type FoundFiles, findFiles, missingReason} from './files-list.ts';
import {type FilesKeyring, filesKeyring, readContent} from './files-objects.ts';
import type {Runtime} from './runtime.ts';

export type FilesVerifySettings = PrefixSettings;

export interface FileFinding {
  /** Undefined for a file whose object is gone: only the index knows it. */
  key: string | undefined;
  name: string;
  code: ErrorCode;
  reason: string;
}

export interface FilesVerifyResult {
  prefix: string;
  verifiedAt: Date;
  durationMs: number;
  /** Opened, and content, size and digest are what was stored. */
  good: number;
  /** Opened, but with no metadata to hold them to: of the older procedure, or copied without. */
  unchecked: number;
  failed: number;
  /** Of the files. */
  bytes: number;
  findings: FileFinding[];
  /** Where this result was stored; undefined when it could not be. */
  resultKey: string | undefined;
}

export const filesVerifySteps: readonly Step[] = [
  {id: 'catalog', title: 'See what is in the bucket'},
  {id: 'files', title: 'Open every file and check its digest'},
  {id: 'publish', title: 'Store the result'},
];

/** Beside the files, not among them. */
export const verificationsPrefix = 'loma-backup/file-verifications/';
/** What the sealing key is derived for (HKDF's info). */
export const filesVerificationPurpose = 'loma-backup file verification 1';
/** As many findings are kept in the stored result; the count is always whole. */
const mostStoredFindings = 1000;

/**
 * Opens every file. What is wrong is in the result, which is also stored, sealed.
 * @throws BackupError FILES_NOT_FOUND, of the store, or the interruption
 */
export async function verifyFiles(settings: FilesVerifySettings, runtime: Runtime): Promise<FilesVerifyResult> {
  const started = performance.now();
  const {observer, signal} = runtime;
  const keys = filesKeyring(keyring(settings.keys.current, settings.keys.previous));
  using stores = await openStores(settings.store);
  const found = await asStep(
    observer,
    'catalog',
    () => findFiles(stores.files, settings.prefix, keys, 'verification', runtime),
    ({files}) => `${files.length} files`,
  );
  const checked = await asStep(observer, 'files', () =>
    checkFiles(stores.files, found, keys, settings.concurrency, runtime),
  );
  const interrupted = interruption(signal);
  if (interrupted) throw interrupted;
  const result: FilesVerifyResult = {
    prefix: namePrefixOf(settings.prefix),
    verifiedAt: runtime.now(),
    durationMs: Math.round(performance.now() - started),
    ...checked,
    resultKey: undefined,
  };
  await asStep(observer, 'publish', () => publish(stores.files, result, keys, runtime));
  return result;
}

type Checked = Pick<FilesVerifyResult, 'good' | 'unchecked' | 'failed' | 'bytes' | 'findings'>;

async function checkFiles(
  store: ObjectStore,
  found: FoundFiles,
  keys: FilesKeyring,
  concurrency: number,
  runtime: Runtime,
): Promise<Checked> {
  const result: Checked = {good: 0, unchecked: 0, failed: 0, bytes: 0, findings: []};
  const fail = (finding: FileFinding) => {
    result.failed += 1;
    result.findings.push(finding);
  };
  await eachFile(
    {store, keys, ...found, concurrency, step: 'files'},
    runtime,
    async (object, {key, name}) => {
      // Others are read meanwhile: the sum is looked at after the wait.
      const bytes = await readContent(store, object, keys, runtime.signal);
      result.bytes += bytes;
      const {problem, facts} = object;
      if (problem !== undefined) fail({key, name, code: 'MANIFEST_INVALID', reason: problem});
      else if (facts) result.good += 1;
      else result.unchecked += 1;
    },
    ({key, name}, {code, reason, message}) => fail({key, name, code, reason: reason ?? message}),
  );
  for (const {name} of found.missing) {
    fail({key: undefined, name, code: 'OBJECT_NOT_FOUND', reason: missingReason});
  }
  return result;
}

/** What cannot be stored is a warning: the check was made all the same. Names stay out of it: it is sealed, not encrypted. */
async function publish(
  store: ObjectStore,
  result: FilesVerifyResult,
  {encryption}: FilesKeyring,
  {observer, now, toolVersion}: Runtime,
): Promise<void> {
  const {fingerprint} = encryption.current;
  const {findings, good, unchecked, failed, bytes, durationMs, prefix, verifiedAt} = result;
  const document = {
    version: '1',
    // A prefix may hold a name: only whether there was one.
    isComplete: prefix === '',
    verifiedAt: verifiedAt.toISOString(),
    result: failed === 0 ? 'good' : 'failed',
    good,
    unchecked,
    failed,
    bytes,
    durationMs,
    toolVersion,
    findings: findings.slice(0, mostStoredFindings).map(({key, code}) => (key === undefined ? {code} : {key, code})),
  };
  const key = `${verificationsPrefix}${timestampOf(now())}.json`;
  const sealing = {fingerprint, key: derivedKey(encryption.current, filesVerificationPurpose)};
  try {
    await store.create(key, Buffer.from(sealDocument(document, sealing)));
    result.resultKey = key;
  } catch (error) {
    observer({type: 'warning', message: `the result could not be stored: ${asBackupError(error).message}`});
  }
}
