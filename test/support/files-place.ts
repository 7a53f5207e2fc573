/** A bucket for files and a directory of uploads, of one test's own. */
import {createHash} from 'node:crypto';
import {mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type {MigrateSettings} from '../../src/lib/operations/files-migrate.ts';
import type {FilesRestoreSettings} from '../../src/lib/operations/files-restore.ts';
import type {FilesVerifySettings} from '../../src/lib/operations/files-verify.ts';
import {keySettings, newKey, type StoreKind, type TestStore, testStore} from './settings.ts';

export interface FilesPlace extends TestStore {
  /** 64 hex characters. */
  key: string;
  /** A folder that goes with the place: `uploads` is to be migrated, the rest is the test's. */
  home: string;
  uploads: string;
  /** Writes files below `uploads`. */
  write(files: Readonly<Record<string, string | Buffer>>): Promise<void>;
  migrate(changes?: Partial<MigrateSettings>): MigrateSettings;
  restore(changes?: Partial<FilesRestoreSettings>): FilesRestoreSettings;
  verify(changes?: Partial<FilesVerifySettings>): FilesVerifySettings;
}

export async function filesPlace(kind: StoreKind): Promise<FilesPlace> {
  const place = await testStore(kind);
  const home = await mkdtemp(path.join(os.tmpdir(), 'loma-test-files-'));
  const uploads = path.join(home, 'uploads');
  await mkdir(uploads);
  const key = newKey();
  const common = {
    store: {...place.settings, filesBucket: place.settings.backupsBucket},
    keys: keySettings(key),
    concurrency: 4,
  };
  return {
    ...place,
    key,
    home,
    uploads,
    async write(files) {
      for (const [name, content] of Object.entries(files)) {
        const file = path.join(uploads, name);
        await mkdir(path.dirname(file), {recursive: true});
        await writeFile(file, content);
        // A time of its own, with fractions of a second.
        const time = 1_600_000_000.25 + content.length;
        await utimes(file, time, time);
      }
    },
    migrate: (changes = {}) => ({
      ...common,
      directory: uploads,
      dryRun: false,
      deleteLocal: false,
      overwrite: false,
      hideNames: false,
      include: [],
      exclude: [],
      ...changes,
    }),
    restore: (changes = {}) => ({...common, to: path.join(home, 'restored'), overwrite: false, ...changes}),
    verify: (changes = {}) => ({...common, ...changes}),
    async dispose() {
      await place.dispose();
      await rm(home, {recursive: true, force: true});
    },
  };
}

/** What is compared of a file: the content as it is or, of a large one, its digest; its time, in seconds. */
export interface TreeFile {
  content: string;
  mtime: number;
}

export function treeContent(bytes: Buffer): string {
  return bytes.length < 1000 ? bytes.toString() : createHash('sha256').update(bytes).digest('hex');
}

/** Every file below a folder. */
export async function tree(folder: string): Promise<Map<string, TreeFile>> {
  const files = new Map<string, TreeFile>();
  for (const entry of await readdir(folder, {recursive: true, withFileTypes: true})) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const {mtimeMs} = await stat(file);
    files.set(path.relative(folder, file), {
      content: treeContent(await readFile(file)),
      mtime: Math.round(mtimeMs) / 1000,
    });
  }
  return files;
}
