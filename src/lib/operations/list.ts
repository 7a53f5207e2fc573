import type {Backup} from '../catalog/backups.ts';
import type {KeySettings, StoreSettings} from '../config.ts';
import {keyring} from '../encrypt/keys.ts';
import {openStores} from '../upload/open-store.ts';
import {readCatalog} from './catalog.ts';
import type {Runtime} from './runtime.ts';

export interface ListSettings {
  store: StoreSettings;
  /** Without keys the seals of manifests are not checked. */
  optionalKeys: KeySettings | undefined;
}

/** Every backup in the bucket, newest first. */
export async function list(settings: ListSettings, runtime: Pick<Runtime, 'signal'>): Promise<Backup[]> {
  const {optionalKeys: keys} = settings;
  using stores = await openStores(settings.store);
  return await readCatalog(stores.backups, keys && keyring(keys.current, keys.previous), runtime.signal);
}
