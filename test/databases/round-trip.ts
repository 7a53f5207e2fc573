/** Backs a database up, proves the backup, restores it into another database, and compares the two. */
import {expect} from '@jest/globals';
import {type BackupResult, backup} from '../../src/lib/operations/backup.ts';
import {type RestoreResult, restore} from '../../src/lib/operations/restore.ts';
import {type VerifyResult, verify} from '../../src/lib/operations/verify.ts';
import type {TestDatabase} from '../support/database.ts';
import {
  backupSettings,
  connectionTo,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
  verifySettings,
} from '../support/settings.ts';

const nobodyIsAsked = () => Promise.reject(new Error('nobody was to be asked'));

export interface RoundTrip {
  taken: BackupResult;
  restored: RestoreResult;
  verified: VerifyResult;
}

export interface RoundTripOptions {
  /** Restore a second time, over what the first time made. */
  again?: boolean;
}

/**
 * Whatever is not equal fails the test: the backup's manifest against the copy that `verify` makes of it, every digest.
 * @param target empty, and of the same encoding
 * @param scratchUrl of the server that `verify` makes its copy on
 */
export async function roundTrip(
  source: TestDatabase,
  target: TestDatabase,
  scratchUrl: string,
  options: RoundTripOptions = {},
): Promise<RoundTrip> {
  const store = await testStore('directory');
  try {
    return await roundTripIn(store, source, target, scratchUrl, options);
  } finally {
    await store.dispose();
  }
}

async function roundTripIn(
  store: TestStore,
  source: TestDatabase,
  target: TestDatabase,
  scratchUrl: string,
  {again = false}: RoundTripOptions,
): Promise<RoundTrip> {
  const key = newKey();
  const taken = await backup(backupSettings({database: source.url, store, key}), runtime());
  expect(taken.warnings).toEqual([]);
  const verified = await verify(
    verifySettings({scratch: scratchUrl, store, key}, {optionalDatabase: connectionTo(source.url)}),
    runtime(),
  );
  expect(verified.steps.filter(({status}) => status === 'failed')).toEqual([]);
  expect(verified).toMatchObject({isProved: true, warnings: []});
  const restored = await restore(restoreSettings({target: target.url, store, key}), nobodyIsAsked, runtime());
  const unexpected = restored.warnings.filter(
    (text) =>
      !/^rows not counted in the target|^the backup was written by pg_dump .* newer|^no such tablespace/.test(text),
  );
  expect(unexpected).toEqual([]);
  expect(restored).toMatchObject({tables: taken.tables, rows: taken.rows});
  if (again) {
    const anew = await restore(restoreSettings({target: target.url, store, key}), async () => true, runtime());
    expect(anew).toMatchObject({tables: taken.tables, rows: taken.rows});
  }
  return {taken, restored, verified};
}
