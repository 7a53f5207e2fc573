import {allKeys, keyring} from '../encrypt/keys.ts';
import {openStores} from '../upload/open-store.ts';
import {readCatalog} from './catalog.ts';
import type {ListSettings} from './list.ts';
import type {Runtime} from './runtime.ts';

export interface KeyUse {
  fingerprint: string;
  /** `unknown`: backups need it, and it is not at hand. */
  role: 'current' | 'previous' | 'unknown';
  /** Backups that it opens. */
  backups: number;
}

export interface KeysInUse {
  keys: KeyUse[];
  /** Of the recovery key's public half; undefined when none is set. */
  recoveryFingerprint: string | undefined;
  backups: number;
  /** Backups of the older form, which do not name their key. */
  legacy: number;
  /** Backups whose manifest is missing or cannot be trusted. */
  unreadable: number;
}

/** Which keys there are, and how many backups each one opens. */
export async function showKeys(settings: ListSettings, {signal}: Pick<Runtime, 'signal'>): Promise<KeysInUse> {
  const {optionalKeys: given} = settings;
  const keys = given && keyring(given.current, given.previous, given.recoveryPublicKey);
  using stores = await openStores(settings.store);
  const backups = await readCatalog(stores.backups, keys, signal);
  const named = backups.flatMap(({keyFingerprint}) => keyFingerprint ?? []);
  const atHand = new Set(keys ? allKeys(keys).map(({fingerprint}) => fingerprint) : []);
  const roleOf = (fingerprint: string): KeyUse['role'] => {
    if (!atHand.has(fingerprint)) return 'unknown';
    return fingerprint === keys?.current.fingerprint ? 'current' : 'previous';
  };
  return {
    keys: [...new Set([...atHand, ...named])].map((fingerprint) => ({
      fingerprint,
      role: roleOf(fingerprint),
      backups: named.filter((other) => other === fingerprint).length,
    })),
    recoveryFingerprint: keys?.recoveryPublic?.fingerprint,
    backups: backups.length,
    legacy: backups.filter(({state}) => state === 'legacy').length,
    unreadable: backups.filter(({state, keyFingerprint}) => state !== 'legacy' && !keyFingerprint).length,
  };
}
