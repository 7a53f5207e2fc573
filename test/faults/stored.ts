/** What is stored, read as a restore reads it: every byte, held to its manifest. */
import type {DumpContents} from '../../src/lib/dump/contents.ts';
import {readingKeys} from '../../src/lib/encrypt/keys.ts';
import {findBackup} from '../../src/lib/operations/catalog.ts';
import {checkOpenable, readWhole} from '../../src/lib/operations/open-backup.ts';
import {keySettings, type TestStore} from '../support/settings.ts';

export async function contentsOfStored({store}: TestStore, backupKey: string, key: string): Promise<DumpContents> {
  const keys = readingKeys(keySettings(key), undefined);
  const found = await findBackup(store, {by: 'key', key: backupKey}, keys);
  const {contents} = await readWhole(store, await checkOpenable(store, found, keys), keys, {});
  return contents;
}
