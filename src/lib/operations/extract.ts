import {randomBytes} from 'node:crypto';
import {createWriteStream} from 'node:fs';
import {link, stat, unlink} from 'node:fs/promises';
import {Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {totals} from '../dump/contents.ts';
import {inspect} from '../dump/inspect.ts';
import type {LeftOut} from '../dump/left-out.ts';
import {readingKeys} from '../encrypt/keys.ts';
import {BackupError, codeOf, interruption, messageOf} from '../errors.ts';
import {collectWarnings, type Step} from '../observer.ts';
import {measure} from '../streams/measure.ts';
import {openStores} from '../upload/open-store.ts';
import {heldBy} from './load-filter.ts';
import {openBackup} from './open-backup.ts';
import {find, type RestoreSettings} from './restore.ts';
import type {Runtime} from './runtime.ts';
import {choose, selectFilter} from './selection.ts';

export interface ExtractSettings extends Pick<RestoreSettings, 'store' | 'keys' | 'recovery' | 'choice' | 'selection'> {
  /** Where the plain SQL goes: a file that does not exist yet, or a stream. It is PHI. */
  output: string | Writable;
}

export interface ExtractResult {
  key: string;
  recoveryPoint: Date;
  /** The file, or `-`. */
  output: string;
  tables: number;
  rows: number;
  /** Of what was written. */
  dumpBytes: number;
  /** What was not written, on purpose. */
  leftOut: LeftOut[];
  durationMs: number;
  warnings: string[];
}

export const extractSteps: readonly Step[] = [
  {id: 'find', title: 'Find the backup'},
  {id: 'authenticate', title: 'Authenticate (a backup of the older form is read twice)'},
  {id: 'download', title: 'Download, decrypt and write'},
];

/** Writes a backup's plain SQL instead of restoring it. A file appears under its name when all of it was authentic. */
export async function extract(settings: ExtractSettings, runtime: Runtime): Promise<ExtractResult> {
  const {observer, signal} = runtime;
  const started = performance.now();
  const keys = readingKeys(settings.keys, settings.recovery);
  using stores = await openStores(settings.store);
  const {warnings, warn} = collectWarnings(observer);
  const found = await find(stores.backups, settings.choice, keys, runtime, warn);
  const chosen = settings.selection && (await choose(stores.backups, found, keys, settings.selection, runtime));
  const openable = chosen?.openable ?? found;
  const filters = chosen ? [selectFilter(chosen)] : [];
  const write = async (openSink: () => Writable) => {
    const dump = await openBackup(stores.backups, openable, keys, {
      signal,
      onBytes: (bytes) => observer({type: 'progress', step: 'download', bytes, totalBytes: openable.backup.sizeBytes}),
    });
    observer({type: 'skipped', step: 'authenticate', note: 'done'});
    observer({type: 'started', step: 'download'});
    const inspector = inspect();
    const written = measure({});
    try {
      const stages = filters.map(({stage}) => stage);
      await pipeline([...dump.stages, inspector, ...stages, written, openSink()], signal ? {signal} : {});
      dump.check(inspector.inspection);
      for (const {check} of filters) check();
    } catch (error) {
      throw interruption(signal) ?? dump.translate(error) ?? outputError(error, settings.output);
    }
    observer({type: 'finished', step: 'download'});
    return {contents: inspector.inspection.contents, bytes: written.bytes};
  };
  const {output} = settings;
  const {contents, bytes} =
    typeof output === 'string' ? await writeFile(output, write) : await write(() => borrowed(output));
  return {
    key: openable.backup.key,
    recoveryPoint: openable.backup.startedAt,
    output: typeof output === 'string' ? output : '-',
    ...totals({...contents, tables: heldBy(filters, contents.tables)}),
    dumpBytes: bytes,
    leftOut: filters.flatMap(({leftOut}) => leftOut),
    durationMs: Math.round(performance.now() - started),
    warnings,
  };
}

/** Somebody else's stream, which is written to and not ended: a pipeline into process.stdout itself never settles. */
function borrowed(stream: Writable): Writable {
  // What goes wrong is told to each write, too.
  stream.on('error', () => undefined);
  return new Writable({highWaterMark: 1 << 20, write: (chunk, _encoding, done) => void stream.write(chunk, done)});
}

/** Fills a file beside `file` and gives it the name when it is whole; when something fails, no file is left. */
async function writeFile<T>(file: string, write: (openSink: () => Writable) => Promise<T>): Promise<T> {
  if (await stat(file).catch(() => undefined)) throw fileExists(file);
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`;
  try {
    const result = await write(() => createWriteStream(partial, {flags: 'wx', mode: 0o600, flush: true}));
    // A link fails where a rename would overwrite a file that has appeared meanwhile.
    await link(partial, file).catch((error) => {
      throw codeOf(error) === 'EEXIST' ? fileExists(file) : outputError(error, file);
    });
    return result;
  } finally {
    await unlink(partial).catch(() => undefined);
  }
}

function fileExists(file: string): BackupError {
  return new BackupError('Refused: the output file exists', {
    code: 'REFUSED',
    kind: 'refused',
    reason: file,
    hint: 'Choose another name, or move that file away.',
  });
}

function outputError(error: unknown, output: string | Writable): BackupError {
  if (error instanceof BackupError) return error;
  const isGone = codeOf(error) === 'EPIPE';
  const hint =
    typeof output === 'string'
      ? 'Is there room, and may this user write there? What was written of it was removed.'
      : isGone
        ? 'What it has read is not the whole backup. Let it read to the end, or write into a file: --output FILE.'
        : 'Is there room where it goes? What was written is not the whole backup.';
  return new BackupError('The output could not be written', {
    code: 'OUTPUT_FAILED',
    kind: 'unexpected',
    reason: isGone ? 'the program that read it went away before the end (EPIPE)' : messageOf(error),
    hint,
    cause: error,
  });
}
